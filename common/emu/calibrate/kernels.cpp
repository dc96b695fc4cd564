// Runs the kernels of common/tests/watch_kernels.cu and async_kernels.cu for calibrate.py, on either back end:
//   kernels patterns        each pattern once: on the CPU back end a line of JSON each, on a GPU for Nsight Compute
//   kernels fault NAME      a planted fault, kernels twin NAME its correct twin
//   kernels faults          names, kinds, mistakes, and what this back end finds in fault and twin; tab-separated
#include <iostream>
#include <string>

#include "common/base/error.h"
#include "common/device/print_counts.h"
#include "common/tests/watch_kernels.h"

using namespace flash;
using namespace flash::watch_kernels;

namespace {

template <class Run>
void one_pattern(const std::string& name, Run run) {
  reset_watch_report();
  run();
  const WatchReport report = take_watch_report();
  std::cout << name;
  if (report.watched) std::cout << "\t" << watch_report_json(report);
  std::cout << std::endl;
}

void all_patterns() {
  for (const Pattern& p : patterns()) {
    one_pattern("shared read, " + p.name, [&] { run_shared_read(p); });
    one_pattern("shared write, " + p.name, [&] { run_shared_write(p); });
    one_pattern("global read, " + p.name, [&] { run_global_read(p); });
    one_pattern("global write, " + p.name, [&] { run_global_write(p); });
    if (p.bytes == 4) one_pattern("atomicAdd, " + p.name, [&] { run_atomic_add(p); });
  }
  one_pattern("divergent loop", run_divergent_loop);
  one_pattern("sliding read", run_sliding_read);
  for (const int stride : {16, 32, 64, 80, 128, 144, 256, 272}) {
    one_pattern("ldmatrix, rows " + std::to_string(stride) + " bytes apart", [&] { run_ldmatrix(stride); });
  }
}

std::vector<FaultCase> all_fault_cases() {
  std::vector<FaultCase> all = fault_cases();
  all.insert(all.end(), async_fault_cases().begin(), async_fault_cases().end());
  return all;
}

std::string kinds_found(const FaultCase& c, bool faulty) {
  reset_watch_report();
  try {
    c.run(faulty);
  } catch (const Error&) {
  }
  std::string kinds;
  for (const WatchFault& fault : take_watch_report().faults) kinds += (kinds.empty() ? "" : ", ") + fault.kind;
  return kinds;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "patterns") {
    all_patterns();
    return 0;
  }
  for (const FaultCase& c : all_fault_cases()) {
    if (what == "faults") {
      std::cout << c.name << "\t" << c.kind << "\t" << c.what << "\t" << kinds_found(c, true) << "\t"
                << kinds_found(c, false) << "\n";
    } else if ((what == "fault" || what == "twin") && argc == 3 && c.name == argv[2]) {
      try {
        c.run(what == "fault");
      } catch (const Error& error) {
        std::cout << error.what() << "\n";
      }
      return 0;
    }
  }
  if (what == "faults") return 0;
  std::cerr << "usage: kernels patterns | faults | fault NAME | twin NAME\n";
  return kUsage;
}
