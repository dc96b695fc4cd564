// Kernels for the tests of the watcher; see watch_kernels.h. They are mistakes on purpose: nothing to learn from but
// what the reports say of them.
#include "common/tests/watch_kernels.h"

#include <numeric>

#include "common/device/device.h"
#include "common/device/memory.h"
#include "common/device/timing.h"
#include "common/kernel/cuda.cuh"
#include "common/kernel/ptx/cp_async.cuh"
#include "common/kernel/ptx/ex2.cuh"
#include "common/kernel/ptx/ldmatrix.cuh"
#include "common/kernel/ptx/mma.cuh"
#include "common/kernel/ptx/pack.cuh"

namespace {

using flash::DeviceBuffer;

constexpr int kThreads = 64;  // two warps
constexpr int kTiles = 4;

DeviceBuffer& filled(DeviceBuffer& buffer) {
  std::vector<float> values(buffer.bytes() / sizeof(float));
  std::iota(values.begin(), values.end(), 0.0f);
  buffer.copy_from_host(values.data());
  return buffer;
}
float* floats(const DeviceBuffer& buffer) { return static_cast<float*>(buffer.data()); }

// Runs kernel(in, out), `in` filled, both `count` floats.
using Kernel = void (*)(const float*, float*);
void run(Kernel kernel, int blocks, int threads, int count, size_t shared_bytes = 0) {
  DeviceBuffer in("in", size_t(count) * sizeof(float)), out("out", size_t(count) * sizeof(float));
  filled(in);
  launch(kernel, blocks, threads, shared_bytes, nullptr, floats(in), floats(out));
  flash::synchronize();
}

// ---- races within a block -------------------------------------------------------------------------------------------

template <bool kFaulty>
__global__ void tile_load(const float* in, float* out) {
  __shared__ float tile[kThreads];
  const int t = threadIdx.x;
  tile[t] = in[t];
  if (!kFaulty) __syncthreads();
  out[t] = tile[kThreads - 1 - t];
}

template <bool kFaulty>
__global__ void tile_reuse(const float* in, float* out) {
  __shared__ float tile[kThreads];
  const int t = threadIdx.x;
  float sum = 0.0f;
  for (int i = 0; i < kTiles; ++i) {
    tile[t] = in[i * kThreads + t];
    __syncthreads();
    sum += tile[kThreads - 1 - t];
    if (!kFaulty) __syncthreads();
  }
  out[t] = sum;
}

template <bool kFaulty>
__global__ void warp_exchange(const float* in, float* out) {
  __shared__ float pair[kWarpSize];
  const int t = threadIdx.x;
  pair[t] = in[t];
  if (!kFaulty) __syncwarp();
  out[t] = pair[t ^ 1];
}

template <bool kFaulty>
__global__ void shuffle_for_barrier(const float* in, float* out) {
  __shared__ float pair[kWarpSize];
  const int t = threadIdx.x;
  pair[t] = in[t];
  const float sum = __shfl_xor_sync(0xffffffffu, in[t], 1);
  if (!kFaulty) __syncwarp();
  out[t] = sum + pair[t ^ 1];
}

// __syncwarp of half the lanes orders that half alone.
template <bool kFaulty>
__global__ void half_warp_sync(const float* in, float* out) {
  __shared__ float value[kWarpSize];
  const int t = threadIdx.x;
  value[t] = in[t];
  __syncwarp(t < 16 ? 0x0000ffffu : 0xffff0000u);
  __syncwarp(t < 16 ? 0x0000ffffu : 0xffff0000u);  // a second makes it no better
  out[t] = value[kFaulty ? t ^ 16 : t ^ 15];
}

template <bool kFaulty>
__global__ void same_word_twice(const float* in, float* out) {
  __shared__ float sum;
  const int t = threadIdx.x;
  if (kFaulty || t == 0) sum = in[t];
  __syncthreads();
  out[t] = sum;
}

// Two threads own the halves of each word.
template <bool kFaulty>
__global__ void half_words(const float* in, float* out) {
  __shared__ unsigned short half[kThreads];
  const int t = threadIdx.x;
  half[t] = static_cast<unsigned short>(in[t]);
  if (!kFaulty) __syncthreads();
  out[t] = half[t ^ 1];
}

template <bool kFaulty>
__global__ void atomic_and_plain(const float* in, float* out) {
  __shared__ float sum;
  const int t = threadIdx.x;
  if (t == 0) sum = 0.0f;
  __syncthreads();
  atomicAdd(&sum, in[t]);
  if (!kFaulty) __syncthreads();
  if (t == kThreads - 1) out[0] = sum;
}

template <bool kFaulty>
__global__ void block_in_global(const float* in, float* out) {
  const int t = threadIdx.x;
  out[t] = in[t];
  if (!kFaulty) __syncthreads();
  out[kThreads + t] = out[kThreads - 1 - t];
}

// A barrier orders what it stands between: this one comes too early.
template <bool kFaulty>
__global__ void barrier_too_early(const float* in, float* out) {
  __shared__ float tile[kThreads];
  const int t = threadIdx.x;
  if (kFaulty) __syncthreads();
  tile[t] = in[t];
  if (!kFaulty) __syncthreads();
  for (int i = 0; i < 4; ++i) out[t] = tile[(t + 16 * i) % kThreads];
}

// The last thread to read the word is the one that overwrites it: the others' reads must not be forgotten.
template <bool kFaulty>
__global__ void reader_writes(const float* in, float* out) {
  __shared__ float word;
  const int t = threadIdx.x;
  if (t == 0) word = in[0];
  __syncthreads();
  out[t] = word;
  if (!kFaulty) __syncthreads();
  if (t == kThreads - 1) word = out[t] + 1.0f;
}

// 1024 threads in two dimensions turn a padded tile.
constexpr int kSide = 32;
template <bool kFaulty>
__global__ void transpose(const float* in, float* out) {
  __shared__ float tile[kSide][kSide + 1];
  const int x = threadIdx.x, y = threadIdx.y;
  tile[y][x] = in[y * kSide + x];
  if (!kFaulty) __syncthreads();
  out[y * kSide + x] = tile[x][y];
}

// ---- races across blocks --------------------------------------------------------------------------------------------

template <bool kFaulty>
__global__ void blocks_one_sum(const float* in, float* out) {
  const int t = threadIdx.x, b = blockIdx.x;
  if (kFaulty) {
    if (t == 0) out[0] = in[b];
  } else {
    if (t == 0) out[b] = in[b];
  }
}

template <bool kFaulty>
__global__ void blocks_talk(const float* in, float* out) {
  const int i = blockIdx.x * kThreads + threadIdx.x, n = gridDim.x * kThreads;
  out[i] = in[i];
  __syncthreads();
  out[n + i] = out[kFaulty ? n - 1 - i : i];
}

template <bool kFaulty>
__global__ void blocks_add(const float* in, float* out) {
  const int t = threadIdx.x;
  if (kFaulty) {
    out[t] += in[blockIdx.x * kThreads + t];
  } else {
    atomicAdd(&out[t], in[blockIdx.x * kThreads + t]);
  }
}

// ---- out of bounds --------------------------------------------------------------------------------------------------

template <bool kFaulty>
__global__ void read_past_end(const float* in, float* out) {
  const int t = threadIdx.x;
  if (kFaulty || t + 1 < kThreads) out[t] = in[t + 1];
}

template <bool kFaulty>
__global__ void write_past_end(const float* in, float* out) {
  const int t = threadIdx.x;
  if (kFaulty || t + 1 < kThreads) out[t + 1] = in[t];
}

template <bool kFaulty>
__global__ void read_before_begin(const float* in, float* out) {
  const int t = threadIdx.x;
  out[t] = kFaulty || t > 0 ? in[t - 1] : 0.0f;
}

template <bool kFaulty>
__global__ void wild_pointer(const float* in, float* out) {
  const int t = threadIdx.x;
  out[t] = in[kFaulty ? t + (size_t(1) << 36) : t];
}

template <bool kFaulty>
__global__ void static_overrun(const float* in, float* out) {
  __shared__ float first[kThreads];
  __shared__ float second[kThreads];
  const int t = threadIdx.x;
  first[t] = in[t];
  second[t] = in[t];
  __syncthreads();
  out[t] = first[kFaulty ? t + 1 : t] + second[t];
}

template <bool kFaulty>
__global__ void dynamic_overrun(const float* in, float* out) {
  float* tile = dynamic_shared<float>();
  const int t = threadIdx.x;
  tile[t] = in[t];
  __syncthreads();
  if (kFaulty || t + 1 < kThreads) out[t] = tile[t + 1];
}

// ---- reads of what nothing wrote, misaligned vectors, barriers ------------------------------------------------------

template <bool kFaulty>
__global__ void unwritten_shared(const float* in, float* out) {
  __shared__ float tile[kThreads];
  const int t = threadIdx.x;
  if (!kFaulty || t % 2) tile[t] = in[t];
  __syncthreads();
  out[t] = tile[t];
}

// Shared memory does not outlive its block: what the block before left there is not this block's.
template <bool kFaulty>
__global__ void left_by_another_block(const float* in, float* out) {
  __shared__ float tile[kThreads];
  const int t = threadIdx.x;
  if (!kFaulty || blockIdx.x == 0) tile[t] = in[t];
  out[blockIdx.x * kThreads + t] = tile[t];
}

template <bool kFaulty>
__global__ void unwritten_global(const float* in, float* out) {
  const int t = threadIdx.x;
  out[t] = kFaulty ? out[kThreads + t] : in[t];
}

template <bool kFaulty>
__global__ void unwritten_sum(const float* in, float* out) {
  const int t = threadIdx.x;
  if (!kFaulty && t == 0) out[0] = 0.0f;
  __syncthreads();
  atomicAdd(&out[0], in[t]);
}

template <bool kFaulty>
__global__ void misaligned_float4(const float* in, float* out) {
  const int t = threadIdx.x;
  const float4 v = *reinterpret_cast<const float4*>(in + 4 * t + (kFaulty ? 1 : 0));
  out[t] = v.x + v.y + v.z + v.w;
}

template <bool kFaulty>
__global__ void misaligned_float2(const float* in, float* out) {
  __shared__ __align__(16) float tile[2 * kThreads + 2];
  const int t = threadIdx.x;
  tile[2 * t] = tile[2 * t + 1] = in[t];
  if (t < 2) tile[2 * kThreads + t] = 0.0f;
  __syncthreads();
  const float2 v = *reinterpret_cast<const float2*>(tile + 2 * t + (kFaulty ? 1 : 0));
  out[t] = v.x + v.y;
}

template <bool kFaulty>
__global__ void divergent_barrier(const float* in, float* out) {
  const int t = threadIdx.x;
  if (kFaulty) {
    if (t % 2) {
      __syncthreads();
      out[t] = in[t];
    } else {
      out[t] = 2.0f * in[t];
      __syncthreads();
    }
  } else {
    __syncthreads();
    out[t] = in[t];
  }
}

// ---- asynchronous copies --------------------------------------------------------------------------------------------

template <bool kFaulty>
__global__ void copy_without_wait(const float* in, float* out) {
  __shared__ __align__(16) float tile[kThreads];
  const int t = threadIdx.x;
  cp_async<4>(&tile[t], &in[t]);
  cp_async_commit();
  if (!kFaulty) cp_async_wait<0>();
  __syncthreads();
  out[t] = tile[kThreads - 1 - t];
}

// The wait is the thread's own: others see the bytes after a barrier.
template <bool kFaulty>
__global__ void wait_without_barrier(const float* in, float* out) {
  __shared__ __align__(16) float tile[kThreads];
  const int t = threadIdx.x;
  cp_async<4>(&tile[t], &in[t]);
  cp_async_commit();
  cp_async_wait<0>();
  if (!kFaulty) __syncthreads();
  out[t] = tile[kThreads - 1 - t];
}

// Two buffers: the copy of the next tile may start once everyone has left the buffer it goes to.
template <bool kFaulty>
__global__ void copy_too_early(const float* in, float* out) {
  __shared__ __align__(16) float tile[2][kThreads];
  const int t = threadIdx.x;
  cp_async<4>(&tile[0][t], &in[t]);
  cp_async_commit();
  float sum = 0.0f;
  for (int i = 0; i < kTiles; ++i) {
    if (i + 1 < kTiles) cp_async<4>(&tile[(i + 1) % 2][t], &in[(i + 1) * kThreads + t]);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    sum += tile[i % 2][kThreads - 1 - t];
    if (!kFaulty) __syncthreads();
  }
  out[t] = sum;
}

}  // namespace

