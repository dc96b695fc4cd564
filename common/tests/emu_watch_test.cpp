// The watcher against kernels whose counts and faults are known (watch_kernels.cu).
#include "common/tests/catch.h"

#include <algorithm>
#include <cstdlib>
#include <set>
#include <sstream>
#include <type_traits>
#include <vector>

#include "common/base/error.h"
#include "common/device/counts.h"
#include "common/device/device.h"
#include "common/device/memory.h"
#include "common/device/print_counts.h"
#include "common/device/timing.h"
#include "common/kernel/cuda.cuh"
#include "common/tests/watch_kernels.h"

#if FLASH_WATCH

namespace {

using namespace flash::watch_kernels;
using flash::Counts;
using flash::WatchFault;
using flash::WatchReport;

WatchReport report_of(void (*run)(bool), bool faulty) {
  flash::reset_watch_report();
  try {
    run(faulty);
  } catch (const flash::Error&) {
    // The kernel was stopped; the report says why.
  }
  return flash::take_watch_report();
}

template <class Run>
Counts counts_of(Run run) {
  flash::reset_watch_report();
  run();
  const WatchReport report = flash::take_watch_report();
  for (const WatchFault& fault : report.faults) FAIL_CHECK(fault.message);
  return report.total();
}

// 0 is the order of the threads' numbers; others shuffle.
struct Schedule {
  explicit Schedule(int seed) { setenv("EMU_SEED", std::to_string(seed).c_str(), 1); }
  ~Schedule() { unsetenv("EMU_SEED"); }
};

const Pattern& pattern(const std::string& name) {
  for (const Pattern& p : patterns()) {
    if (p.name == name) return p;
  }
  throw std::runtime_error("no pattern " + name);
}

// The lower half of the warp has returned when the upper half meets: that orders nothing between the halves.
template <bool kFaulty>
__global__ void half_returns(float* out) {
  __shared__ float value[kWarpSize];
  const int t = threadIdx.x;
  value[t] = float(t);
  if (t < 16) return;
  __syncwarp(0xffff0000u);
  out[t] = value[kFaulty ? t - 16 : t ^ 1];
}

// The thread that clears a sum adds to it at once; the others' additions may come before the clearing.
template <bool kFaulty>
__global__ void cleared_late(float* out) {
  __shared__ float sums[8];
  const int t = threadIdx.x;
  if (t < 8) sums[t] = 0.0f;
  if (!kFaulty) __syncthreads();
  atomicAdd(&sums[t % 8], 1.0f);
  __syncthreads();
  out[t] = sums[t % 8];
}

// Both loads stand where every thread comes by, though few threads use what is loaded.
__global__ void loaded_before_use(const float* in, float* out, int uses) {
  const int t = threadIdx.x;
  const float for_a_branch = in[t];
  const float for_a_loop = in[kWarpSize + t];
  float sum = 0.0f;
  for (int n = t; n < uses; n += 16) sum += for_a_loop * float(n);
  if (t < uses) sum += sqrtf(for_a_branch);
  out[t] = sum;
}

using Kernel = void (*)(float*);
template <Kernel kFaulty, Kernel kCorrect>
void run(bool faulty) {
  const flash::DeviceBuffer out("out", kWarpSize * sizeof(float));
  launch(faulty ? kFaulty : kCorrect, 1, kWarpSize, 0, nullptr, static_cast<float*>(out.data()));
  flash::synchronize();
}

template <bool kWrites>
__global__ void through_a_pointer(float* p, long offset) {
  if (kWrites)
    p[offset] = 1.0f;
  else if (p[offset] > 0.0f)
    __syncwarp();
}

std::string message_of_access(bool writes, float* p, long offset) {
  flash::reset_watch_report();
  try {
    launch(writes ? through_a_pointer<true> : through_a_pointer<false>, 1, 1, 0, nullptr, p, offset);
  } catch (const flash::Error&) {
  }
  const WatchReport report = flash::take_watch_report();
  REQUIRE(report.faults.size() == 1);
  CHECK(report.faults[0].kind == "out-of-bounds");
  return report.faults[0].message;
}

// Every thread reads the word; then one of the second warp, which knows by a shuffle alone that its warp has read,
// overwrites it. The last reader shares its warp.
__global__ void overwritten(float* out) {
  __shared__ float word;
  if (threadIdx.x == 0) word = 0.0f;
  __syncthreads();
  out[threadIdx.x] = word + __shfl_xor_sync(0xffffffffu, 1.0f, 1);
  if (threadIdx.x == 40) word = 1.0f;
}

// Each name and type once.
__global__ void exponentials(float* out) {
  const int t = threadIdx.x;
  const double x = out[t];
  out[t] = expf(out[t]) + exp2f(out[t]) + __expf(out[t]);
  out[t] += exp(out[t]) + exp2(out[t]);
  out[t] += float(exp(x) + exp2(x) + exp(t) + exp2(t));
  static_assert(std::is_same_v<decltype(exp(1.0f)), float> && std::is_same_v<decltype(exp2(1.0f)), float>);
  static_assert(std::is_same_v<decltype(exp(1.0)), double> && std::is_same_v<decltype(exp2(1)), double>);
}

// One race on `array`, in every schedule; and none in the correct twin.
void check_race(void (*run)(bool), const std::string& array) {
  for (int seed = 0; seed <= 20; ++seed) {
    const Schedule schedule(seed);
    INFO("EMU_SEED=" << seed);
    const WatchReport report = report_of(run, true);
    REQUIRE(report.faults.size() == 1);
    CHECK(report.faults[0].kind == "race");
    CHECK(report.faults[0].array == array);
    CHECK(report_of(run, false).faults.empty());
  }
}

}  // namespace

