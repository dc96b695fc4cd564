// What kernels are made of, on whichever back end this is built for: indices, shared memory, barriers, shuffles, votes,
// atomics, vector types, 16-bit floats. On a GPU these tests say that the tests are right; on the CPU back end, that it
// does as the GPU does.
#include "common/tests/catch.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "common/device/device.h"
#include "common/device/memory.h"
#include "common/device/timing.h"
#include "common/kernel/cuda.cuh"
#include "common/problem/dtype.h"

namespace {

using flash::DeviceBuffer;

constexpr unsigned kAllLanes = 0xffffffffu;

template <class T>
DeviceBuffer& upload(DeviceBuffer& buffer, const std::vector<T>& values) {
  buffer.copy_from_host(values.data());
  return buffer;
}

template <class T>
std::vector<T> download(const DeviceBuffer& buffer) {
  flash::synchronize();
  std::vector<T> values(buffer.bytes() / sizeof(T));
  buffer.copy_to_host(values.data());
  return values;
}

template <class T>
T* pointer(const DeviceBuffer& buffer) {
  return static_cast<T*>(buffer.data());
}

// ---- indices --------------------------------------------------------------------------------------------------------

__global__ void indices_kernel(int* out) {
  const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const int threads = blockDim.x * blockDim.y * blockDim.z;
  out[block * threads + thread] = thread + 1000 * block;
}

}  // namespace

TEST_CASE("every thread of every block runs once and knows its place") {
  const dim3 grid(3, 2, 4), block(5, 7, 2);
  const int blocks = 24, threads = 70;
  DeviceBuffer out("out", size_t(blocks) * threads * sizeof(int));
  launch(indices_kernel, grid, block, 0, nullptr, pointer<int>(out));
  const std::vector<int> got = download<int>(out);
  for (int b = 0; b < blocks; ++b) {
    for (int t = 0; t < threads; ++t) CHECK(got[size_t(b * threads + t)] == t + 1000 * b);
  }
}

namespace {

// ---- shared memory and barriers -------------------------------------------------------------------------------------

template <int kRows, int kCols>
__global__ void transpose_kernel(const float* in, float* out) {
  __shared__ __align__(16) float tile[kRows][kCols];
  float* const copy = dynamic_shared<float>();
  const int t = threadIdx.x;
  tile[t / kCols][t % kCols] = in[t];
  __syncthreads();  // the tile is complete
  copy[t] = tile[t % kRows][t / kRows];
  __syncthreads();  // and so is the copy
  out[t] = copy[kRows * kCols - 1 - t];
}

}  // namespace

TEST_CASE("static and dynamic shared memory, also in templates") {
  DeviceBuffer in("in", 128 * sizeof(float)), out("out", 128 * sizeof(float));
  std::vector<float> values(128);
  for (size_t i = 0; i < values.size(); ++i) values[i] = float(i);
  upload(in, values);
  const auto run = [&](void (*kernel)(const float*, float*), int rows, int cols) {
    launch(kernel, 1, 128, 128 * sizeof(float), nullptr, pointer<const float>(in), pointer<float>(out));
    const std::vector<float> got = download<float>(out);
    for (int t = 0; t < 128; ++t) {
      const int from = 127 - t;
      CHECK(got[size_t(t)] == float(from % rows * cols + from / rows));
    }
  };
  run(transpose_kernel<8, 16>, 8, 16);
  run(transpose_kernel<32, 4>, 32, 4);
}

namespace {

__global__ void scan_kernel(int* values) {  // sums of all values up to each, by doubling
  int* const sums = dynamic_shared<int>();
  const int t = threadIdx.x;
  sums[t] = values[t];
  for (int distance = 1; distance < int(blockDim.x); distance *= 2) {
    __syncthreads();  // everybody's sum of the last round is there
    const int other = t >= distance ? sums[t - distance] : 0;
    __syncthreads();  // everybody has read
    sums[t] += other;
  }
  values[t] = sums[t];
}

}  // namespace

