// Every instruction of common/kernel/ptx against a plain model of it, element for element, on the GPU and on the CPU back
// end. The models are written from the tables of the PTX manual, with matrices as the manual numbers them, and share
// nothing with the emulation. Values are small integers, so that sums are exact in every order.
#include "common/tests/catch.h"
// Before CUDA's words, some of which are macros on the CPU back end.
#include <cmath>
#include <cstring>
#include <random>

#include "common/device/counts.h"
#include "common/device/device.h"
#include "common/kernel/cuda.cuh"
#include "common/kernel/ptx/cp_async.cuh"
#include "common/kernel/ptx/ex2.cuh"
#include "common/kernel/ptx/ldmatrix.cuh"
#include "common/kernel/ptx/mma.cuh"
#include "common/kernel/ptx/pack.cuh"
#include "common/problem/dtype.h"
#include "common/tests/on_device.h"

namespace {

using flash::Dtype;

constexpr int kLanes = 32;

// Why the tests of mma and cp.async can't run here, if they can't.
bool too_old() {
  if (flash::query_device().compute_capability >= 80) return false;
  WARN("SKIP: needs a GPU of compute capability 8.0 or newer");
  return true;
}

template <class Element>
constexpr Dtype kDtype = Dtype::fp16;
template <>
constexpr Dtype kDtype<__nv_bfloat16> = Dtype::bf16;

uint16_t bits_of(Dtype dtype, float x) {
  return dtype == Dtype::bf16 ? flash::float_to_bf16(x) : flash::float_to_fp16(x);
}

// ---- mma ------------------------------------------------------------------------------------------------------------

template <class Element>
__global__ void run_mma(const uint32_t* a, const uint32_t* b, const float* c, float* d) {
  const int lane = threadIdx.x;
  const uint32_t a_frag[4] = {a[lane * 4], a[lane * 4 + 1], a[lane * 4 + 2], a[lane * 4 + 3]};
  const uint32_t b_frag[2] = {b[lane * 2], b[lane * 2 + 1]};
  float acc[4] = {c[lane * 4], c[lane * 4 + 1], c[lane * 4 + 2], c[lane * 4 + 3]};
  mma_m16n8k16<Element>(acc, a_frag, b_frag);
  for (int i = 0; i < 4; ++i) d[lane * 4 + i] = acc[i];
}

// The manual's "Matrix Fragments for mma.m16n8k16 with floating point type": element i of a lane's fragment.
struct Place {
  int row, col;
};
Place place_in_a(int lane, int i) {
  return {lane / 4 + (i < 2 || (4 <= i && i < 6) ? 0 : 8), lane % 4 * 2 + (i & 1) + (i < 4 ? 0 : 8)};
}
Place place_in_b(int lane, int i) { return {lane % 4 * 2 + (i & 1) + (i < 2 ? 0 : 8), lane / 4}; }
Place place_in_c(int lane, int i) { return {lane / 4 + (i < 2 ? 0 : 8), lane % 4 * 2 + (i & 1)}; }

template <class Element>
void check_mma(unsigned seed) {
  std::mt19937 random(seed);
  const auto integer = [&] { return float(int(random() % 17) - 8); };
  float a[16][16], b[16][8], c[16][8];
  for (auto& row : a) {
    for (float& x : row) x = integer();
  }
  for (auto& row : b) {
    for (float& x : row) x = integer();
  }
  for (auto& row : c) {
    for (float& x : row) x = integer() * 100;
  }
  std::vector<uint32_t> a_frag(kLanes * 4), b_frag(kLanes * 2);
  std::vector<float> c_frag(kLanes * 4);
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 8; ++i) {
      const Place p = place_in_a(lane, i);
      a_frag[lane * 4 + i / 2] |= uint32_t(bits_of(kDtype<Element>, a[p.row][p.col])) << i % 2 * 16;
    }
    for (int i = 0; i < 4; ++i) {
      const Place p = place_in_b(lane, i);
      b_frag[lane * 2 + i / 2] |= uint32_t(bits_of(kDtype<Element>, b[p.row][p.col])) << i % 2 * 16;
    }
    for (int i = 0; i < 4; ++i) c_frag[lane * 4 + i] = c[place_in_c(lane, i).row][place_in_c(lane, i).col];
  }

  const OnDevice<uint32_t> a_in(a_frag), b_in(b_frag);
  const OnDevice<float> c_in(c_frag), out(size_t(kLanes * 4));
  launch(run_mma<Element>, 1, kLanes, 0, nullptr, a_in.data(), b_in.data(), c_in.data(), out.data());
  const std::vector<float> got = out.values();
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Place p = place_in_c(lane, i);
      float expected = c[p.row][p.col];
      for (int k = 0; k < 16; ++k) expected += a[p.row][k] * b[k][p.col];
      INFO("lane " << lane << " register " << i);
      REQUIRE(got[lane * 4 + i] == expected);
    }
  }
}

