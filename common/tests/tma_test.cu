// The instructions of Hopper's copies and barriers (common/kernel/ptx: tma, mbarrier, fence, named_barrier, elect,
// stmatrix) against plain models of them, on the GPU and on the CPU back end.
#include "common/tests/catch.h"
// Before CUDA's words, some of which are macros on the CPU back end.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "common/base/error.h"
#include "common/device/counts.h"
#include "common/device/device.h"
#include "common/kernel/cuda.cuh"
#include "common/kernel/ptx/elect.cuh"
#include "common/kernel/ptx/fence.cuh"
#include "common/kernel/ptx/mbarrier.cuh"
#include "common/kernel/ptx/named_barrier.cuh"
#include "common/kernel/ptx/stmatrix.cuh"
#include "common/kernel/ptx/tensor_map.cuh"
#include "common/kernel/ptx/tma.cuh"
#include "common/tests/on_device.h"

namespace {

bool too_old() {
  if (flash::query_device().compute_capability >= 90) return false;
  WARN("SKIP: needs a GPU of compute capability 9.0 or newer");
  return true;
}

// ---- boxes of tensors -----------------------------------------------------------------------------------------------

constexpr int kThreads = 64;

struct Coordinates {
  int c[5];
};

__global__ void load_box(const __grid_constant__ CUtensorMap map, int rank, Coordinates at, int bytes, int span,
                         unsigned char* out) {
  __shared__ uint64_t full;
  unsigned char* tile = dynamic_shared_tiles<unsigned char>();
  const int t = threadIdx.x;
  if (t == 0) {
    mbarrier_init(&full, 1);
    mbarrier_init_fence();
  }
  __syncthreads();
  if (t == 0) {
    tma_prefetch_map(&map);
    mbarrier_arrive_expect(&full, uint32_t(bytes));
    if (rank == 1) tma_load(tile, &map, &full, at.c[0]);
    if (rank == 2) tma_load(tile, &map, &full, at.c[0], at.c[1]);
    if (rank == 3) tma_load_hint(tile, &map, &full, kEvictFirst, at.c[0], at.c[1], at.c[2]);
    if (rank == 4) tma_load_hint(tile, &map, &full, kEvictLast, at.c[0], at.c[1], at.c[2], at.c[3]);
    if (rank == 5) tma_load(tile, &map, &full, at.c[0], at.c[1], at.c[2], at.c[3], at.c[4]);
  }
  mbarrier_wait(&full, 0);
  for (int i = t; i < span; i += kThreads) out[i] = tile[i];
}

__global__ void store_box(const __grid_constant__ CUtensorMap map, int rank, Coordinates at, int bytes,
                          const unsigned char* in, bool adds) {
  unsigned char* tile = dynamic_shared_tiles<unsigned char>();
  const int t = threadIdx.x;
  for (int i = t; i < bytes; i += kThreads) tile[i] = in[i];
  fence_async();
  __syncthreads();
  if (t != 0) return;
  if (adds) {
    if (rank == 1) tma_reduce_add(&map, tile, at.c[0]);
    if (rank == 2) tma_reduce_add(&map, tile, at.c[0], at.c[1]);
    if (rank == 3) tma_reduce_add(&map, tile, at.c[0], at.c[1], at.c[2]);
    if (rank == 4) tma_reduce_add(&map, tile, at.c[0], at.c[1], at.c[2], at.c[3]);
    if (rank == 5) tma_reduce_add(&map, tile, at.c[0], at.c[1], at.c[2], at.c[3], at.c[4]);
  } else {
    if (rank == 1) tma_store(&map, tile, at.c[0]);
    if (rank == 2) tma_store(&map, tile, at.c[0], at.c[1]);
    if (rank == 3) tma_store(&map, tile, at.c[0], at.c[1], at.c[2]);
    if (rank == 4) tma_store(&map, tile, at.c[0], at.c[1], at.c[2], at.c[3]);
    if (rank == 5) tma_store(&map, tile, at.c[0], at.c[1], at.c[2], at.c[3], at.c[4]);
  }
  bulk_commit();
  bulk_wait<0>();
}

// A tensor in memory and a box of it, both at random but for the innermost coordinate: a multiple of 16 bytes.
struct Case {
  int rank = 0, element = 0;  // bytes
  Swizzle swizzle = Swizzle::none;
  long long dims[5] = {}, stride[5] = {}, box[5] = {};
  Coordinates at = {};
  size_t array_bytes = 0, box_bytes = 0;