TEST_CASE("a barrier of some lanes doesn't order what lanes did that have returned") {
  check_race(run<half_returns<true>, half_returns<false>>, "value");
}

TEST_CASE("a plain write isn't forgotten when its thread goes on with an atomic") {
  check_race(run<cleared_late<true>, cleared_late<false>>, "sums");
}

TEST_CASE("every planted fault is found, in every schedule") {
  for (const FaultCase& c : fault_cases()) {
    for (int seed = 0; seed <= 20; ++seed) {
      const Schedule schedule(seed);
      INFO(c.name << ": " << c.what << ", EMU_SEED=" << seed);
      const WatchReport report = report_of(c.run, true);
      REQUIRE(!report.faults.empty());
      for (const WatchFault& fault : report.faults) {
        INFO(fault.message);
        CHECK(fault.kind == c.kind);
        if (!c.array.empty()) CHECK(fault.array == c.array);
        CHECK_THAT(fault.kernel, ContainsSubstring(c.name + "<true>"));
        CHECK(fault.here.file == "common/tests/watch_kernels.cu");
        CHECK(fault.here.line > 0);
        CHECK_THAT(fault.message, ContainsSubstring("watch_kernels.cu:" + std::to_string(fault.here.line)));
        CHECK_THAT(fault.message, ContainsSubstring("thread"));
        if (c.kind == "race") {
          CHECK(fault.other.file == "common/tests/watch_kernels.cu");
          CHECK(fault.other.line > 0);
          CHECK_THAT(fault.message, ContainsSubstring("watch_kernels.cu:" + std::to_string(fault.other.line)));
        }
      }
    }
  }
}

TEST_CASE("no correct twin is accused, in any schedule") {
  for (const FaultCase& c : fault_cases()) {
    for (int seed = 0; seed <= 20; ++seed) {
      const Schedule schedule(seed);
      INFO(c.name << ", EMU_SEED=" << seed);
      for (const WatchFault& fault : report_of(c.run, false).faults) FAIL_CHECK(fault.message);
    }
  }
}

TEST_CASE("a fault names both lines, the threads, the block and the array") {
  const WatchReport report = report_of(fault_cases().front().run, true);
  REQUIRE(report.faults.size() == 1);
  const WatchFault& fault = report.faults[0];
  INFO(fault.message);
  CHECK(fault.array == "tile");
  CHECK(std::abs(fault.here.line - fault.other.line) == 2);  // the store and the load, whichever ran first
  CHECK(fault.times > 1);
  CHECK_THAT(fault.message, ContainsSubstring("of tile (shared memory) in thread (") &&
                                ContainsSubstring("of block (0,0,0)") && ContainsSubstring("No __syncthreads()"));
}

TEST_CASE("a missing __syncwarp is told as such, threads and blocks by their numbers") {
  for (const FaultCase& c : fault_cases()) {
    if (c.name == "warp_exchange") {
      CHECK_THAT(report_of(c.run, true).faults.at(0).message, ContainsSubstring("__syncwarp()"));
    }
    if (c.name == "transpose") {
      CHECK_THAT(report_of(c.run, true).faults.at(0).message,
                 ContainsSubstring("thread (0,1,0)") && ContainsSubstring("thread (1,0,0)"));
    }
    if (c.name == "blocks_talk") {
      CHECK_THAT(report_of(c.run, true).faults.at(0).message, ContainsSubstring("any order"));
    }
  }
}