// ---- ldmatrix -------------------------------------------------------------------------------------------------------

constexpr int kTileRows = 64;  // of 16 bytes, 8 elements

template <int kMatrices, bool kTransposed>
__global__ void run_ldmatrix(const uint4* tile, const int* row_of_lane, uint32_t* out) {
  __shared__ __align__(16) uint4 shared[kTileRows];
  for (int i = threadIdx.x; i < kTileRows; i += kLanes) shared[i] = tile[i];
  __syncwarp();
  const int lane = threadIdx.x;
  const void* row = &shared[row_of_lane[lane]];
  uint32_t r[4] = {}, pair[2] = {};
  if (kMatrices == 1) kTransposed ? ldmatrix_x1_trans(r[0], row) : ldmatrix_x1(r[0], row);
  if (kMatrices == 2) {
    kTransposed ? ldmatrix_x2_trans(pair, row) : ldmatrix_x2(pair, row);
    r[0] = pair[0], r[1] = pair[1];
  }
  if (kMatrices == 4) kTransposed ? ldmatrix_x4_trans(r, row) : ldmatrix_x4(r, row);
  for (int i = 0; i < 4; ++i) out[lane * 4 + i] = r[i];
}

// The form that fills two B fragments: the same registers in the same order.
template <bool kTransposed>
__global__ void run_ldmatrix_b(const uint4* tile, const int* row_of_lane, uint32_t* out) {
  __shared__ __align__(16) uint4 shared[kTileRows];
  for (int i = threadIdx.x; i < kTileRows; i += kLanes) shared[i] = tile[i];
  __syncwarp();
  uint32_t b[2][2];
  const void* row = &shared[row_of_lane[threadIdx.x]];
  kTransposed ? ldmatrix_x4_trans(b, row) : ldmatrix_x4(b, row);
  for (int i = 0; i < 4; ++i) out[threadIdx.x * 4 + i] = b[i / 2][i % 2];
}

using LdmatrixKernel = void (*)(const uint4*, const int*, uint32_t*);

void check_ldmatrix(LdmatrixKernel kernel, int matrices, bool transposed, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<uint16_t> tile(kTileRows * 8);
  for (uint16_t& x : tile) x = uint16_t(random());
  std::vector<int> row_of_lane(kLanes);
  for (int& row : row_of_lane) row = int(random() % kTileRows);  // any rows, some of them twice
  std::vector<uint4> words(kTileRows);
  std::memcpy(static_cast<void*>(words.data()), tile.data(), tile.size() * 2);

  const OnDevice<uint4> tile_in(words);
  const OnDevice<int> rows_in(row_of_lane);
  const OnDevice<uint32_t> out(size_t(kLanes * 4));
  launch(kernel, 1, kLanes, 0, nullptr, tile_in.data(), rows_in.data(), out.data());
  const std::vector<uint32_t> got = out.values();
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 4; ++i) {
      uint32_t expected = 0;
      for (int e = 0; e < 2 && i < matrices; ++e) {
        // The manual: lane T holds elements 2 (T % 4) and + 1 of row T / 4; with .trans of the transposed matrix.
        const int major = lane / 4, minor = lane % 4 * 2 + e;
        const int row = transposed ? minor : major, column = transposed ? major : minor;
        expected |= uint32_t(tile[row_of_lane[i * 8 + row] * 8 + column]) << 16 * e;
      }
      INFO("lane " << lane << " register " << i);
      REQUIRE(got[lane * 4 + i] == expected);
    }
  }
}

