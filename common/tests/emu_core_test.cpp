// What the CPU back end does beyond a GPU: poisoned shared memory, error reports, recovery from faults, shuffled
// schedules, a virtual device. What it does like a GPU is in primitives_test.cu.
#include "common/tests/catch.h"

#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/device/counts.h"
#include "common/device/device.h"
#include "common/device/memory.h"
#include "common/device/progress.h"
#include "common/emu/run/runtime.h"
#include "common/emu/run/symbols.h"
#include "common/kernel/cuda.cuh"

using flash::DeviceBuffer;

namespace {

constexpr unsigned kAllLanes = 0xffffffffu;

template <class T>
T* pointer(const DeviceBuffer& buffer) {
  return static_cast<T*>(buffer.data());
}

template <class T>
std::vector<T> download(const DeviceBuffer& buffer) {
  std::vector<T> values(buffer.bytes() / sizeof(T));
  buffer.copy_to_host(values.data());
  return values;
}

// Sets an environment variable for a scope.
struct Environment {
  Environment(const char* name, const std::string& value) : name(name) { setenv(name, value.c_str(), 1); }
  ~Environment() { unsetenv(name); }
  const char* name;
};

// The sentence of the flash::Error that `work` throws; the status must be `status`.
template <class Work>
std::string error_of(Work work, flash::Status status = flash::kDeviceError) {
  try {
    work();
  } catch (const flash::Error& error) {
    CHECK(error.status == status);
    return error.what();
  }
  return "no error";
}

// One block, no parameters.
std::string error_of_kernel(void (*kernel)(), unsigned threads) {
  return error_of([&] { launch(kernel, 1, threads, 0, nullptr); });
}

void check_contains(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) CHECK_THAT(text, ContainsSubstring(part));
}

}  // namespace

// ---- shared memory is NaN for every block ---------------------------------------------------------------------------

namespace {

__global__ void count_poison_kernel(int* poisoned) {
  __shared__ unsigned words[8][4];
  __shared__ half halves[2];
  unsigned* const dynamic = dynamic_shared<unsigned>();
  const int t = threadIdx.x;
  int count = 0;
  count += words[t / 4][t % 4] == 0xffffffffu;
  count += dynamic[t] == 0xffffffffu;
  if (t < 2) count += __half_as_ushort(halves[t]) == 0xffff;
  atomicAdd(&poisoned[blockIdx.x], count);
  __syncthreads();
  words[t / 4][t % 4] = dynamic[t] = unsigned(t);  // what the next block on this worker must not see
  if (t < 2) halves[t] = __float2half(0.0f);
}

}  // namespace

TEST_CASE("static and dynamic shared memory is 0xff bytes at the start of every block") {
  const int blocks = 5;
  DeviceBuffer poisoned("poisoned", blocks * sizeof(int));
  const std::vector<int> zeros(blocks, 0);
  poisoned.copy_from_host(zeros.data());
  launch(count_poison_kernel, blocks, 32, 32 * sizeof(unsigned), nullptr, pointer<int>(poisoned));
  CHECK(download<int>(poisoned) == std::vector<int>(blocks, 66));
  flash::reset_watch_report();  // the watched build has much to say about these reads
}

// ---- error reports --------------------------------------------------------------------------------------------------

namespace {

// Barriers are given places of their own here, so that a message can be asserted whole.
__global__ void divergent_barrier_kernel() {
  if (threadIdx.x < 40) {
    __syncthreads("left.cu", 10);
  } else if (threadIdx.x < 60) {
    __syncthreads("right.cu", 20);
  }
}

__global__ void different_barriers_kernel() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads_count(1);
  }
}

__global__ void barrier_against_shuffle_kernel() {
  if (threadIdx.x == 7) {
    __syncthreads("barrier.cu", 1);
  } else {
    __shfl_sync(kAllLanes, 1, 0, 32, "shuffle.cu", 2);
  }
}

__global__ void shuffle_after_return_kernel() {
  if (threadIdx.x >= 62) return;
  __shfl_xor_sync(kAllLanes, 1.0f, 1, 32, "shuffle.cu", 3);
}