TEST_CASE("of a race's pairs one from two warps is named, where there is one: a __syncwarp would not do") {
  const auto& cases = fault_cases();
  const auto barrier_too_early =
      std::find_if(cases.begin(), cases.end(), [](const FaultCase& c) { return c.name == "barrier_too_early"; });
  REQUIRE(barrier_too_early != cases.end());
  for (int seed = 0; seed <= 20; ++seed) {
    const Schedule schedule(seed);
    INFO("EMU_SEED=" << seed);
    const WatchReport report = report_of(barrier_too_early->run, true);
    REQUIRE(report.faults.size() == 1);
    CHECK_THAT(report.faults[0].message, ContainsSubstring("No __syncthreads()") && !ContainsSubstring("__syncwarp()"));
    CHECK(report.faults[0].times > 1);

    flash::reset_watch_report();
    const flash::DeviceBuffer out("out", 2 * kWarpSize * sizeof(float));
    launch(overwritten, 1, 2 * kWarpSize, 0, nullptr, static_cast<float*>(out.data()));
    CHECK_THAT(flash::take_watch_report().faults.at(0).message, ContainsSubstring("No __syncthreads()"));
  }
}

TEST_CASE("a null pointer is called by its name") {
  CHECK_THAT(message_of_access(false, nullptr, 0),
             ContainsSubstring("reads 4 bytes at a null pointer, in thread (0,0,0) of block (0,0,0)."));
  CHECK_THAT(message_of_access(true, nullptr, 0), ContainsSubstring("writes 4 bytes at a null pointer, in thread"));
  CHECK_THAT(message_of_access(false, nullptr, 1 << 20), ContainsSubstring("at a null pointer plus 4194304 bytes,"));
  CHECK_THAT(message_of_access(false, nullptr, -1), ContainsSubstring("at a null pointer minus 4 bytes,"));
  const flash::DeviceBuffer out("out", 4);
  CHECK_THAT(message_of_access(false, static_cast<float*>(out.data()), 1L << 40),
             ContainsSubstring("at an address in no allocation"));
}

TEST_CASE("exponentials of every name and type are counted") {
  const Counts c = counts_of([] {
    flash::DeviceBuffer out("out", kWarpSize * sizeof(float));
    out.copy_from_host(std::vector<float>(kWarpSize, 0.5f).data());
    launch(exponentials, 1, kWarpSize, 0, nullptr, static_cast<float*>(out.data()));
  });
  CHECK(c.exps == 9 * kWarpSize);
}

TEST_CASE("bank conflicts of reads and writes") {
  struct Case {
    int bytes, stride;  // floats between lanes
    unsigned wavefronts, conflicts;
  };
  // 32 banks of 4 bytes. A warp's 8-byte accesses take two passes, 16-byte ones four, before any conflict.
  const Case cases[] = {
      {4, 1, 1, 0},   {4, 2, 2, 1},     {4, 4, 4, 3},     {4, 8, 8, 7},     {4, 16, 16, 15},   {4, 32, 32, 31},
      {4, 3, 1, 0},   {4, 5, 1, 0},     {4, 9, 1, 0},     {4, 17, 1, 0},    {4, 33, 1, 0},  // padded
      {8, 2, 2, 0},   {8, 4, 4, 2},     {8, 8, 8, 6},     {8, 16, 16, 14},  {8, 32, 32, 30},   {8, 64, 32, 30},
      {8, 6, 2, 0},   {8, 10, 2, 0},    {8, 18, 2, 0},    {8, 34, 2, 0},    {8, 66, 2, 0},     {16, 4, 4, 0},
      {16, 8, 8, 4},  {16, 16, 16, 12}, {16, 32, 32, 28}, {16, 64, 32, 28}, {16, 128, 32, 28}, {16, 12, 4, 0},
      {16, 20, 4, 0}, {16, 36, 4, 0},   {16, 68, 4, 0},   {16, 132, 4, 0},
  };
  for (const Case& c : cases) {
    const Pattern p = pattern("stride " + std::to_string(c.stride) + " floats, " + std::to_string(c.bytes) + " bytes");
    INFO(p.name);
    const Counts read = counts_of([&] { run_shared_read(p); });
    CHECK(read.shared_read.requests == 1);
    CHECK(read.shared_read.bytes == uint64_t(32 * c.bytes));
    CHECK(read.shared_read.wavefronts == c.wavefronts);
    CHECK(read.shared_read.conflicts == c.conflicts);
    CHECK(read.shared_write.conflicts == 0);
    const Counts write = counts_of([&] { run_shared_write(p); });
    const uint64_t fill = 8192 / 32;  // requests that clear the memory before and read it after
    CHECK(write.shared_write.requests == fill + 1);
    CHECK(write.shared_write.wavefronts == fill + c.wavefronts);
    CHECK(write.shared_write.conflicts == c.conflicts);
    CHECK(write.shared_read.conflicts == 0);
  }
}