// ---- cp.async -------------------------------------------------------------------------------------------------------

constexpr int kGroups = 3;

// Thread t copies kBytes of each of kGroups rows, a group a row; row g is written out when its wait has passed.
template <int kBytes>
__global__ void run_cp_async(const unsigned char* in, const int* valid, unsigned char* out) {
  __shared__ __align__(16) unsigned char rows[kGroups][kLanes * kBytes];
  const int t = threadIdx.x;
  for (int g = 0; g < kGroups; ++g) {
    const int i = g * kLanes + t;
    if (valid[i] >= 0) {
      cp_async<kBytes>(&rows[g][t * kBytes], in + i * kBytes, valid[i] != 0);
    } else {
      for (int b = 0; b < kBytes; ++b) rows[g][t * kBytes + b] = 7;  // some threads copy nothing
    }
    cp_async_commit();
  }
  for (int g = 0; g < kGroups; ++g) {
    if (g == 0) cp_async_wait<2>();
    if (g == 1) cp_async_wait<1>();
    if (g == 2) cp_async_wait<0>();
    __syncthreads();
    const int from = kLanes - 1 - t;  // another thread's copy
    for (int b = 0; b < kBytes; ++b) out[(g * kLanes + from) * kBytes + b] = rows[g][from * kBytes + b];
  }
}

template <int kBytes>
void check_cp_async(unsigned seed) {
  std::mt19937 random(seed);
  std::vector<unsigned char> in(kGroups * kLanes * kBytes);
  for (unsigned char& x : in) x = static_cast<unsigned char>(random());
  std::vector<int> valid(kGroups * kLanes);
  for (int& v : valid) v = int(random() % 4) - 1 > 0 ? 1 : int(random() % 2) - 1;

  const OnDevice<unsigned char> bytes_in(in), out(in.size());
  const OnDevice<int> valid_in(valid);
  launch(run_cp_async<kBytes>, 1, kLanes, 0, nullptr, bytes_in.data(), valid_in.data(), out.data());
  const std::vector<unsigned char> got = out.values();
  for (size_t i = 0; i < got.size(); ++i) {
    const int v = valid[i / kBytes];
    INFO("byte " << i << " of copies of " << kBytes << ", valid " << v);
    REQUIRE(int(got[i]) == (v > 0 ? int(in[i]) : v == 0 ? 0 : 7));
  }
}

// ---- conversions and exp2 -------------------------------------------------------------------------------------------

template <class Element>
__global__ void run_pack(const float* in, uint32_t* packed, float* unpacked, float* exponential) {
  const int i = threadIdx.x;
  packed[i] = pack<Element>(in[2 * i], in[2 * i + 1]);
  const float2 back = unpack<Element>(packed[i]);
  unpacked[2 * i] = back.x;
  unpacked[2 * i + 1] = back.y;
  exponential[2 * i] = ex2(in[2 * i]);
  exponential[2 * i + 1] = ex2(in[2 * i + 1]);
}