namespace flash::watch_kernels {

#define FAULT_CASE(kernel, what, kind, array, blocks, threads, count, shared_bytes)                           \
  {                                                                                                           \
#kernel, what, kind, array,                                                                               \
        [](bool faulty) { run(faulty ? kernel<true> : kernel<false>, blocks, threads, count, shared_bytes); } \
  }

void run_transpose(bool faulty) {
  DeviceBuffer in("in", kSide * kSide * sizeof(float)), out("out", kSide * kSide * sizeof(float));
  filled(in);
  launch(faulty ? transpose<true> : transpose<false>, 1, dim3(kSide, kSide), 0, nullptr, floats(in), floats(out));
  synchronize();
}

void run_blocks_add(bool faulty) {
  DeviceBuffer in("in", 4 * kThreads * sizeof(float)), sums("sums", kThreads * sizeof(float));
  filled(in), filled(sums);
  launch(faulty ? blocks_add<true> : blocks_add<false>, 4, kThreads, 0, nullptr, floats(in), floats(sums));
  synchronize();
}

const std::vector<FaultCase>& fault_cases() {
  static const std::vector<FaultCase> cases = {
      FAULT_CASE(tile_load, "no barrier after a tile is loaded", "race", "tile", 1, kThreads, kThreads, 0),
      FAULT_CASE(tile_reuse, "no barrier before a tile is loaded again", "race", "tile", 1, kThreads, kTiles * kThreads,
                 0),
      FAULT_CASE(warp_exchange, "no __syncwarp between lanes", "race", "pair", 1, 32, 32, 0),
      FAULT_CASE(shuffle_for_barrier, "a shuffle taken for a barrier", "race", "pair", 1, 32, 32, 0),
      FAULT_CASE(half_warp_sync, "__syncwarp of the wrong lanes", "race", "value", 1, 32, 32, 0),
      FAULT_CASE(same_word_twice, "two threads write one word", "race", "sum", 1, kThreads, kThreads, 0),
      FAULT_CASE(half_words, "the other half of a word read too early", "race", "half", 1, kThreads, kThreads, 0),
      FAULT_CASE(atomic_and_plain, "a plain read beside atomics", "race", "sum", 1, kThreads, kThreads, 0),
      FAULT_CASE(block_in_global, "no barrier, through global memory", "race", "out", 1, kThreads, 2 * kThreads, 0),
      FAULT_CASE(barrier_too_early, "the barrier stands before the writes", "race", "tile", 1, kThreads, kThreads, 0),
      FAULT_CASE(reader_writes, "a word overwritten while others read it", "race", "word", 1, kThreads, kThreads, 0),
      {"transpose", "no barrier in a block of two dimensions", "race", "tile", run_transpose},
      FAULT_CASE(blocks_one_sum, "all blocks write one word", "race", "out", 4, kThreads, kThreads, 0),
      FAULT_CASE(blocks_talk, "a block reads what another wrote", "race", "out", 4, kThreads, 8 * kThreads, 0),
      {"blocks_add", "blocks add without atomics", "race", "sums", run_blocks_add},
      FAULT_CASE(read_past_end, "read one past the end", "out-of-bounds", "in", 1, kThreads, kThreads, 0),
      FAULT_CASE(write_past_end, "write one past the end", "out-of-bounds", "out", 1, kThreads, kThreads, 0),
      FAULT_CASE(read_before_begin, "read one before the begin", "out-of-bounds", "in", 1, kThreads, kThreads, 0),
      FAULT_CASE(wild_pointer, "read far outside", "out-of-bounds", "", 1, kThreads, kThreads, 0),
      FAULT_CASE(static_overrun, "static shared array overrun by one", "out-of-bounds", "", 1, kThreads, kThreads, 0),
      FAULT_CASE(dynamic_overrun, "dynamic shared memory overrun by one", "out-of-bounds", "dynamic shared memory", 1,
                 kThreads, kThreads, kThreads * sizeof(float)),
      FAULT_CASE(unwritten_shared, "shared memory read that nothing wrote", "uninitialised", "tile", 1, kThreads,
                 kThreads, 0),
      FAULT_CASE(left_by_another_block, "shared memory of the block before", "uninitialised", "tile", 2, kThreads,
                 2 * kThreads, 0),
      FAULT_CASE(unwritten_global, "global memory read that nothing wrote", "uninitialised", "out", 1, kThreads,
                 2 * kThreads, 0),
      FAULT_CASE(unwritten_sum, "atomics on a sum nobody set to 0", "uninitialised", "out", 1, kThreads, kThreads, 0),
      FAULT_CASE(misaligned_float4, "float4 read at 4 bytes past its multiple", "misaligned", "in", 1, kThreads,
                 4 * kThreads + 4, 0),
      FAULT_CASE(misaligned_float2, "float2 read at 4 bytes past its multiple", "misaligned", "tile", 1, kThreads,
                 kThreads, 0),
      FAULT_CASE(divergent_barrier, "threads of a warp wait at two barriers", "barrier", "", 1, kThreads, kThreads, 0),
      FAULT_CASE(copy_without_wait, "no wait for an asynchronous copy", "async-copy", "tile", 1, kThreads, kThreads, 0),
      FAULT_CASE(wait_without_barrier, "no barrier after the wait for a copy", "async-copy", "tile", 1, kThreads,
                 kThreads, 0),
      FAULT_CASE(copy_too_early, "a copy into a buffer still being read", "async-copy", "tile", 1, kThreads,
                 kTiles * kThreads, 0),
  };
  return cases;
}

}  // namespace flash::watch_kernels