__global__ void shuffles_apart_kernel() {
  if (threadIdx.x < 16) {
    __shfl_xor_sync(kAllLanes, 1.0f, 1, 32, "low.cu", 4);
  } else {
    __shfl_xor_sync(kAllLanes, 1.0f, 1, 32, "high.cu", 5);
  }
}

__global__ void masks_apart_kernel() {
  __shfl_xor_sync(threadIdx.x < 16 ? kAllLanes : 0xffff0000u, 1.0f, 1, 32, "masks.cu", 6);
}

__global__ void mask_without_caller_kernel() { __shfl_sync(0x0000ffffu, 1, 0, 32, "mask.cu", 7); }

__global__ void source_outside_mask_kernel() {
  if (threadIdx.x < 16) __shfl_sync(0x0000ffffu, 1, 20, 32, "source.cu", 8);
}

__global__ void bad_width_kernel() { __shfl_sync(kAllLanes, 1, 0, 12, "width.cu", 9); }

__global__ void lonely_warp_barrier_kernel() {
  if (threadIdx.x % 32 < 31) {
    __syncwarp(kAllLanes, "syncwarp.cu", 10);
  } else {
    __syncthreads("syncthreads.cu", 11);
  }
}

__global__ void trap_kernel() {
  if (threadIdx.x == 3) __trap();
}

__global__ void throw_kernel() {
  if (threadIdx.x == 3) throw std::runtime_error("thrown by a thread");
}

template <int kNumber, class T>
__global__ void template_trap_kernel(T) {
  __trap();
}

__global__ void own_place_kernel() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncwarp(kAllLanes);
    __syncthreads();
  }
}

}  // namespace

TEST_CASE("a divergent barrier is reported with every thread and where it waits") {
  CHECK(error_of_kernel(divergent_barrier_kernel, 64) ==
        "kernel divergent_barrier_kernel, block (0,0,0): divergent barrier: the threads of the block wait at different "
        "barriers; no thread can go on. Threads are numbered x + blockDim.x * (y + blockDim.y * z):\n"
        "  threads 0-39 wait at __syncthreads, left.cu:10\n"
        "  threads 40-59 wait at __syncthreads, right.cu:20\n"
        "  threads 60-63 have returned");
  check_contains(error_of_kernel(different_barriers_kernel, 64),
                 {"divergent barrier", "threads 0-31 wait at __syncthreads, ", "32-63 wait at __syncthreads_count, "});
}

TEST_CASE("the place of a barrier is the kernel's file and line") {
  const std::string error = error_of_kernel(own_place_kernel, 64);
  check_contains(error, {"threads 0-31 wait at __syncthreads, common/tests/emu_core_test.cpp:",
                         "threads 32-63 wait at __syncthreads, common/tests/emu_core_test.cpp:"});
}

TEST_CASE("a shuffle whose lanes wait elsewhere or have returned is reported") {
  CHECK(error_of_kernel(barrier_against_shuffle_kernel, 32) ==
        "kernel barrier_against_shuffle_kernel, block (0,0,0): __shfl_sync at shuffle.cu:2 in warp 0 has the mask "
        "0xffffffff, which names lane 7: waiting elsewhere; no thread can go on. Threads are numbered x + blockDim.x * "
        "(y + blockDim.y * z):\n"
        "  threads 0-6, 8-31 wait at __shfl_sync with mask 0xffffffff, shuffle.cu:2\n"
        "  thread 7 waits at __syncthreads, barrier.cu:1");
  check_contains(
      error_of_kernel(shuffle_after_return_kernel, 64),
      {"__shfl_xor_sync at shuffle.cu:3 in warp 1 has the mask 0xffffffff, which names lanes 30-31: returned",
       "threads 32-61 wait at __shfl_xor_sync", "threads 0-31, 62-63 have returned"});
  check_contains(error_of_kernel(shuffles_apart_kernel, 32),
                 {"__shfl_xor_sync at low.cu:4 in warp 0", "which names lanes 16-31: waiting elsewhere",
                  "threads 16-31 wait at __shfl_xor_sync with mask 0xffffffff, high.cu:5"});
  check_contains(
      error_of_kernel(masks_apart_kernel, 32),
      {"which names lanes 16-31: returned already", "threads 0-15 wait at __shfl_xor_sync with mask 0xffffffff"});
  check_contains(error_of_kernel(lonely_warp_barrier_kernel, 64),
                 {"__syncwarp at syncwarp.cu:10 in warp 0", "lane 31: waiting elsewhere",
                  "threads 31, 63 wait at __syncthreads, syncthreads.cu:11"});
}