TEST_CASE("barriers in a loop, in blocks of 1 to 1024 threads") {
  for (int threads : {1, 31, 32, 33, 257, 1024}) {
    DeviceBuffer values("values", size_t(threads) * sizeof(int));
    upload(values, std::vector<int>(size_t(threads), 3));
    launch(scan_kernel, 1, threads, size_t(threads) * sizeof(int), nullptr, pointer<int>(values));
    const std::vector<int> got = download<int>(values);
    for (int t = 0; t < threads; ++t) CHECK(got[size_t(t)] == 3 * (t + 1));
  }
}

namespace {

__global__ void early_return_kernel(int* out, int live) {
  __shared__ int sum;
  const int t = threadIdx.x;
  if (t == 0) sum = 0;
  __syncthreads();
  if (t >= live) return;
  atomicAdd(&sum, t);
  __syncthreads();  // the threads that have returned count as arrived
  out[t] = sum;
}

}  // namespace

TEST_CASE("threads that have returned count as arrived at a barrier") {
  DeviceBuffer out("out", 96 * sizeof(int));
  launch(early_return_kernel, 1, 96, 0, nullptr, pointer<int>(out), 40);
  const std::vector<int> got = download<int>(out);
  for (int t = 0; t < 40; ++t) CHECK(got[size_t(t)] == 40 * 39 / 2);
  CHECK(got[40] == -1);  // 0xff bytes, as DeviceBuffer fills
}

namespace {

__global__ void barrier_votes_kernel(int* out) {
  const int t = threadIdx.x;
  const int count = __syncthreads_count(t % 3 == 0);
  const int all = __syncthreads_and(t < 64);
  const int not_all = __syncthreads_and(t < 63);
  const int any = __syncthreads_or(t == 63);
  const int none = __syncthreads_or(t == 64);
  out[t] = count + 100 * (all != 0) + 200 * (not_all != 0) + 400 * (any != 0) + 800 * (none != 0);
}

}  // namespace

TEST_CASE("barriers that vote") {
  DeviceBuffer out("out", 64 * sizeof(int));
  launch(barrier_votes_kernel, 1, 64, 0, nullptr, pointer<int>(out));
  for (int value : download<int>(out)) CHECK(value == 22 + 100 + 400);
}

namespace {

__global__ void warp_barrier_kernel(int* out) {
  __shared__ int values[32];
  const int lane = threadIdx.x;
  values[lane] = lane * lane;
  if (lane < 16) {
    __syncwarp(0x0000ffffu);
    out[lane] = values[15 - lane];
  } else {
    __syncwarp(0xffff0000u);
    out[lane] = values[47 - lane];
  }
  __syncwarp();
}

}  // namespace

TEST_CASE("__syncwarp of halves and of the whole warp") {
  DeviceBuffer out("out", 32 * sizeof(int));
  launch(warp_barrier_kernel, 1, 32, 0, nullptr, pointer<int>(out));
  const std::vector<int> got = download<int>(out);
  for (int lane = 0; lane < 32; ++lane) {
    const int other = lane < 16 ? 15 - lane : 47 - lane;
    CHECK(got[size_t(lane)] == other * other);
  }
}

namespace {

// ---- shuffles and votes ---------------------------------------------------------------------------------------------

enum Kind { kIdx, kUp, kDown, kXor };

template <class T>
__global__ void shuffle_kernel(T* out, int kind, int lane_argument, int width) {
  const T mine = T(100 + threadIdx.x);
  T got = mine;
  if (kind == kIdx) got = __shfl_sync(kAllLanes, mine, lane_argument, width);
  if (kind == kUp) got = __shfl_up_sync(kAllLanes, mine, unsigned(lane_argument), width);
  if (kind == kDown) got = __shfl_down_sync(kAllLanes, mine, unsigned(lane_argument), width);
  if (kind == kXor) got = __shfl_xor_sync(kAllLanes, mine, lane_argument, width);
  out[threadIdx.x] = got;
}

// The lane that `lane` reads, in the words of the CUDA C++ Programming Guide's section on warp shuffles.
int source_lane(int kind, int lane, int argument, int width) {
  const int group = lane / width * width;
  if (kind == kIdx) return group + argument % width;
  const int wanted = kind == kUp ? lane - argument : kind == kDown ? lane + argument : (lane ^ argument);
  if (kind == kUp) return wanted < group ? lane : wanted;
  return wanted >= group + width ? lane : wanted;  // xor may read an earlier group
}

template <class T>
void check_shuffles() {
  DeviceBuffer out("out", 32 * sizeof(T));
  for (int kind : {kIdx, kUp, kDown, kXor}) {
    for (int width : {1, 2, 4, 8, 16, 32}) {
      for (int argument : {0, 1, 2, 3, 7, 15, 16, 31}) {
        launch(shuffle_kernel<T>, 1, 32, 0, nullptr, pointer<T>(out), kind, argument, width);
        const std::vector<T> got = download<T>(out);
        for (int lane = 0; lane < 32; ++lane) {
          INFO("kind " << kind << " width " << width << " argument " << argument << " lane " << lane);
          REQUIRE(got[size_t(lane)] == T(100 + source_lane(kind, lane, argument, width)));
        }
      }
    }
  }
}

}  // namespace

