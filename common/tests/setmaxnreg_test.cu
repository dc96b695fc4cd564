// setmaxnreg (common/kernel/ptx/setmaxnreg.cuh): three warpgroups deal out the registers of a block, on the GPU and on the
// CPU back end.
#include "common/tests/catch.h"
// Before CUDA's words, some of which are macros on the CPU back end.
#include <numeric>

#include "common/base/error.h"
#include "common/device/device.h"
#include "common/kernel/cuda.cuh"
#include "common/kernel/ptx/setmaxnreg.cuh"
#include "common/tests/on_device.h"

namespace {

constexpr int kWarpgroup = 128, kThreads = 3 * kWarpgroup, kValues = 160;

// Threads that take registers keep kValues sums apart: more than the 168 of the launch hold beside everything else.
__global__ void __launch_bounds__(kThreads, 1) add_up(const float* in, float* out) {
  const int t = threadIdx.x;
  if (t < kWarpgroup) {
    registers_down_to<24>();
    out[t] = in[t];
    return;
  }
  registers_up_to<240>();
  float sums[kValues] = {};
  for (int turn = 0; turn < 3; ++turn) {
#pragma unroll
    for (int i = 0; i < kValues; ++i) sums[i] += in[(t + i * (turn + 1)) % kThreads];
  }
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kValues; ++i) sum += sums[i] * float(i);
  out[t] = sum;
}

template <int kDown, int kUp>
__global__ void __launch_bounds__(kThreads, 1) deal(int* out) {
  if (threadIdx.x < kWarpgroup) {
    registers_down_to<kDown>();
  } else {
    registers_up_to<kUp>();
  }
  out[threadIdx.x] = 1;
}

bool has_no_setmaxnreg() {
  if (flash::query_device().compute_capability == 90) return false;
  WARN("SKIP: needs a GPU of compute capability 9.0");
  return true;
}

}  // namespace

TEST_CASE("two warpgroups compute with the registers that a third gave away") {
  if (has_no_setmaxnreg()) return;
  std::vector<float> in(kThreads);
  std::iota(in.begin(), in.end(), 0.0f);
  const OnDevice<float> values(in), out(in.size());
  launch(add_up, 2, kThreads, 0, nullptr, values.data(), out.data());
  const std::vector<float> got = out.values();
  for (int t = 0; t < kThreads; ++t) {
    double expected = t;
    for (int i = 0; i < kValues && t >= kWarpgroup; ++i) {
      if (i == 0) expected = 0;
      for (int turn = 0; turn < 3; ++turn) expected += double(i) * ((t + i * (turn + 1)) % kThreads);
    }
    INFO("thread " << t);
    REQUIRE(got[size_t(t)] == Approx(expected).epsilon(1e-5));
  }
}

TEST_CASE("as many registers may be taken as are given") {
  if (has_no_setmaxnreg()) return;
  const OnDevice<int> out{size_t(kThreads)};
  launch(deal<24, 240>, 1, kThreads, 0, nullptr, out.data());
  launch(deal<40, 232>, 1, kThreads, 0, nullptr, out.data());
  launch(deal<168, 168>, 1, kThreads, 0, nullptr, out.data());
  const std::vector<int> ones = out.values();
  CHECK(std::accumulate(ones.begin(), ones.end(), 0) == kThreads);
}

#ifndef __CUDACC__
TEST_CASE("numbers of registers that the hardware doesn't know are refused") {
  const OnDevice<int> out{size_t(kThreads)};
  const auto message = [&](void (*kernel)(int*)) -> std::string {
    try {
      launch(kernel, 1, kThreads, 0, nullptr, out.data());
    } catch (const flash::Error& error) {
      return error.what();
    }
    return "";
  };
  const auto refused = ContainsSubstring("a multiple of 8 from 24 to 256");
  CHECK_THAT(message(deal<16, 240>), refused && ContainsSubstring("setmaxnreg_test.cu:"));
  CHECK_THAT(message(deal<28, 232>), refused && ContainsSubstring("registers_down_to<28>"));
  CHECK_THAT(message(deal<24, 264>), refused && ContainsSubstring("registers_up_to<264>"));
}
#endif