TEST_CASE("a shuffle that can't have a meaning is reported") {
  check_contains(error_of_kernel(mask_without_caller_kernel, 32),
                 {"kernel mask_without_caller_kernel, block (0,0,0), thread (16,0,0): __shfl_sync at mask.cu:7 has the "
                  "mask 0xffff, which doesn't name the calling lane 16"});
  check_contains(error_of_kernel(source_outside_mask_kernel, 32),
                 {"a shuffle at source.cu:8 in warp 0: lane 0 reads lane 20, which the mask doesn't name"});
  check_contains(error_of_kernel(source_outside_mask_kernel, 16), {"lane 20, which the block doesn't have"});
  check_contains(error_of_kernel(bad_width_kernel, 32), {"width.cu:9 has width 12; it must be 1, 2, 4, 8, 16 or 32"});
}

TEST_CASE("errors name the kernel, the block and the thread") {
  CHECK(error_of_kernel(trap_kernel, 8) == "kernel trap_kernel, block (0,0,0), thread (3,0,0): __trap() was called");
  CHECK(error_of_kernel(throw_kernel, 8) ==
        "kernel throw_kernel, block (0,0,0), thread (3,0,0): the kernel threw an exception: thrown by a thread");
  CHECK(error_of([] { launch(template_trap_kernel<7, float>, dim3(1, 2), dim3(1, 1, 2), 0, nullptr, 1); }) ==
        "kernel template_trap_kernel<7, float>, block (0,0,0), thread (0,0,0): __trap() was called");
}

// ---- legal, though it looks like an error ---------------------------------------------------------------------------