template <class Element>
void check_pack(unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  // Ties to even both ways, the edges of fp16 (largest, first that rounds to infinity, subnormals), both zeros.
  std::vector<float> in = {
      0.f,      -0.f,          1.f,      -1.f,        1.00390625f,      1.01171875f, 1.00048828125f,
      65504.f,  65519.f,       65520.f,  -70000.f,    5.9604645e-8f,    3e-8f,       2.9e-8f,
      6.1e-5f,  6.0975552e-5f, 126.f,    -126.f,      -INFINITY,        INFINITY,    1.5f,
      0.33333f, -2.7182818f,   100.001f, 0.99999994f, 1.0009765625e-20f};
  while (in.size() < 2 * kLanes) in.push_back(normal(random) * std::pow(10.f, float(int(random() % 7)) - 3));

  const OnDevice<float> values(in), unpacked(in.size()), exponential(in.size());
  const OnDevice<uint32_t> packed(in.size() / 2);
  launch(run_pack<Element>, 1, kLanes, 0, nullptr, values.data(), packed.data(), unpacked.data(), exponential.data());
  const std::vector<uint32_t> got = packed.values();
  const std::vector<float> back = unpacked.values(), powers = exponential.values();
  for (size_t i = 0; i < in.size(); ++i) {
    INFO("value " << in[i]);
    const uint16_t expected = bits_of(kDtype<Element>, in[i]);
    REQUIRE((got[i / 2] >> 16 * (i % 2) & 0xffff) == expected);
    REQUIRE(back[i] ==
            (kDtype<Element> == Dtype::bf16 ? flash::bf16_to_float(expected) : flash::fp16_to_float(expected)));
    // Two ulp of error, results below 2^-126 may be flushed to zero.
    const double power = std::exp2(double(in[i]));
    if (power < 1.2e-38) {
      REQUIRE(std::fabs(powers[i]) < 1.2e-38);
    } else if (power > 3.4e38) {
      REQUIRE(std::isinf(powers[i]));
    } else {
      REQUIRE(std::fabs(powers[i] - power) <= power * 2.5e-7);
    }
  }
}

// ---- a pipeline, and two ways to get it wrong -----------------------------------------------------------------------

enum class Plant { none, no_wait, refill_before_barrier, refill_buffer_in_use };
constexpr int kPipelineThreads = 64, kPipelineTiles = 5;

// Each thread sums up its neighbour's elements of all tiles; the next tile is copied meanwhile.
template <Plant kPlant>
__global__ void sum_tiles(const float* in, float* out) {
  __shared__ __align__(16) float tiles[2][kPipelineThreads * 4];
  const int t = threadIdx.x, other = (t + 40) % kPipelineThreads;
  cp_async<16>(&tiles[0][t * 4], in + t * 4);
  cp_async_commit();
  float sum = 0;
  for (int tile = 0; tile < kPipelineTiles; ++tile) {
    const bool more = tile + 1 < kPipelineTiles;
    const int buffer = (kPlant == Plant::refill_buffer_in_use ? tile : tile + 1) % 2;
    const float* from = in + ((tile + 1) * kPipelineThreads + t) * 4;
    if (kPlant == Plant::refill_before_barrier && more) cp_async<16>(&tiles[buffer][t * 4], from);
    if (kPlant == Plant::refill_before_barrier) cp_async_commit();
    if (kPlant == Plant::refill_before_barrier) cp_async_wait<1>();
    if (kPlant == Plant::none || kPlant == Plant::refill_buffer_in_use) cp_async_wait<0>();
    __syncthreads();
    if (kPlant != Plant::refill_before_barrier && more) cp_async<16>(&tiles[buffer][t * 4], from);
    if (kPlant != Plant::refill_before_barrier) cp_async_commit();
    for (int i = 0; i < 4; ++i) sum += tiles[tile % 2][other * 4 + i];
  }
  cp_async_wait<0>();
  out[t] = sum;
}

template <Plant kPlant>
std::vector<float> run_pipeline() {
  std::vector<float> in(kPipelineTiles * kPipelineThreads * 4);
  for (size_t i = 0; i < in.size(); ++i) in[i] = float(i % 1000);
  const OnDevice<float> values(in), out{size_t(kPipelineThreads)};
  launch(sum_tiles<kPlant>, 1, kPipelineThreads, 0, nullptr, values.data(), out.data());
  return out.values();
}

}  // namespace

