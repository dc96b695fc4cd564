// common/kernel/cuda.cuh first, the standard library behind it: none of CUDA's words that g++ is taught may break a header.
#include "common/kernel/cuda.cuh"

// One a line, in this order.
// clang-format off
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <complex>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <random>
#include <regex>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <valarray>
#include <variant>
#include <vector>
// clang-format on

#include "common/device/device.h"
#include "common/device/memory.h"
#include "common/tests/catch.h"

namespace {

// As libstdc++ writes it (since version 12 in <memory>), and as a kernel does.
__attribute__((__noinline__)) int as_the_library() { return 1; }
__device__ __noinline__ int as_a_kernel() { return 2; }

__global__ void kernel(float* out) {
  out[threadIdx.x] =
      std::exp(0.0f) + float(std::real(std::exp(std::complex<double>(0.0)))) + exp2(float(as_a_kernel()));
}

}  // namespace

// Outside of the unnamed namespace the C library's exp is in sight as well, and no call is ambiguous.
__global__ void global_kernel(float* out) { out[threadIdx.x] = exp(out[threadIdx.x] - 6.0f) + float(exp(0.0)); }

TEST_CASE("a kernel file may include any header of the standard library after common/kernel/cuda.cuh") {
  const flash::DeviceBuffer out("out", 4);
  float value = 0;
  launch(kernel, 1, 1, 0, nullptr, static_cast<float*>(out.data()));
  out.copy_to_host(&value);
  CHECK(value == 6.0f);
  launch(global_kernel, 1, 1, 0, nullptr, static_cast<float*>(out.data()));
  out.copy_to_host(&value);
  CHECK(value == 2.0f);
  CHECK(as_the_library() == 1);
}
