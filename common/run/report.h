// What ./run tells: a page for a person, JSON for a program (docs/json.md).
#pragma once
#include <iosfwd>
#include <optional>
#include <string>

#include "common/check/result.h"
#include "common/device/counts.h"
#include "common/device/device.h"
#include "common/device/timing.h"
#include "common/kernel/step.h"
#include "common/problem/problem.h"
#include "common/run/model.h"

namespace flash {

struct RunReport {
  StepInfo step;
  Device device;
  Problem problem;
  std::string values;  // "normal, seed 0", or the input files
  bool checked = false;
  CheckResult check;
  std::optional<Times> time_ms;  // on a GPU, of a result that is right
  int iters = 0;
  Model model;
  double wall_seconds = 0;  // of the one call on the CPU back end
  WatchReport counts;
};

Verdict verdict_of(const RunReport&);  // the check's, and fail where the watched kernel made a fault

void print_header(std::ostream&, const RunReport&);  // what is about to run: step, problem, device
// The verdict and the figures; with `profile` also the counts by kernel and by line.
void print_results(std::ostream&, const RunReport&, bool profile);
std::string report_as_json(const RunReport&);
// A run that gave no result: skipped (the step can't take the problem) or failed (the kernel crashed), and why.
std::string report_without_result(const RunReport&, Verdict, const std::string& reason);

}  // namespace flash