TEST_CASE("mma.m16n8k16 holds its operands where the PTX manual says") {
  if (too_old()) return;
  for (unsigned seed = 0; seed < 20; ++seed) {
    check_mma<__nv_bfloat16>(seed);
    check_mma<__half>(seed);
  }
}

TEST_CASE("ldmatrix gives each lane what the PTX manual says, plain and transposed") {
  for (unsigned seed = 0; seed < 10; ++seed) {
    check_ldmatrix(run_ldmatrix<1, false>, 1, false, seed);
    check_ldmatrix(run_ldmatrix<2, false>, 2, false, seed);
    check_ldmatrix(run_ldmatrix<4, false>, 4, false, seed);
    check_ldmatrix(run_ldmatrix<1, true>, 1, true, seed);
    check_ldmatrix(run_ldmatrix<2, true>, 2, true, seed);
    check_ldmatrix(run_ldmatrix<4, true>, 4, true, seed);
    check_ldmatrix(run_ldmatrix_b<false>, 4, false, seed);
    check_ldmatrix(run_ldmatrix_b<true>, 4, true, seed);
  }
}

TEST_CASE("cp.async copies, fills with zeros, and has landed after its group's wait") {
  if (too_old()) return;
  for (unsigned seed = 0; seed < 10; ++seed) {
    check_cp_async<4>(seed);
    check_cp_async<8>(seed);
    check_cp_async<16>(seed);
  }
}

TEST_CASE("pack rounds to nearest even, unpack goes back, ex2 is 2^x") {
  if (too_old()) return;
  for (unsigned seed = 0; seed < 10; ++seed) {
    check_pack<__nv_bfloat16>(seed);
    check_pack<__half>(seed);
  }
}

TEST_CASE("a double-buffered pipeline of cp.async gives the right sums") {
  if (too_old()) return;
  const std::vector<float> got = run_pipeline<Plant::none>();
  for (int t = 0; t < kPipelineThreads; ++t) {
    float expected = 0;
    for (int tile = 0; tile < kPipelineTiles; ++tile) {
      for (int i = 0; i < 4; ++i) expected += (tile * kPipelineThreads + (t + 40) % kPipelineThreads) * 4 % 1000 + i;
    }
    REQUIRE(got[t] == expected);
  }
}

#if !defined(__CUDACC__) && FLASH_WATCH
TEST_CASE("the watcher reports a missing wait and a buffer refilled too early, in every schedule") {
  const auto faults_of = [](std::vector<float> (*run)(), int seed) {
    setenv("EMU_SEED", std::to_string(seed).c_str(), 1);
    flash::reset_watch_report();
    run();
    unsetenv("EMU_SEED");
    return flash::take_watch_report().faults;
  };
  for (int seed = 0; seed <= 20; ++seed) {
    INFO("EMU_SEED=" << seed);
    for (const auto& fault : faults_of(run_pipeline<Plant::none>, seed)) FAIL_CHECK(fault.message);
    for (auto run : {run_pipeline<Plant::no_wait>, run_pipeline<Plant::refill_before_barrier>,
                     run_pipeline<Plant::refill_buffer_in_use>}) {
      const std::vector<flash::WatchFault> faults = faults_of(run, seed);
      REQUIRE(!faults.empty());
      CHECK_THAT(faults[0].message, ContainsSubstring("ptx_test.cu:"));
    }
  }
}
#endif

#if !defined(__CUDACC__)
TEST_CASE("a copy lands at the last moment: a missing wait shows in the result") {
  const std::vector<float> right = run_pipeline<Plant::none>();
  std::vector<float> wrong;
  wrong = run_pipeline<Plant::no_wait>();
  CHECK(!(wrong == right));
}
#endif