namespace {

__global__ void short_warp_kernel(float* out) {  // 40 threads: the second warp has 8
  float value = 1.0f;
  for (int distance = 4; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
  __syncwarp();
  out[threadIdx.x] = value + float(__popc(__ballot_sync(kAllLanes, 1)));
}

__global__ void vote_after_return_kernel(unsigned* out) {
  if (threadIdx.x < 3) return;
  __syncwarp();
  const unsigned active = __activemask();
  out[threadIdx.x] = __ballot_sync(kAllLanes, 1) + unsigned(active == 0xfffffff8u);
}

__global__ void reduce_kernel(int* out) {
  const int lane = threadIdx.x;
  out[0] = __reduce_add_sync(kAllLanes, lane);
  out[1] = __reduce_min_sync(kAllLanes, lane - 40);
  out[2] = __reduce_max_sync(kAllLanes, lane - 40);
  out[3] = int(__reduce_or_sync(kAllLanes, 1u << lane));
  out[4] = int(__reduce_min_sync(kAllLanes, unsigned(lane - 1)));
}

}  // namespace

TEST_CASE("a mask may name lanes the block doesn't have, and votes lanes that returned") {
  DeviceBuffer out("out", 40 * sizeof(float));
  launch(short_warp_kernel, 1, 40, 0, nullptr, pointer<float>(out));
  const std::vector<float> got = download<float>(out);
  for (size_t t = 0; t < 40; ++t) CHECK(got[t] == (t < 32 ? 40.0f : 16.0f));
  DeviceBuffer votes("votes", 32 * sizeof(unsigned));
  launch(vote_after_return_kernel, 1, 32, 0, nullptr, pointer<unsigned>(votes));
  CHECK(download<unsigned>(votes)[5] == 0xfffffff9u);
}

TEST_CASE("reductions of a warp") {
  DeviceBuffer out("out", 5 * sizeof(int));
  launch(reduce_kernel, 1, 32, 0, nullptr, pointer<int>(out));
  CHECK(download<int>(out) == std::vector<int>{496, -40, -9, -1, 0});
}

// ---- faults ---------------------------------------------------------------------------------------------------------

namespace {

__global__ void write_at_kernel(float* p, long offset) {
  if (threadIdx.x == 5) p[offset] = 1.0f;
}

#if !FLASH_WATCH
__global__ void dynamic_overrun_kernel(long offset) { dynamic_shared<float>()[offset] = 1.0f; }
#endif

#ifdef __x86_64__  // other CPUs don't stop at these
__global__ void divide_kernel(int* p, int divisor) { p[0] = p[1] / divisor; }
#if !FLASH_WATCH
__global__ void misaligned_kernel(const char* p, float4* out) { out[0] = *reinterpret_cast<const float4*>(p + 4); }
#endif
#endif

__attribute__((noinline)) int deep(int n, int* p) {
  volatile char local[1000];
  local[0] = char(n);
  return n == 0 ? p[0] : deep(n - 1, p) + local[0];
}

__global__ void deep_kernel(int* p, int depth) { p[0] = deep(depth, p); }

void check_that_launches_work() {
  DeviceBuffer values("values", 32 * sizeof(float));
  launch(short_warp_kernel, 1, 32, 0, nullptr, pointer<float>(values));
  CHECK(download<float>(values)[3] == 40.0f);
}

}  // namespace

TEST_CASE("a fault in a kernel is an error, and the next launch works") {
  DeviceBuffer values("values", 1000 * sizeof(float));
  const auto write_at = [&](float* p, long offset) {
    return error_of([&] { launch(write_at_kernel, 1, 32, 0, nullptr, p, offset); });
  };
  for (int time = 0; time < 3; ++time) {
    check_contains(write_at(nullptr, 0), {"kernel write_at_kernel, block (0,0,0), thread (5,0,0)"});
    check_that_launches_work();
  }
#ifdef __x86_64__
  check_contains(error_of([&] { launch(divide_kernel, 1, 1, 0, nullptr, pointer<int>(values), 0); }),
                 {"kernel divide_kernel, block (0,0,0), thread (0,0,0): division of an integer by zero"});
  check_that_launches_work();
#endif
  check_contains(error_of([&] { launch(deep_kernel, 1, 4, 0, nullptr, pointer<int>(values), 100000); }),
                 {"kernel deep_kernel", "misaligned or invalid address", "more than the 128 KB of stack"});
  launch(deep_kernel, 1, 4, 0, nullptr, pointer<int>(values), 50);
#if !FLASH_WATCH  // the watcher sees these coming, and has tests of its own
  check_contains(write_at(nullptr, 0), {": misaligned or invalid address 0x0 in write_at_kernel: a null pointer"});
  check_contains(write_at(nullptr, 1000), {": misaligned or invalid address 0x", "a null pointer plus 4"});
  DeviceBuffer small("small", 400);
  check_contains(write_at(pointer<float>(small), 128),
                 {": misaligned or invalid address 0x", "112 bytes past the end of small (400 bytes)"});
  check_contains(
      error_of([] { launch(dynamic_overrun_kernel, 1, 1, 1024, nullptr, 256L); }),
      {": misaligned or invalid address 0x", "0 bytes past the end of the dynamic shared memory (1024 bytes)"});
#ifdef __x86_64__
  check_contains(error_of([&] {
                   launch(misaligned_kernel, 1, 1, 0, nullptr, pointer<const char>(values), pointer<float4>(values));
                 }),
                 {"kernel misaligned_kernel", "misaligned or invalid address"});
#endif
#endif
  check_that_launches_work();
  flash::reset_watch_report();
}

TEST_CASE("signal handlers are those of the program again after a launch") {
  struct sigaction before {
  }, after{};
  sigaction(SIGSEGV, nullptr, &before);
  check_that_launches_work();
  error_of_kernel(trap_kernel, 8);
  sigaction(SIGSEGV, nullptr, &after);
  CHECK(before.sa_sigaction == after.sa_sigaction);
  CHECK(before.sa_flags == after.sa_flags);
}

// ---- launches -------------------------------------------------------------------------------------------------------

namespace {

__global__ void nothing_kernel() {}

__global__ void much_static_shared_kernel(float* out) {
  __shared__ float much[12 * 1024 + 1];
  much[threadIdx.x] = 1.0f;
  __syncthreads();
  out[threadIdx.x] = much[threadIdx.x ^ 1];
}

__global__ void some_static_shared_kernel(float* out) {
  __shared__ float some[1024];
  some[threadIdx.x] = 1.0f;
  __syncthreads();
  out[threadIdx.x] = some[threadIdx.x ^ 1] + dynamic_shared<float>()[0];
}

}  // namespace

TEST_CASE("a launch that a GPU refuses is refused in words") {
  const auto refusal = [](dim3 grid, dim3 block, size_t shared) {
    return error_of([&] { launch(nothing_kernel, grid, block, shared, nullptr); });
  };
  CHECK(refusal(0, 32, 0) == "kernel nothing_kernel can't be launched: a grid of (0,1,1) blocks is empty");
  check_contains(refusal(1, dim3(32, 0), 0), {"a block of (32,0,1) threads is empty"});
  check_contains(refusal(1, 1025, 0), {"a block of (1025,1,1) threads is past the limit (1024,1024,64)"});
  check_contains(refusal(1, dim3(64, 32), 0), {"(64,32,1) threads is past the limit of 1024 threads a block"});
  check_contains(refusal(dim3(1, 65536), 32, 0), {"a grid of (1,65536,1) blocks is past the limit"});
  check_contains(refusal(1, 32, 232449), {"it asks for 232449 bytes of dynamic shared memory beside 0 bytes of "
                                          "__shared__ arrays; CPU back end (emulated sm_90) has 232448 bytes a block"});
  CHECK(refusal(1, 32, 232448) == "no error");
  DeviceBuffer out("out", 128);
  const auto run = [&](void (*kernel)(float*), size_t shared) {
    return error_of([&] { launch(kernel, 1, 32, shared, nullptr, pointer<float>(out)); });
  };
  check_contains(run(much_static_shared_kernel, 0), {"its __shared__ arrays take 49156 bytes"});
  check_contains(run(some_static_shared_kernel, 232448), {"beside 4096 bytes of __shared__ arrays"});
  CHECK(run(some_static_shared_kernel, 232448 - 4096) == "no error");
  flash::reset_watch_report();
}

TEST_CASE("EMU_DEVICE picks the device's limits") {
  const std::map<std::string, std::pair<int, size_t>> devices = {{"sm_75", {75, 65536}},
                                                                 {"sm_80", {80, 166912}},
                                                                 {"sm_86", {86, 101376}},
                                                                 {"sm_89", {89, 101376}},
                                                                 {"sm_90", {90, 232448}}};
  for (const auto& [name, limits] : devices) {
    const Environment device("EMU_DEVICE", name);
    CHECK(flash::query_device().compute_capability == limits.first);
    CHECK(flash::query_device().shared_bytes_per_block == limits.second);
    CHECK(flash::query_device().is_emulated);
    CHECK(error_of([&, most = limits.second] { launch(nothing_kernel, 1, 1, most, nullptr); }) == "no error");
    check_contains(error_of([&, most = limits.second] { launch(nothing_kernel, 1, 1, most + 1, nullptr); }),
                   {"CPU back end (emulated " + name + ") has " + std::to_string(limits.second) + " bytes a block"});
  }
  const Environment device("EMU_DEVICE", "sm_12");
  CHECK(error_of([] { flash::query_device(); }, flash::kUsage) ==
        "EMU_DEVICE is 'sm_12'; it must be sm_75, sm_80, sm_86, sm_89 or sm_90");
}

TEST_CASE("progress is told block by block") {
  std::vector<uint64_t> done;
  flash::set_progress([&](const std::string& kernel, uint64_t blocks_done, uint64_t blocks) {
    CHECK(kernel == "nothing_kernel");
    CHECK(blocks == 6);
    done.push_back(blocks_done);
  });
  launch(nothing_kernel, dim3(3, 2), 32, 0, nullptr);
  flash::set_progress({});
  launch(nothing_kernel, dim3(3, 2), 32, 0, nullptr);
  CHECK(done == std::vector<uint64_t>{1, 2, 3, 4, 5, 6});
}

// ---- schedules ------------------------------------------------------------------------------------------------------

namespace {

// `order` gets the numbers of blocks and threads as they come, `sums` results that no order may change.
__global__ void schedule_kernel(int* next, int* order, int* sums) {
  __shared__ int tile[96];
  const int t = threadIdx.x, id = blockIdx.x * 96 + t;
  order[atomicAdd(next, 1)] = id;
  tile[t] = id;
  __syncthreads();
  int sum = tile[(t + 41) % 96];
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(kAllLanes, sum, distance);
  __syncthreads();
  tile[95 - t] = sum;
  __syncthreads();
  sums[id] = tile[t] + __syncthreads_count(t % 5 == 0);
}

struct Schedule {
  std::vector<int> order, sums;
};

Schedule run_schedule() {
  const int threads = 7 * 96;
  DeviceBuffer next("next", sizeof(int)), order("order", threads * sizeof(int)), sums("sums", threads * sizeof(int));
  const int zero = 0;
  next.copy_from_host(&zero);
  launch(schedule_kernel, 7, 96, 0, nullptr, pointer<int>(next), pointer<int>(order), pointer<int>(sums));
  return {download<int>(order), download<int>(sums)};
}

}  // namespace

TEST_CASE("EMU_SEED shuffles threads, warps and blocks, and changes no result") {
  const Schedule plain = run_schedule();
  CHECK(std::is_sorted(plain.order.begin(), plain.order.end()));
  std::set<std::vector<int>> orders, block_orders;
  for (int seed = 1; seed <= 20; ++seed) {
    const Environment environment("EMU_SEED", std::to_string(seed));
    const Schedule shuffled = run_schedule(), again = run_schedule();
    CHECK(shuffled.sums == plain.sums);
    CHECK(shuffled.order == again.order);
    orders.insert(shuffled.order);
    std::vector<int> blocks;
    for (size_t i = 0; i < shuffled.order.size(); i += 96) blocks.push_back(shuffled.order[i] / 96);
    block_orders.insert(blocks);
    std::vector<int> sorted = shuffled.order;
    std::sort(sorted.begin(), sorted.end());
    CHECK(sorted == plain.order);
    // Within a block the warps are mixed: the first 32 to come are not one warp's.
    std::set<int> warps;
    for (size_t i = 0; i < 32; ++i) warps.insert(shuffled.order[i] % 96 / 32);
    CHECK(warps.size() > 1);
  }
  CHECK(orders.size() == 20);
  CHECK(block_orders.size() > 5);
}

TEST_CASE("errors name the seed, and a seed that is no number is refused") {
  {
    const Environment seed("EMU_SEED", "17");
    check_contains(error_of_kernel(divergent_barrier_kernel, 64), {"threads 60-63 have returned (EMU_SEED=17)"});
    check_contains(error_of_kernel(trap_kernel, 8), {"thread (3,0,0): __trap() was called (EMU_SEED=17)"});
  }
  const Environment seed("EMU_SEED", "x1");
  check_contains(error_of([] { launch(nothing_kernel, 1, 1, 0, nullptr); }, flash::kUsage), {"EMU_SEED", "'x1'"});
  const Environment longer("EMU_SEED", "99999999999999999999");
  check_contains(error_of([] { launch(nothing_kernel, 1, 1, 0, nullptr); }, flash::kUsage), {"EMU_SEED"});
}

TEST_CASE("several workers compute the same, and stop at an error") {
  const Schedule plain = run_schedule();
  const Environment workers("EMU_WORKERS", "3");
  for (int time = 0; time < 5; ++time) {
    const Schedule parallel = run_schedule();
    CHECK(parallel.sums == plain.sums);
  }
  check_contains(error_of([] { launch(trap_kernel, 100, 8, 0, nullptr); }), {"thread (3,0,0): __trap() was called"});
  DeviceBuffer poisoned("poisoned", 40 * sizeof(int));
  const std::vector<int> zeros(40, 0);
  poisoned.copy_from_host(zeros.data());
  launch(count_poison_kernel, 40, 32, 32 * sizeof(unsigned), nullptr, pointer<int>(poisoned));
  CHECK(download<int>(poisoned) == std::vector<int>(40, 66));
  flash::reset_watch_report();
}

// ---- device memory --------------------------------------------------------------------------------------------------

TEST_CASE("allocations are found by address and kept in the ledger") {
  const size_t live = flash::device_ledger().size();
  {
    DeviceBuffer a("a", 1000), empty("empty", 0);
    const auto* const base = pointer<const unsigned char>(a);
    CHECK(reinterpret_cast<uintptr_t>(base) % 256 == 0);
    CHECK(download<unsigned char>(a) == std::vector<unsigned char>(1000, 0xff));
    REQUIRE(flash::emu::find_allocation(base) != nullptr);
    CHECK(flash::emu::find_allocation(base)->label == "a");
    CHECK(flash::emu::find_allocation(base + 999)->base == base);
    CHECK(flash::emu::find_allocation(base + 1000) == nullptr);
    CHECK(flash::emu::nearest_allocation(base + 1003, 8)->label == "a");
    CHECK(flash::emu::nearest_allocation(base + 1100, 8) == nullptr);
    CHECK(flash::emu::nearest_allocation(base - 4, 8)->label == "a");
    REQUIRE(flash::device_ledger().size() == live + 2);
    CHECK(flash::device_ledger()[live].label == "a");
    CHECK(flash::device_ledger()[live].bytes == 1000);
    CHECK(flash::device_ledger_peak_bytes() >= 1000);
  }
  CHECK(flash::device_ledger().size() == live);
  CHECK_THROWS_AS(DeviceBuffer("too much", size_t(1) << 60), flash::Error);
  CHECK(flash::device_ledger().size() == live);
}

// ---- what the watcher is told ---------------------------------------------------------------------------------------

namespace {

// Writes down what it is told.
struct Recorder : flash::emu::Watcher {
  using Block = flash::emu::Block;
  using Warp = flash::emu::Warp;
  using Thread = flash::emu::Thread;
  using CallSite = flash::emu::CallSite;
  std::vector<std::string> told;
  std::map<flash::emu::Event, int> events;
  int touched_bytes = 0, ended = 0;