TEST_CASE("shuffles of every kind and width, of 32 and 64 bits") {
  check_shuffles<int>();
  check_shuffles<float>();
  check_shuffles<double>();
  check_shuffles<unsigned long long>();
}

namespace {

__global__ void partial_mask_kernel(float* out) {
  const int lane = threadIdx.x;
  float sum = float(lane);
  if (lane >= 8 && lane < 16) {  // the other lanes never come here
    for (int distance = 4; distance > 0; distance /= 2) sum += __shfl_xor_sync(0x0000ff00u, sum, distance);
  }
  out[lane] = sum;
}

}  // namespace

TEST_CASE("a shuffle among some lanes of a warp") {
  DeviceBuffer out("out", 32 * sizeof(float));
  launch(partial_mask_kernel, 1, 32, 0, nullptr, pointer<float>(out));
  const std::vector<float> got = download<float>(out);
  for (int lane = 0; lane < 32; ++lane) CHECK(got[size_t(lane)] == (lane >= 8 && lane < 16 ? 92.0f : float(lane)));
}

namespace {

__global__ void votes_kernel(unsigned* out) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  unsigned* const mine = out + 6 * threadIdx.x;
  mine[0] = __ballot_sync(kAllLanes, (lane + warp) % 2);
  mine[1] = unsigned(__any_sync(kAllLanes, lane == 31) != 0);
  mine[2] = unsigned(__any_sync(kAllLanes, lane == 32) != 0);
  mine[3] = unsigned(__all_sync(kAllLanes, lane < 32) != 0);
  mine[4] = unsigned(__all_sync(kAllLanes, lane < 31) != 0);
  mine[5] = lane < 4 ? __ballot_sync(0xfu, lane != 2) : 0;
}

}  // namespace

TEST_CASE("votes") {
  DeviceBuffer out("out", 64 * 6 * sizeof(unsigned));
  launch(votes_kernel, 1, 64, 0, nullptr, pointer<unsigned>(out));
  const std::vector<unsigned> got = download<unsigned>(out);
  for (unsigned t = 0; t < 64; ++t) {
    const unsigned* const mine = &got[6 * t];
    CHECK(mine[0] == (t < 32 ? 0xaaaaaaaau : 0x55555555u));
    CHECK((mine[1] == 1 && mine[2] == 0 && mine[3] == 1 && mine[4] == 0));
    CHECK(mine[5] == (t % 32 < 4 ? 0xbu : 0u));
  }
}

namespace {

// ---- atomics --------------------------------------------------------------------------------------------------------

struct AtomicResults {
  int add, min, max, exchanged_sum, cas;
  unsigned bits_or, bits_and, bits_xor;
  unsigned long long add64;
  float add_float;
};

__global__ void atomics_kernel(AtomicResults* r) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(&r->add, i);
  atomicMin(&r->min, i);
  atomicMax(&r->max, i);
  atomicOr(&r->bits_or, 1u << (i % 32));
  atomicAnd(&r->bits_and, ~(1u << (i % 8)));
  atomicXor(&r->bits_xor, unsigned(i));
  atomicAdd(&r->add64, 1ull << 32);
  atomicAdd(&r->add_float, 0.5f);
  int seen = r->cas, expected;
  do {  // an addition made of compare-and-swap
    expected = seen;
    seen = atomicCAS(&r->cas, expected, expected + 1);
  } while (seen != expected);
}

}  // namespace