  // `in`: something that a load can take; a store's rows are multiples of 16 bytes, and none of its coordinates below 0.
  Case(std::mt19937& random, int rank, int element, Swizzle swizzle, bool in)
      : rank(rank), element(element), swizzle(swizzle) {
    const auto from_to = [&](int from, int to) { return from + int(random() % unsigned(to - from + 1)); };
    box[0] = (swizzle == Swizzle::none ? from_to(1, 10) * 16 : 16 << int(swizzle)) / element;
    for (int i = 1; i < rank; ++i) box[i] = from_to(1, rank > 3 ? 4 : 9);
    // Outer dimensions lie in memory in any order, with gaps.
    int order[5] = {0, 1, 2, 3, 4};
    std::shuffle(order + 1, order + rank, random);
    long long next = 0;
    for (int n = 0; n < rank; ++n) {
      const int i = order[n];
      dims[i] = from_to(1, i == 0 ? int(box[0]) * 2 : int(box[i]) + 3);
      if (i == 0 && !in) dims[0] = (dims[0] * element + 15) / 16 * 16 / element;
      stride[i] = n == 0 ? element : next;
      next = (dims[i] * stride[i] + 15) / 16 * 16 + from_to(0, 1) * 16;
    }
    array_bytes = size_t(next);
    box_bytes = size_t(element);
    for (int i = 0; i < rank; ++i) {
      box_bytes *= size_t(box[i]);
      at.c[i] = from_to(in ? -int(box[i]) - 1 : 0, int(dims[i]) + 1);
      if (from_to(0, 1) == 0) at.c[i] = from_to(0, std::max<int>(0, int(dims[i] - box[i])));  // inside
    }
    at.c[0] -= at.c[0] % (16 / element);  // what TMA can take; towards 0, so that inside stays inside
  }
  CUtensorMap map(const void* array) const {
    const auto make = [&](const auto* typed) {
      const auto d = [&](const long long* v, int i) { return v[i]; };
      const long long *v = dims, *s = stride, *b = box;
      switch (rank) {
        case 1: return make_tensor_map(typed, {v[0]}, {}, {b[0]}, swizzle);
        case 2: return make_tensor_map(typed, {v[0], v[1]}, {s[1]}, {b[0], b[1]}, swizzle);
        case 3: return make_tensor_map(typed, {v[0], v[1], v[2]}, {s[1], s[2]}, {b[0], b[1], b[2]}, swizzle);
        case 4:
          return make_tensor_map(typed, {v[0], v[1], v[2], v[3]}, {s[1], s[2], s[3]}, {b[0], b[1], b[2], b[3]},
                                 swizzle);
        default:
          return make_tensor_map(typed, {v[0], v[1], v[2], v[3], d(v, 4)}, {s[1], s[2], s[3], s[4]},
                                 {b[0], b[1], b[2], b[3], b[4]}, swizzle);
      }
    };
    switch (element) {
      case 1: return make(static_cast<const unsigned char*>(array));
      case 2: return make(static_cast<const __nv_bfloat16*>(array));
      default: return make(static_cast<const float*>(array));
    }
  }
  // visit(byte of the box in shared memory, byte of the array; -1: outside), an element at a time.
  template <class Visit>
  void for_each_element(Visit visit) const {
    const int swizzled_bytes = swizzle == Swizzle::none ? 0 : 16 << int(swizzle);
    const size_t elements = box_bytes / size_t(element);
    for (size_t e = 0; e < elements; ++e) {
      size_t rest = e;
      long long where = 0;
      for (int i = 0; i < rank; ++i) {
        const long long place = at.c[i] + (long long)(rest % size_t(box[i]));
        rest /= size_t(box[i]);
        where = where < 0 || place < 0 || place >= dims[i] ? -1 : where + place * stride[i];
      }
      size_t in_box = e * size_t(element);
      if (swizzled_bytes > 0) {
        // Lines of 128 bytes; chunks of 16 change places within each `swizzled_bytes` of a line.
        const size_t line = in_box / 128, chunks = size_t(swizzled_bytes) / 16;
        const size_t chunk = in_box / 16 % chunks;
        in_box = in_box - chunk * 16 + (chunk ^ line % 8 % chunks) * 16;
      }
      visit(in_box, where);
    }
  }
};

// A swizzle exchanges chunks in whole lines of 128 bytes, the last one included.
size_t span(const Case& c) { return (c.box_bytes + 127) / 128 * 128; }

std::string words(const Case& c) {
  std::string text = std::to_string(c.element) + " bytes an element, swizzle " + std::to_string(int(c.swizzle)) + ";";
  for (int i = 0; i < c.rank; ++i) {
    text += " dim " + std::to_string(c.dims[i]) + " stride " + std::to_string(c.stride[i]) + " box " +
            std::to_string(c.box[i]) + " at " + std::to_string(c.at.c[i]) + ";";
  }
  return text;
}

template <class Check>
void for_many_boxes(bool in, Check check) {
  std::mt19937 random(7);
  for (int rank = 1; rank <= 5; ++rank) {
    for (int element : {1, 2, 4}) {
      for (Swizzle swizzle : {Swizzle::none, Swizzle::bytes32, Swizzle::bytes64, Swizzle::bytes128}) {
        for (int i = 0; i < 4; ++i) {
          const Case c(random, rank, element, swizzle, in);
          INFO(words(c));
          std::vector<unsigned char> array(c.array_bytes);
          for (unsigned char& byte : array) byte = static_cast<unsigned char>(random() % 255 + 1);
          check(c, array);
        }
      }
    }
  }
}

void check_load(const Case& c, const std::vector<unsigned char>& array) {
  const OnDevice<unsigned char> in(array), out(span(c));
  launch(load_box, 1, kThreads, span(c), nullptr, c.map(in.data()), c.rank, c.at, int(c.box_bytes), int(span(c)),
         out.data());
  const std::vector<unsigned char> got = out.values();
  c.for_each_element([&](size_t in_box, long long where) {
    for (int b = 0; b < c.element; ++b) {
      const int expected = where < 0 ? 0 : array[size_t(where + b)];
      if (got[in_box + size_t(b)] != expected)
        FAIL("byte " << in_box << ": " << int(got[in_box + size_t(b)]) << ", not " << expected);
    }
  });
}

void check_store(const Case& c, const std::vector<unsigned char>& array) {
  std::vector<unsigned char> box(span(c)), expected = array;
  for (size_t i = 0; i < box.size(); ++i) box[i] = static_cast<unsigned char>(i * 37 % 251);
  c.for_each_element([&](size_t in_box, long long where) {
    if (where >= 0) std::memcpy(&expected[size_t(where)], &box[in_box], size_t(c.element));
  });
  const OnDevice<unsigned char> in(box), out(array);
  launch(store_box, 1, kThreads, span(c), nullptr, c.map(out.data()), c.rank, c.at, int(span(c)), in.data(), false);
  CHECK((out.values() == expected));
}

// Small whole numbers, which add up exactly in fp32.
void check_reduce(const Case& c) {
  std::vector<float> box(span(c) / 4), array(c.array_bytes / 4);
  for (size_t i = 0; i < box.size(); ++i) box[i] = float(i % 100);
  for (size_t i = 0; i < array.size(); ++i) array[i] = float(i % 77) - 30;
  std::vector<float> expected = array;
  c.for_each_element([&](size_t in_box, long long where) {
    if (where >= 0) expected[size_t(where) / 4] += box[in_box / 4];
  });
  const OnDevice<float> in(box), out(array);
  launch(store_box, 1, kThreads, span(c), nullptr, c.map(out.data()), c.rank, c.at, int(span(c)),
         reinterpret_cast<const unsigned char*>(in.data()), true);
  CHECK((out.values() == expected));
}

// ---- rows of bytes --------------------------------------------------------------------------------------------------

constexpr int kRow = 256;  // floats

__global__ void double_by_bulk(const float* in, float* out, float* sums) {
  __shared__ __align__(16) float row[kRow];
  __shared__ uint64_t full;
  const int t = threadIdx.x;
  if (t == 0) {
    mbarrier_init(&full, 1);
    mbarrier_init_fence();
  }
  __syncthreads();
  if (t == 0) {
    mbarrier_expect(&full, sizeof row);
    mbarrier_arrive(&full);
    bulk_load(row, in + blockIdx.x * kRow, sizeof row, &full);
  }
  while (!mbarrier_try_wait(&full, 0)) {
  }
  for (int i = t; i < kRow; i += kThreads) row[i] *= 2;
  fence_async();
  __syncthreads();
  if (t == 0) {
    bulk_store(out + blockIdx.x * kRow, row, sizeof row);
    bulk_commit();
    bulk_reduce_add(sums, row, sizeof row);
    bulk_commit();
    bulk_wait_read<0>();
  }
}

// ---- rings, named barriers, one lane, fragments ---------------------------------------------------------------------

constexpr int kStages = 2, kTiles = 9, kTile = 64, kConsumers = 64;

// A warp loads tiles into a ring, two warps add up the rows.
__global__ void ring(const __grid_constant__ CUtensorMap map, float* out) {
  __shared__ __align__(1024) float tiles[kStages][kTile];
  __shared__ uint64_t full[kStages], empty[kStages];
  const int t = threadIdx.x, warp = t / kWarpSize;
  if (t == 0) {
    for (int s = 0; s < kStages; ++s) {
      mbarrier_init(&full[s], 1);
      mbarrier_init(&empty[s], kConsumers / kWarpSize);
    }
    mbarrier_init_fence();
  }
  __syncthreads();
  if (warp == kConsumers / kWarpSize) {
    if (elect_one()) {
      for (int n = 0; n < kTiles; ++n) {
        const int stage = n % kStages, turn = n / kStages;
        mbarrier_wait(&empty[stage], uint32_t(turn + 1) & 1);
        mbarrier_arrive_expect(&full[stage], sizeof tiles[0]);
        tma_load(tiles[stage], &map, &full[stage], 0, n);
      }
    }
    return;
  }
  float sum = 0;
  for (int n = 0; n < kTiles; ++n) {
    const int stage = n % kStages, turn = n / kStages;
    mbarrier_wait(&full[stage], uint32_t(turn) & 1);
    sum += tiles[stage][t] + tiles[stage][kTile - 1 - t];
    __syncwarp();
    if (t % kWarpSize == 0) mbarrier_arrive(&empty[stage]);
  }
  out[t] = sum;
}

// Two groups of warps take turns at a word, a third arrives without waiting.
__global__ void take_turns(int* out) {
  __shared__ int word;
  const int t = threadIdx.x, group = t / kThreads;
  if (group == 2) {
    if (t == 2 * kThreads) word = 100;
    named_arrive(3, 3 * kThreads);
    return;
  }
  named_sync(3, 3 * kThreads);
  for (int turn = 0; turn < 4; ++turn) {
    if (turn > 0 || group == 1) named_sync(1 + group, 2 * kThreads);  // until the other group lets this one go on
    if (t % kThreads == 0) word = 2 * word + group;
    if (turn < 3 || group == 0) named_arrive(2 - group, 2 * kThreads);
  }
  if (t == kThreads) *out = word;
}

__global__ void count_elected(int* out) {
  const bool elected = elect_one();
  out[threadIdx.x] = elected;
}

template <int kMatrices, bool kTransposed>
__global__ void run_stmatrix(const uint32_t* registers, const int* row_of_lane, uint4* out) {
  __shared__ __align__(16) uint4 rows[kWarpSize];
  const int lane = threadIdx.x;
  rows[lane] = make_uint4(0, 0, 0, 0);
  __syncwarp();
  const uint32_t r[4] = {registers[4 * lane], registers[4 * lane + 1], registers[4 * lane + 2],
                         registers[4 * lane + 3]};
  void* row = &rows[row_of_lane[lane]];
  if (kMatrices == 1) kTransposed ? stmatrix_x1_trans(row, r[0]) : stmatrix_x1(row, r[0]);
  if (kMatrices == 2) kTransposed ? stmatrix_x2_trans(row, r[0], r[1]) : stmatrix_x2(row, r[0], r[1]);
  if (kMatrices == 4) {
    kTransposed ? stmatrix_x4_trans(row, r[0], r[1], r[2], r[3]) : stmatrix_x4(row, r[0], r[1], r[2], r[3]);
  }
  __syncwarp();
  out[lane] = rows[lane];
}

template <int kMatrices, bool kTransposed>
void check_stmatrix(unsigned seed) {
  std::mt19937 random(seed);
  std::vector<uint32_t> registers(4 * kWarpSize);
  for (uint32_t& r : registers) r = uint32_t(random());
  std::vector<int> row_of_lane(kWarpSize);
  std::iota(row_of_lane.begin(), row_of_lane.end(), 0);
  std::shuffle(row_of_lane.begin(), row_of_lane.end(), random);
  const OnDevice<uint32_t> in(registers);
  const OnDevice<int> rows(row_of_lane);
  const OnDevice<uint4> out{size_t(kWarpSize)};
  launch(run_stmatrix<kMatrices, kTransposed>, 1, kWarpSize, 0, nullptr, in.data(), rows.data(), out.data());
  const std::vector<uint4> got = out.values();
  uint16_t elements[kWarpSize][8];
  std::memcpy(elements, got.data(), sizeof elements);
  for (int i = 0; i < 4; ++i) {
    for (int row = 0; row < 8; ++row) {
      for (int column = 0; column < 8; ++column) {
        // The manual: lane T holds elements 2 (T % 4) and + 1 of row T / 4; with .trans of the transposed matrix.
        const int major = kTransposed ? column : row, minor = kTransposed ? row : column;
        const uint32_t r = registers[size_t(4 * (4 * major + minor / 2) + i)];
        const int expected = i < kMatrices ? int(r >> 16 * (minor % 2) & 0xffff) : 0;
        INFO("matrix " << i << " row " << row << " column " << column);
        REQUIRE(int(elements[row_of_lane[size_t(8 * i + row)]][column]) == expected);
      }
    }
  }
}

std::string refusal(const float* data, std::initializer_list<long long> dims, std::initializer_list<long long> strides,
                    std::initializer_list<long long> box, Swizzle swizzle = Swizzle::none) {
  try {
    make_tensor_map(data, dims, strides, box, swizzle);
  } catch (const flash::Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("TMA loads boxes of any rank, with every swizzle, over every edge") {
  if (too_old()) return;
  for_many_boxes(true, check_load);
}

TEST_CASE("TMA stores boxes and leaves out what is outside") {
  if (too_old()) return;
  for_many_boxes(false, check_store);
}

TEST_CASE("TMA adds boxes to global memory") {
  if (too_old()) return;
  std::mt19937 random(11);
  for (int rank = 1; rank <= 5; ++rank) {
    for (Swizzle swizzle : {Swizzle::none, Swizzle::bytes32, Swizzle::bytes64, Swizzle::bytes128}) {
      for (int i = 0; i < 3; ++i) {
        const Case c(random, rank, 4, swizzle, false);
        INFO(words(c));
        check_reduce(c);
      }
    }
  }
}

TEST_CASE("rows of bytes are loaded, stored and added") {
  if (too_old()) return;
  constexpr int kBlocks = 3;
  std::vector<float> in(kBlocks * kRow);
  std::iota(in.begin(), in.end(), 0.0f);
  const OnDevice<float> values(in), out(in.size()), sums(std::vector<float>(kRow, 1.0f));
  launch(double_by_bulk, kBlocks, kThreads, 0, nullptr, values.data(), out.data(), sums.data());
  const std::vector<float> doubled = out.values(), sum = sums.values();
  for (int i = 0; i < kRow; ++i) {
    float expected = 1;
    for (int b = 0; b < kBlocks; ++b) {
      expected += 2 * in[size_t(b * kRow + i)];
      REQUIRE(doubled[size_t(b * kRow + i)] == 2 * in[size_t(b * kRow + i)]);
    }
    REQUIRE(sum[size_t(i)] == expected);
  }
}

TEST_CASE("a ring of two buffers hands over every tile once") {
  if (too_old()) return;
  std::vector<float> in(kTiles * kTile);
  std::iota(in.begin(), in.end(), 0.0f);
  const OnDevice<float> values(in), out{size_t(kConsumers)};
  const CUtensorMap map = make_tensor_map(values.data(), {kTile, kTiles}, {kTile * 4}, {kTile, 1}, Swizzle::none);
  launch(ring, 1, kConsumers + kWarpSize, 0, nullptr, map, out.data());
  for (float sum : out.values()) {
    float expected = 0;
    for (int n = 0; n < kTiles; ++n) expected += float(2 * n * kTile + kTile - 1);
    REQUIRE(sum == expected);
  }
}

TEST_CASE("named barriers let two groups take turns") {
  if (too_old()) return;
  const OnDevice<int> out{size_t(1)};
  launch(take_turns, 1, 3 * kThreads, 0, nullptr, out.data());
  int expected = 100;
  for (int turn = 0; turn < 4; ++turn) expected = 2 * (2 * expected) + 1;
  CHECK(out.values()[0] == expected);
}

TEST_CASE("one lane of a warp is elected") {
  if (too_old()) return;
  const OnDevice<int> out{size_t(2 * kWarpSize)};
  launch(count_elected, 1, 2 * kWarpSize, 0, nullptr, out.data());
  const std::vector<int> elected = out.values();
  CHECK(std::accumulate(elected.begin(), elected.begin() + kWarpSize, 0) == 1);
  CHECK(std::accumulate(elected.begin() + kWarpSize, elected.end(), 0) == 1);
}

TEST_CASE("stmatrix stores what ldmatrix loads, plain and transposed") {
  if (too_old()) return;
  for (unsigned seed = 0; seed < 5; ++seed) {
    check_stmatrix<1, false>(seed);
    check_stmatrix<2, false>(seed);
    check_stmatrix<4, false>(seed);
    check_stmatrix<1, true>(seed);
    check_stmatrix<2, true>(seed);
    check_stmatrix<4, true>(seed);
  }
}

TEST_CASE("a tensor map that breaks a rule is refused in words") {
  if (too_old()) return;
  const OnDevice<float> array(size_t(4096));
  const float* data = array.data();
  CHECK(refusal(data, {64, 64}, {256}, {32, 8}, Swizzle::bytes128).empty());
  CHECK_THAT(refusal(nullptr, {64}, {}, {4}), ContainsSubstring("address is null"));
  CHECK_THAT(refusal(data + 1, {64}, {}, {4}), ContainsSubstring("address must be a multiple of 16"));
  CHECK_THAT(refusal(data, {64, 0}, {256}, {4, 4}), ContainsSubstring("dimension 1 has 0 elements"));
  CHECK_THAT(refusal(data, {64, 4}, {40}, {4, 4}), ContainsSubstring("dimension 1 has a stride of 40 bytes"));
  CHECK_THAT(refusal(data, {64, 4}, {-16}, {4, 4}), ContainsSubstring("stride"));
  CHECK_THAT(refusal(data, {64, 4}, {256}, {4, 257}), ContainsSubstring("the box has 257 elements in dimension 1"));
  CHECK_THAT(refusal(data, {64, 4}, {256}, {0, 4}), ContainsSubstring("the box has 0 elements in dimension 0"));
  CHECK_THAT(refusal(data, {64, 4}, {256}, {3, 4}), ContainsSubstring("a row of the box has 12 bytes"));
  CHECK_THAT(refusal(data, {64, 4}, {256}, {64, 4}, Swizzle::bytes128), ContainsSubstring("exactly these"));
  CHECK_THAT(refusal(data, {64, 4}, {256}, {16, 4}, Swizzle::bytes128), ContainsSubstring("exactly these"));
  CHECK_THAT(refusal(data, {64, 4}, {}, {4, 4}), ContainsSubstring("one stride less"));
}

#if !defined(__CUDACC__) && FLASH_WATCH
TEST_CASE("these kernels are never accused, in any schedule") {
  const auto run_all = [] {
    std::mt19937 random(3);
    for (int rank = 1; rank <= 5; ++rank) {
      const Case in(random, rank, 4, Swizzle::bytes64, true), c(random, rank, 4, Swizzle::bytes64, false);
      check_load(in, std::vector<unsigned char>(in.array_bytes, 1));
      check_store(c, std::vector<unsigned char>(c.array_bytes, 1));
      check_reduce(c);
    }
    const OnDevice<float> in(std::vector<float>(kTiles * kTile, 1.0f)), out{size_t(kConsumers)},
        sums{std::vector<float>(kRow)}, doubled{size_t(2 * kRow)};
    launch(ring, 1, kConsumers + kWarpSize, 0, nullptr,
           make_tensor_map(in.data(), {kTile, kTiles}, {kTile * 4}, {kTile, 1}, Swizzle::none), out.data());
    launch(double_by_bulk, 2, kThreads, 0, nullptr, in.data(), doubled.data(), sums.data());
    const OnDevice<int> word{size_t(1)};
    launch(take_turns, 1, 3 * kThreads, 0, nullptr, word.data());
    check_stmatrix<4, false>(1);
  };
  for (int seed = 0; seed <= 20; ++seed) {
    setenv("EMU_SEED", std::to_string(seed).c_str(), 1);
    INFO("EMU_SEED=" << seed);
    flash::reset_watch_report();
    run_all();
    for (const auto& fault : flash::take_watch_report().faults) FAIL_CHECK(fault.message);
  }
  unsetenv("EMU_SEED");
}
#endif