TEST_CASE("lanes that read one word share it, and pairs of lanes share a pass") {
  struct Case {
    std::string name;
    int bytes;
    unsigned wavefronts, conflicts;
  };
  // 8-byte reads take two passes and 16-byte ones four, unless neighbours, or next but one, want the same: then half.
  const Case cases[] = {
      {"broadcast", 4, 1, 0},
      {"broadcast", 8, 1, 0},
      {"broadcast", 16, 2, 0},
      {"one for each 2 neighbours", 8, 1, 0},
      {"one for each 2 neighbours", 16, 2, 0},
      {"repeated every 2 lanes", 8, 1, 0},
      {"repeated every 2 lanes", 16, 2, 0},
      {"repeated every 4 lanes", 8, 2, 0},
      {"repeated every 4 lanes", 16, 4, 0},
      {"repeated every 2 lanes, 32 floats apart", 8, 2, 1},
      {"repeated every 2 lanes, 32 floats apart", 16, 4, 2},
      {"even lanes alone", 8, 2, 1},
      {"one lane", 16, 1, 0},
  };
  for (const Case& c : cases) {
    const Pattern p = pattern(c.name + ", " + std::to_string(c.bytes) + " bytes");
    INFO(p.name);
    const Counts read = counts_of([&] { run_shared_read(p); });
    CHECK(read.shared_read.wavefronts == c.wavefronts);
    CHECK(read.shared_read.conflicts == c.conflicts);
  }
  // Writes don't share a pass.
  CHECK(counts_of([] { run_shared_write(pattern("even lanes alone, 8 bytes")); }).shared_write.conflicts == 0);
}

TEST_CASE("sectors of global reads and writes") {
  struct Case {
    std::string name;
    int bytes;
    unsigned sectors;
  };
  const Case cases[] = {
      {"stride 1 floats", 4, 4},   {"stride 2 floats", 4, 8}, {"stride 4 floats", 4, 16}, {"stride 8 floats", 4, 32},
      {"stride 32 floats", 4, 32}, {"broadcast", 4, 1},       {"reversed", 4, 4},         {"even lanes alone", 4, 4},
      {"first half alone", 4, 2},  {"one lane", 4, 1},        {"stride 2 floats", 8, 8},  {"stride 4 floats", 16, 16},
      {"stride 8 floats", 16, 32}, {"broadcast", 16, 1},
  };
  for (const Case& c : cases) {
    const Pattern p = pattern(c.name + ", " + std::to_string(c.bytes) + " bytes");
    INFO(p.name);
    unsigned lanes = 0;
    for (const int i : p.index) lanes += i >= 0;
    const Counts read = counts_of([&] { run_global_read(p); });
    CHECK(read.global_read.requests == 2);  // the indices, and the pattern
    CHECK(read.global_read.sectors == 4 + c.sectors);
    CHECK(read.global_read.bytes == 32 * 4 + lanes * unsigned(c.bytes));
    if (c.name == "broadcast") continue;  // as writes they would race
    const Counts write = counts_of([&] { run_global_write(p); });
    CHECK(write.global_write.requests == 2);
    CHECK(write.global_write.sectors == 4 + c.sectors);
    CHECK(write.global_write.bytes == 32 * 4 + lanes * unsigned(c.bytes));
  }
}

TEST_CASE("sectors of a loop that moves by less than a sector") {
  const Counts c = counts_of(run_sliding_read);
  CHECK(c.global_read.requests == 32);
  CHECK(c.global_read.sectors == 4 * 4 + 28 * 5);  // 128 bytes are 4 sectors where they begin with one, else 5
}