// ---- access patterns ------------------------------------------------------------------------------------------------

namespace {

constexpr int kSharedWords = 8192;  // 32 KB

__device__ float sum_of(float v) { return v; }
__device__ float sum_of(float2 v) { return v.x + v.y; }
__device__ float sum_of(float4 v) { return v.x + v.y + v.z + v.w; }
template <class T>
__device__ T splat(float x);
template <>
__device__ float splat<float>(float x) {
  return x;
}
template <>
__device__ float2 splat<float2>(float x) {
  return make_float2(x, x);
}
template <>
__device__ float4 splat<float4>(float x) {
  return make_float4(x, x, x, x);
}

template <class T>
__global__ void shared_read(const int* index, float* out) {
  __shared__ __align__(16) float memory[kSharedWords];
  for (int i = threadIdx.x; i < kSharedWords; i += kWarpSize) memory[i] = 0.0f;
  __syncthreads();
  const int i = index[threadIdx.x];
  float sum = 0.0f;
  if (i >= 0) {
    T v = reinterpret_cast<const T*>(memory)[i];  // @shared-read
    sum = sum_of(v);
  }
  out[threadIdx.x] = sum;
}

template <class T>
__global__ void shared_write(const int* index, float* out) {
  __shared__ __align__(16) float memory[kSharedWords];
  for (int i = threadIdx.x; i < kSharedWords; i += kWarpSize) memory[i] = 0.0f;
  __syncthreads();
  const int i = index[threadIdx.x];
  if (i >= 0) reinterpret_cast<T*>(memory)[i] = splat<T>(float(i));
  __syncthreads();
  float sum = 0.0f;
  for (int j = threadIdx.x; j < kSharedWords; j += kWarpSize) sum += memory[j];
  out[threadIdx.x] = sum;
}

template <class T>
__global__ void global_read(const int* index, const T* in, float* out) {
  const int i = index[threadIdx.x];
  float sum = 0.0f;
  if (i >= 0) {
    T v = in[i];
    sum = sum_of(v);
  }
  out[threadIdx.x] = sum;
}

template <class T>
__global__ void global_write(const int* index, T* target, float* out) {
  const int i = index[threadIdx.x];
  if (i >= 0) target[i] = splat<T>(float(i));
  out[threadIdx.x] = float(i);
}

__global__ void atomic_add(const int* index, float* target, float* out) {
  const int i = index[threadIdx.x];
  if (i >= 0) atomicAdd(&target[i], 1.0f);
  out[threadIdx.x] = float(i);
}

__global__ void divergent_loop(const float* in, float* out) {
  float sum = 0.0f;
  for (int i = 0; i <= int(threadIdx.x); ++i) sum += in[i * kWarpSize + threadIdx.x];
  out[threadIdx.x] = sum;
}

__global__ void sliding_read(const float* in, float* out) {
  float sum = 0.0f;
  for (int i = 0; i < kWarpSize; ++i) sum += in[i + threadIdx.x];
  out[threadIdx.x] = sum;
}

__global__ void ldmatrix_rows(unsigned* out, int stride) {
  __shared__ __align__(16) float memory[kSharedWords];
  for (int i = threadIdx.x; i < kSharedWords; i += kWarpSize) memory[i] = 0.0f;
  __syncthreads();
  unsigned r[4];
  ldmatrix_x4(r, reinterpret_cast<const unsigned char*>(memory) + threadIdx.x * stride);
  out[threadIdx.x] = r[0] + r[1] + r[2] + r[3];
}

struct PatternBuffers {
  explicit PatternBuffers(const flash::watch_kernels::Pattern& pattern)
      : index("index", kWarpSize * sizeof(int)), memory("memory", 1 << 20), out("out", kWarpSize * sizeof(float)) {
    index.copy_from_host(pattern.index.data());
    filled(memory);
  }
  const int* indices() const { return static_cast<const int*>(index.data()); }
  DeviceBuffer index, memory, out;
};

#define LAUNCH_BY_WIDTH(kernel, bytes, ...)                                        \
  switch (bytes) {                                                                 \
    case 4: launch(kernel<float>, 1, kWarpSize, 0, nullptr, __VA_ARGS__); break;   \
    case 8: launch(kernel<float2>, 1, kWarpSize, 0, nullptr, __VA_ARGS__); break;  \
    default: launch(kernel<float4>, 1, kWarpSize, 0, nullptr, __VA_ARGS__); break; \
  }                                                                                \
  flash::synchronize()

}  // namespace