TEST_CASE("atomics over blocks") {
  DeviceBuffer results("results", sizeof(AtomicResults));
  AtomicResults start = {};
  start.min = 1000;
  start.bits_and = kAllLanes;
  results.copy_from_host(&start);
  launch(atomics_kernel, 4, 64, 0, nullptr, pointer<AtomicResults>(results));
  flash::synchronize();
  AtomicResults got;
  results.copy_to_host(&got);
  unsigned all_xor = 0;
  for (unsigned i = 0; i < 256; ++i) all_xor ^= i;
  CHECK(got.add == 255 * 256 / 2);
  CHECK(got.min == 0);
  CHECK(got.max == 255);
  CHECK(got.bits_or == kAllLanes);
  CHECK(got.bits_and == 0xffffff00u);
  CHECK(got.bits_xor == all_xor);
  CHECK(got.add64 == 256ull << 32);
  CHECK(got.add_float == 128.0f);
  CHECK(got.cas == 256);
}

namespace {

__global__ void atomic_results_kernel(int* values, int* old) {
  old[0] = atomicAdd(&values[0], 5);
  old[1] = atomicExch(&values[1], 6);
  old[2] = atomicCAS(&values[2], 3, 7);
  old[3] = atomicCAS(&values[3], 3, 7);
}

}  // namespace

TEST_CASE("atomics return what was there") {
  DeviceBuffer values("values", 4 * sizeof(int)), old("old", 4 * sizeof(int));
  upload<int>(values, {1, 2, 3, 4});
  launch(atomic_results_kernel, 1, 1, 0, nullptr, pointer<int>(values), pointer<int>(old));
  CHECK(download<int>(old) == std::vector<int>{1, 2, 3, 4});
  CHECK(download<int>(values) == std::vector<int>{6, 6, 7, 4});
}

namespace {

// ---- vector types and 16-bit floats ---------------------------------------------------------------------------------

__global__ void vectors_kernel(const float4* in, float4* out, float2* pairs, int4* integers) {
  const int t = threadIdx.x;
  __shared__ float4 tile[32];
  float4 v = in[t];
  v.x += 1.0f;
  tile[t] = v;
  __syncthreads();
  float4 other = tile[31 - t];
  out[t] = make_float4(other.w, other.z, other.y, other.x);
  pairs[t] = make_float2(other.x, v.x);
  int4 four = make_int4(t, t + 1, t + 2, t + 3);
  four.y = -four.y;
  integers[t] = four;
}

}  // namespace

namespace {

struct Partial {
  float4 o;
  float m;
  int keys;
};

__global__ void shared_structs_kernel(float* out) {
  __shared__ Partial partials[32];
  const int t = threadIdx.x;
  partials[t].o = make_float4(float(t), 1.0f, 2.0f, 3.0f);
  partials[t].m = float(2 * t);
  partials[t].keys = t;
  __syncthreads();
  const Partial other = partials[31 - t];
  out[t] = other.o.x + other.m + float(other.keys) + other.o.w;
}

}  // namespace

TEST_CASE("structs that hold vector types, in shared memory") {
  DeviceBuffer out("out", 32 * sizeof(float));
  launch(shared_structs_kernel, 1, 32, 0, nullptr, pointer<float>(out));
  const std::vector<float> got = download<float>(out);
  for (int t = 0; t < 32; ++t) CHECK(got[size_t(t)] == float(4 * (31 - t) + 3));
}

TEST_CASE("vector types") {
  DeviceBuffer in("in", 32 * 16), out("out", 32 * 16), pairs("pairs", 32 * 8), integers("integers", 32 * 16);
  std::vector<float> values(128);
  for (size_t i = 0; i < values.size(); ++i) values[i] = float(10 * i);
  upload(in, values);
  launch(vectors_kernel, 1, 32, 0, nullptr, pointer<const float4>(in), pointer<float4>(out), pointer<float2>(pairs),
         pointer<int4>(integers));
  const std::vector<float> got = download<float>(out), two = download<float>(pairs);
  const std::vector<int> four = download<int>(integers);
  for (int t = 0; t < 32; ++t) {
    const float base = float(40 * (31 - t));
    const size_t at = size_t(t);
    CHECK(got[4 * at] == base + 30.0f);
    CHECK(got[4 * at + 3] == base + 1.0f);
    CHECK(two[2 * at] == base + 1.0f);
    CHECK(two[2 * at + 1] == float(40 * t) + 1.0f);
    CHECK((four[4 * at] == t && four[4 * at + 1] == -t - 1 && four[4 * at + 3] == t + 3));
  }
  CHECK(sizeof(float4) == 16);
  CHECK(alignof(float4) == 16);
  CHECK(alignof(float2) == 8);
  CHECK(sizeof(float3) == 12);
  CHECK(sizeof(__half2) == 4);
  CHECK(alignof(__nv_bfloat162) == 4);
}