TEST_CASE("a load is counted where it stands, not where its value is used") {
  for (int uses : {0, 1, kWarpSize}) {
    const Counts counts = counts_of([&] {
      flash::DeviceBuffer in("in", 2 * kWarpSize * sizeof(float));
      const flash::DeviceBuffer out("out", kWarpSize * sizeof(float));
      in.copy_from_host(std::vector<float>(2 * kWarpSize, 1.0f).data());
      launch(loaded_before_use, 1, kWarpSize, 0, nullptr, static_cast<const float*>(in.data()),
             static_cast<float*>(out.data()), uses);
      flash::synchronize();
    });
    INFO(uses << " of " << kWarpSize << " threads use what they load");
    CHECK(counts.global_read.bytes == 2 * kWarpSize * sizeof(float));
  }
}

TEST_CASE("distinct bytes are counted once, however often they are read") {
  flash::reset_watch_report();
  run_global_read(pattern("broadcast, 16 bytes"));
  const WatchReport report = flash::take_watch_report();
  REQUIRE(report.kernels.size() == 1);
  CHECK(report.kernels[0].distinct_read_bytes == 32 * 4 + 16);
  CHECK(report.kernels[0].distinct_write_bytes == 32 * 4);
}

TEST_CASE("atomics count as writes of a warp, and don't race among themselves") {
  const Counts c = counts_of([] { run_atomic_add(pattern("broadcast, 4 bytes")); });
  CHECK(c.atomics == 1);
  CHECK(c.global_write.requests == 2);
  CHECK(c.global_write.bytes == 2 * 32 * 4);
  CHECK(c.global_write.sectors == 32 + 4);  // on one address they come one after the other; then 4 for the output
  CHECK(counts_of([] { run_atomic_add(pattern("stride 1 floats, 4 bytes")); }).global_write.sectors == 4 + 4);
}

TEST_CASE("a line that lanes ran different numbers of times is marked") {
  flash::reset_watch_report();
  run_divergent_loop();
  const WatchReport report = flash::take_watch_report();
  int guessed = 0;
  for (const flash::LineCounts& line : report.kernels.at(0).lines) {
    if (line.exact) continue;
    ++guessed;
    CHECK(line.counts.global_read.requests == 32);
    CHECK(line.counts.global_read.bytes == 32 * 33 / 2 * 4);
  }
  CHECK(guessed == 1);
  std::ostringstream text;
  flash::print_watch_report(text, report);
  CHECK_THAT(text.str(), ContainsSubstring("≈"));
}

TEST_CASE("of a kernel without shared memory the report says nothing of shared memory") {
  flash::reset_watch_report();
  run_divergent_loop();
  std::ostringstream text;
  flash::print_watch_report(text, flash::take_watch_report());
  CHECK_THAT(text.str(), !ContainsSubstring("shared memory") && !ContainsSubstring("\n\n\n"));
  run_ldmatrix(16);
  flash::print_watch_report(text, flash::take_watch_report());
  CHECK_THAT(text.str(), ContainsSubstring("\n\n  shared memory"));
}

TEST_CASE("ldmatrix: eight rows of 16 bytes a wavefront") {
  const Counts dense = counts_of([] { run_ldmatrix(16); });
  CHECK(dense.ldmatrixes == 1);
  CHECK(dense.shared_read.requests == 1);
  CHECK(dense.shared_read.bytes == 512);
  CHECK(dense.shared_read.wavefronts == 4);
  CHECK(dense.shared_read.conflicts == 0);
  CHECK(counts_of([] { run_ldmatrix(128); }).shared_read.conflicts == 28);
  CHECK(counts_of([] { run_ldmatrix(144); }).shared_read.conflicts == 0);
}

TEST_CASE("counts are a line's, and the report prints it") {
  flash::reset_watch_report();
  run_shared_read(pattern("stride 8 floats, 4 bytes"));
  const WatchReport report = flash::take_watch_report();
  int lines = 0;
  for (const flash::LineCounts& line : report.kernels.at(0).lines) {
    CHECK(line.file == "common/tests/watch_kernels.cu");
    if (line.counts.shared_read.requests == 0) continue;
    ++lines;
    CHECK(line.counts.shared_read.conflicts == 7);
  }
  CHECK(lines == 1);
  std::ostringstream text;
  flash::print_watch_report(text, report);
  CHECK_THAT(text.str(), ContainsSubstring("shared_read<float>") && ContainsSubstring("7 conflicts") &&
                             ContainsSubstring("T v = reinterpret_cast<const T*>(memory)[i];\n"));  // without its label
  const std::string json = flash::watch_report_json(report);
  CHECK_THAT(json, ContainsSubstring("\"shared_read_conflicts\": 7") && ContainsSubstring("\"faults\": []"));
}

#endif