  void kernel_begin(const flash::emu::Launch& launch) override { told.push_back("begin " + launch.name); }
  void kernel_end(const flash::emu::Launch& launch) override { told.push_back("end " + launch.name); }
  void block_begin(Block& block) override {
    told.push_back("block " + std::to_string(block.linear));
    for (const auto& array : *block.statics) {
      if (array.function.find("watched_kernel") == std::string::npos) continue;
      told.push_back(array.name + " " + std::to_string(array.bytes));
      CHECK((array.base >= block.tls_begin && array.base + array.bytes <= block.tls_end));
    }
    CHECK(block.dynamic_end - block.dynamic_begin == 100);
    CHECK(block.threads == 64);
    CHECK(block.warps == 2);
  }
  void block_end(Block&) override { told.push_back("block end"); }
  void thread_end(Thread&) override { ++ended; }
  void block_barrier(Block& block, const char* name, CallSite) override {
    told.push_back(name + std::string(" ") + std::to_string(block.syncs));
  }
  void warp_barrier(Block&, Warp& warp, uint32_t mask, CallSite) override {
    told.push_back("__syncwarp " + std::to_string(warp.index) + " " + std::to_string(mask) + " " +
                   std::to_string(warp.syncs) + " " + std::to_string(warp.lane_syncs[0]));
  }
  void event(Thread&, flash::emu::Event event, CallSite site, unsigned count) override {
    CHECK(site.file != nullptr);
    events[event] += int(count);
  }
  void touched(Thread& thread, const void*, size_t bytes, bool is_write, bool is_atomic, CallSite) override {
    CHECK((is_write && is_atomic && &thread == flash::emu::current_thread()));
    touched_bytes += int(bytes);
  }
  void fault(const flash::emu::RuntimeFault& fault) override { told.push_back("fault " + fault.kind); }
  void allocation_freed(const flash::emu::Allocation& a) override { told.push_back("freed " + a.label); }
  void allocation_filled(const flash::emu::Allocation& a) override { told.push_back("filled " + a.label); }
  void allocation_written(const flash::emu::Allocation& a) override { told.push_back("written " + a.label); }
};

struct InstallWatcher {
  explicit InstallWatcher(flash::emu::Watcher* watcher) : before(flash::emu::get_watcher()) {
    flash::emu::set_watcher(watcher);
  }
  ~InstallWatcher() { flash::emu::set_watcher(before); }
  flash::emu::Watcher* before;
};

__global__ void watched_kernel(float* out) {
  __shared__ float tile[64];
  const int t = threadIdx.x;
  tile[t] = expf(float(t)) + __expf(1.0f) + exp2f(1.0f);
  __syncthreads();
  if (t < 4) __syncwarp(0xfu);
  const float sum = __shfl_xor_sync(kAllLanes, tile[t ^ 1], 1);
  if (__any_sync(kAllLanes, t == 40)) atomicAdd(out, sum);
}

}  // namespace

TEST_CASE("the watcher is told of a watched launch, and of nothing else") {
  Recorder recorder;
  {
    const InstallWatcher install(&recorder);
    DeviceBuffer out("out", sizeof(float));
    const float zero = 0.0f;
    out.copy_from_host(&zero);
    launch(watched_kernel, 2, 64, 100, nullptr, pointer<float>(out));
    error_of_kernel(trap_kernel, 0);  // refused: never begun
  }
  using flash::emu::Event;
  const std::vector<std::string> memory_before{"filled out", "written out"};
  std::vector<std::string> expected = memory_before;
#if FLASH_WATCH
  expected.push_back("begin watched_kernel");
  for (const char* block : {"block 0", "block 1"}) {
    for (const char* line : {block, "tile 256", "__syncthreads 1", "__syncwarp 0 15 1 1", "block end"}) {
      expected.push_back(line);
    }
  }
  expected.push_back("end watched_kernel");
  CHECK(recorder.events[Event::exp] == 2 * 64 * 3);
  CHECK(recorder.events[Event::shuffle] == 2 * 2);  // a warp at a time
  CHECK(recorder.events[Event::vote] == 2 * 2);
  CHECK(recorder.events[Event::atomic] == 2 * 32);
  CHECK(recorder.touched_bytes == 2 * 32 * 4);
  CHECK(recorder.ended == 128);
#else
  CHECK(recorder.events.empty());
  CHECK(recorder.touched_bytes == 0);
  CHECK(recorder.ended == 0);
#endif
  expected.push_back("freed out");
  CHECK(recorder.told == expected);
}

TEST_CASE("names of functions and of shared arrays come from the symbol table") {
  using flash::emu::short_name;
  CHECK(flash::emu::function_name(reinterpret_cast<const void*>(&watched_kernel)) == "watched_kernel");
  void (*const instance)(float) = template_trap_kernel<3, float>;
  CHECK(flash::emu::function_name(reinterpret_cast<const void*>(instance)) == "template_trap_kernel<3, float>");
  CHECK(short_name("_ZN12_GLOBAL__N_16kernelILi64EEEvPKfPf") == "kernel<64>");
  CHECK(short_name("main") == "main");
  CHECK(flash::emu::function_name(nullptr) != "");
  bool found = false;
  for (const auto& array : flash::emu::static_shared_arrays(reinterpret_cast<const void*>(&watched_kernel))) {
    found |= array.name == "tile" && array.bytes == 256 && flash::emu::short_name(array.function) == "watched_kernel";
  }
  CHECK(found);
}