namespace {

__global__ void narrow_kernel(const float* in, __half* halves, __nv_bfloat16* brains, __half2* half_pairs,
                              __nv_bfloat162* brain_pairs, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  halves[i] = __float2half(in[i]);
  brains[i] = __float2bfloat16(in[i]);
  half_pairs[i] = __floats2half2_rn(in[i], -in[i]);
  brain_pairs[i] = __floats2bfloat162_rn(in[i], -in[i]);
}

__global__ void widen_kernel(const __half* halves, const __nv_bfloat16* brains, float* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  out[2 * i] = __half2float(halves[i]);
  out[2 * i + 1] = __bfloat162float(brains[i]);
}

// Every 16-bit pattern, the values half way between neighbours, and values of every magnitude.
std::vector<float> awkward_floats() {
  std::vector<float> values;
  for (unsigned bits = 0; bits < 0x7c00; bits += 1) {
    const float here = flash::fp16_to_float(uint16_t(bits));
    const float half_way = here + 0.5f * (flash::fp16_to_float(uint16_t(bits + 1)) - here);
    values.push_back(here);
    if (bits != 0x7bff) {
      values.push_back(half_way);
      values.push_back(std::nextafter(half_way, 0.0f));
      values.push_back(-std::nextafter(half_way, 1e9f));
    }
  }
  for (float v : {65503.0f, 65519.0f, 65519.99f, 65520.0f, 65536.0f, 1e30f, 3.4e38f, 1e-30f, 1e-40f, 2.98e-8f, 3e-8f}) {
    values.push_back(v);
  }
  values.push_back(std::numeric_limits<float>::infinity());
  values.push_back(-std::numeric_limits<float>::infinity());
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    const uint32_t bits = uint32_t(random());
    float v;
    std::memcpy(&v, &bits, 4);
    if (std::isfinite(v)) values.push_back(v);
  }
  for (uint32_t top = 0; top < 0x7f80; top += 3) {  // ties of bfloat16
    const uint32_t bits = top << 16 | 0x8000;
    float v;
    std::memcpy(&v, &bits, 4);
    values.push_back(v);
  }
  return values;
}

}  // namespace

TEST_CASE("float to half and bfloat16 rounds as the host's does") {
  const std::vector<float> values = awkward_floats();
  const size_t n = values.size();
  DeviceBuffer in("in", n * 4), halves("halves", n * 2), brains("brains", n * 2), half_pairs("half_pairs", n * 4),
      brain_pairs("brain_pairs", n * 4);
  upload(in, values);
  launch(narrow_kernel, ceil_div(int(n), 256), 256, 0, nullptr, pointer<const float>(in), pointer<__half>(halves),
         pointer<__nv_bfloat16>(brains), pointer<__half2>(half_pairs), pointer<__nv_bfloat162>(brain_pairs), int(n));
  const auto h = download<uint16_t>(halves), b = download<uint16_t>(brains);
  const auto hp = download<uint16_t>(half_pairs), bp = download<uint16_t>(brain_pairs);
  size_t wrong = 0;
  for (size_t i = 0; i < n; ++i) {
    const uint16_t half = flash::float_to_fp16(values[i]), brain = flash::float_to_bf16(values[i]);
    wrong += h[i] != half || b[i] != brain;
    wrong += hp[2 * i] != half || hp[2 * i + 1] != (half ^ 0x8000) || bp[2 * i] != brain ||
             bp[2 * i + 1] != (brain ^ 0x8000);
  }
  CHECK(wrong == 0);
}