namespace flash::watch_kernels {

const std::vector<Pattern>& patterns() {
  static const std::vector<Pattern> all = [] {
    std::vector<Pattern> list;
    auto add = [&](const std::string& name, int bytes, auto index_of_lane) {
      Pattern pattern{name + ", " + std::to_string(bytes) + " bytes", bytes, {}};
      for (int lane = 0; lane < kWarpSize; ++lane) pattern.index.push_back(index_of_lane(lane));
      list.push_back(pattern);
    };
    for (const int bytes : {4, 8, 16}) {
      const int words = bytes / 4;
      for (int stride = words; stride <= 32 * words; stride *= 2) {
        if (stride * 32 > kSharedWords) break;
        add("stride " + std::to_string(stride) + " floats", bytes, [=](int l) { return l * stride / words; });
        const int padded = stride + words;
        if (padded * 32 > kSharedWords || stride == words) continue;
        add("stride " + std::to_string(padded) + " floats", bytes, [=](int l) { return l * padded / words; });
      }
      add("broadcast", bytes, [](int) { return 5; });
      add("reversed", bytes, [](int l) { return 31 - l; });
      for (const int group : {2, 4, 8, 16}) {
        add("one for each " + std::to_string(group) + " neighbours", bytes, [=](int l) { return l / group; });
        add("repeated every " + std::to_string(group) + " lanes", bytes, [=](int l) { return l % group; });
        add("repeated every " + std::to_string(group) + " lanes, 32 floats apart", bytes,
            [=](int l) { return l % group * (32 / words); });
      }
      add("even lanes alone", bytes, [](int l) { return l % 2 ? -1 : l; });
      add("first half alone", bytes, [](int l) { return l < 16 ? l : -1; });
      add("one lane", bytes, [](int l) { return l == 7 ? 7 : -1; });
      add("one lane of each half, one address", bytes, [](int l) { return l % 16 == 3 ? 7 : -1; });
      add("one lane of each half, two addresses", bytes, [](int l) { return l % 16 == 3 ? l : -1; });
      unsigned random = 12345;
      for (int i = 0; i < 6; ++i) {
        const int range = i < 2 ? 16 : i < 4 ? 64 : 512;
        add("gather " + std::to_string(i) + " from " + std::to_string(range), bytes, [&](int) {
          random = random * 1664525u + 1013904223u;
          return int(random >> 16) % range;
        });
      }
    }
    return list;
  }();
  return all;
}

void run_shared_read(const Pattern& pattern) {
  PatternBuffers b(pattern);
  LAUNCH_BY_WIDTH(shared_read, pattern.bytes, b.indices(), floats(b.out));
}

// In some patterns lanes write one word, which is a race and is reported: those are for the counts alone.
void run_shared_write(const Pattern& pattern) {
  PatternBuffers b(pattern);
  LAUNCH_BY_WIDTH(shared_write, pattern.bytes, b.indices(), floats(b.out));
}

void run_global_read(const Pattern& pattern) {
  PatternBuffers b(pattern);
  LAUNCH_BY_WIDTH(global_read, pattern.bytes, b.indices(), b.memory.data(), floats(b.out));
}

void run_global_write(const Pattern& pattern) {
  PatternBuffers b(pattern);
  LAUNCH_BY_WIDTH(global_write, pattern.bytes, b.indices(), b.memory.data(), floats(b.out));
}

void run_atomic_add(const Pattern& pattern) {
  PatternBuffers b(pattern);
  launch(atomic_add, 1, kWarpSize, 0, nullptr, b.indices(), floats(b.memory), floats(b.out));
  synchronize();
}

void run_divergent_loop() {
  DeviceBuffer in("in", kWarpSize * kWarpSize * sizeof(float)), out("out", kWarpSize * sizeof(float));
  filled(in);
  launch(divergent_loop, 1, kWarpSize, 0, nullptr, floats(in), floats(out));
  synchronize();
}

void run_sliding_read() {
  DeviceBuffer in("in", 2 * kWarpSize * sizeof(float)), out("out", kWarpSize * sizeof(float));
  filled(in);
  launch(sliding_read, 1, kWarpSize, 0, nullptr, floats(in), floats(out));
  synchronize();
}

void run_ldmatrix(int row_stride_bytes) {
  DeviceBuffer out("out", kWarpSize * sizeof(unsigned));
  launch(ldmatrix_rows, 1, kWarpSize, 0, nullptr, static_cast<unsigned*>(out.data()), row_stride_bytes);
  synchronize();
}

}  // namespace flash::watch_kernels