TEST_CASE("half and bfloat16 to float, every bit pattern") {
  const int n = 65536;
  std::vector<uint16_t> patterns;
  for (int i = 0; i < n; ++i) patterns.push_back(uint16_t(i));
  DeviceBuffer in("in", n * 2), out("out", n * 8);
  upload(in, patterns);
  launch(widen_kernel, n / 256, 256, 0, nullptr, pointer<const __half>(in), pointer<const __nv_bfloat16>(in),
         pointer<float>(out), n);
  const std::vector<float> got = download<float>(out);
  const auto same = [](float a, float b) { return (std::isnan(a) && std::isnan(b)) || std::memcmp(&a, &b, 4) == 0; };
  size_t wrong = 0;
  for (int i = 0; i < n; ++i) {
    wrong += !same(got[size_t(2 * i)], flash::fp16_to_float(uint16_t(i)));
    wrong += !same(got[size_t(2 * i) + 1], flash::bf16_to_float(uint16_t(i)));
  }
  CHECK(wrong == 0);
}

namespace {

__global__ void half_arithmetic_kernel(float* out) {
  const __half a = __float2half(1.5f), b = __float2half(0.0009765625f);
  const __nv_bfloat16 c = __float2bfloat16(1.5f), d = __float2bfloat16(0.00390625f);
  out[0] = __half2float(__hadd(a, b));
  out[1] = __half2float(__hmul(a, a));
  out[2] = __half2float(__hfma(a, a, b));
  out[3] = __bfloat162float(__hadd(c, d));
  out[4] = __bfloat162float(__hmul(c, c));
  const float2 f = __half22float2(__hadd2(__floats2half2_rn(1.0f, 2.0f), __floats2half2_rn(0.25f, 0.5f)));
  out[5] = f.x;
  out[6] = f.y;
  const float2 g = __bfloat1622float2(__hmul2(__floats2bfloat162_rn(1.5f, 2.0f), __floats2bfloat162_rn(2.0f, -0.5f)));
  out[7] = g.x;
  out[8] = g.y;
}

}  // namespace

TEST_CASE("arithmetic of half and bfloat16 rounds once") {
  DeviceBuffer out("out", 9 * sizeof(float));
  launch(half_arithmetic_kernel, 1, 1, 0, nullptr, pointer<float>(out));
  const std::vector<float> got = download<float>(out);
  CHECK(got == std::vector<float>{1.5009765625f, 2.25f, 2.25f, 1.5f, 2.25f, 1.25f, 2.5f, 3.0f, -1.0f});
}

namespace {

// ---- maths ----------------------------------------------------------------------------------------------------------

__global__ void maths_kernel(float* out, int* integers) {
  out[0] = __expf(1.0f);
  out[1] = expf(-INFINITY);
  out[2] = exp2f(10.0f);
  out[3] = __logf(2.718281828f);
  out[4] = rsqrtf(16.0f);
  out[5] = fmaxf(-INFINITY, -3.0f);
  out[6] = fmaxf(NAN, 2.0f);
  out[7] = fminf(2.0f, NAN);
  out[8] = fmaf(2.0f, 3.0f, 4.0f);
  out[9] = __fdividef(1.0f, 4.0f);
  out[10] = __int_as_float(0x3f800000);
  out[11] = max(1.0f, 2.0f);
  integers[0] = __float_as_int(-0.0f);
  integers[1] = min(3, -4);
  integers[2] = __popc(0xf0f0u);
  integers[3] = __ffs(0x100);
  integers[4] = __clz(1);
  integers[5] = __clz(0);
  integers[6] = int(max(1u, 0xffffffffu) == 0xffffffffu);
}

}  // namespace

TEST_CASE("device maths") {
  DeviceBuffer out("out", 12 * sizeof(float)), integers("integers", 7 * sizeof(int));
  launch(maths_kernel, 1, 1, 0, nullptr, pointer<float>(out), pointer<int>(integers));
  const std::vector<float> got = download<float>(out);
  const std::vector<double> expected{2.718281828, 0, 1024, 1, 0.25, -3, 2, 2, 10, 0.25, 1, 2};
  for (size_t i = 0; i < expected.size(); ++i) CHECK(got[i] == Approx(expected[i]));
  const int smallest = std::numeric_limits<int>::min();
  CHECK(download<int>(integers) == std::vector<int>{smallest, -4, 8, 9, 31, 32, 1});
}
