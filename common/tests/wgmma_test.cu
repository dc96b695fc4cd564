// wgmma (common/kernel/ptx/wgmma.cuh) against a plain product: operands with rows along mn and along k, every swizzle, tiles
// written by threads and brought by TMA, A from shared memory and from registers. On the GPU and on the CPU back end; small
// whole numbers, exact in every order.
#include "common/tests/catch.h"
// Before CUDA's words, some of which are macros on the CPU back end.
#include <cstdlib>
#include <memory>
#include <random>
#include <type_traits>
#include <vector>

#include "common/device/counts.h"
#include "common/device/device.h"
#include "common/kernel/cuda.cuh"
#include "common/kernel/ptx/fence.cuh"
#include "common/kernel/ptx/mbarrier.cuh"
#include "common/kernel/ptx/tma.cuh"
#include "common/kernel/ptx/wgmma.cuh"
#include "common/problem/dtype.h"
#include "common/tests/on_device.h"

namespace {

constexpr int kRows = 64, kDepth = 128, kThreads = 128;

// Bytes from a tile's begin to element (mn, k), stored with rows along mn or (trans) along k in slabs of `width` elements.
struct Layout {
  int mns;  // of the tile
  bool trans;
  int width;
  int rows() const { return trans ? kDepth : mns; }
  int slab_bytes() const { return rows() * width * 2; }
  int bytes() const { return (trans ? (mns + width - 1) / width : kDepth / width) * slab_bytes(); }
  int place(int mn, int k) const {
    const int row = trans ? k : mn, column = trans ? mn : k;
    const int byte = column / width * slab_bytes() + row * width * 2 + column % width * 2;
    const int chunks = width / 8, line = byte / 128, chunk = byte / 16 % chunks;
    return byte - chunk * 16 + (chunk ^ line % 8 % chunks) * 16;
  }
};

struct Operand {
  const unsigned char* image;  // of its tile
  int bytes, width, slab_bytes;
};

__host__ __device__ constexpr Swizzle swizzle_of(int width) {
  return width == 64 ? Swizzle::bytes128 : width == 32 ? Swizzle::bytes64 : Swizzle::bytes32;
}

__device__ __forceinline__ uint64_t descriptor_at(const unsigned char* tile, Operand o, bool trans, int k) {
  const int on = trans ? k * o.width * 2 : k / o.width * o.slab_bytes + k % o.width * 2;
  return wgmma_descriptor(tile, swizzle_of(o.width), trans ? o.slab_bytes : 16, 16 * o.width) + uint64_t(on >> 4);
}

enum class Tiles { by_threads, by_tma };

template <int N, class Element, int kTransA, int kTransB, bool kFromRegisters, Tiles kTiles>
__global__ void product(const __grid_constant__ CUtensorMap a_map, const __grid_constant__ CUtensorMap b_map,
                        Operand oa, Operand ob, const Element* plain_a, float* out) {
  unsigned char* a_tile = dynamic_shared_tiles<unsigned char>();
  unsigned char* b_tile = a_tile + (oa.bytes + 1023) / 1024 * 1024;
  __shared__ uint64_t full;
  const int t = threadIdx.x, warp = t / 32, lane = t % 32;
  if (t == 0) {
    mbarrier_init(&full, 1);
    mbarrier_init_fence();
  }
  __syncthreads();
  if (kTiles == Tiles::by_tma) {
    if (t == 0) {
      mbarrier_arrive_expect(&full, uint32_t(oa.bytes + ob.bytes));
      tma_load(a_tile, &a_map, &full, 0, 0, 0);
      tma_load(b_tile, &b_map, &full, 0, 0, 0);
    }
    mbarrier_wait(&full, 0);
  } else {
    for (int i = t; i < oa.bytes; i += kThreads) a_tile[i] = oa.image[i];
    for (int i = t; i < ob.bytes; i += kThreads) b_tile[i] = ob.image[i];
    fence_async();
    __syncthreads();
  }
  float d[N / 2];
  uint32_t registers[kDepth / 16][4];
  for (int k = 0; k < kDepth; k += 16) {
    for (int i = 0; i < 4; ++i) {
      const int row = warp * 16 + lane / 4 + i % 2 * 8, column = k + lane % 4 * 2 + i / 2 * 8;
      registers[k / 16][i] = *reinterpret_cast<const uint32_t*>(plain_a + row * kDepth + column);
    }
  }
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < kDepth; k += 16) {
    const uint64_t b_at = descriptor_at(b_tile, ob, kTransB != 0, k);
    if constexpr (kFromRegisters) {
      Wgmma<N, Element>::template rs<kTransB>(d, registers[k / 16], b_at, k > 0);
    } else {
      Wgmma<N, Element>::template ss<kTransA, kTransB>(d, descriptor_at(a_tile, oa, kTransA != 0, k), b_at, k > 0);
    }
  }
  wgmma_commit();
  wgmma_wait<0>();
  pin(d);
  for (int i = 0; i < N / 2; ++i) {
    out[(warp * 16 + lane / 4 + i / 2 % 2 * 8) * N + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i];
  }
}

// The map of a matrix [rows][columns] of 16-bit elements whose tile has rows of `width`.
template <class Element>
CUtensorMap map_of(const void* matrix, int rows, int columns, int width) {
  return make_tensor_map(static_cast<const Element*>(matrix), {width, rows, columns / width}, {columns * 2, width * 2},
                         {width, rows, columns / width}, swizzle_of(width));
}

// Small whole numbers as elements, [mn][k]; the same as the tile is to lie in shared memory, and as TMA finds them.
struct Matrix {
  Matrix(std::mt19937& random, bool bf16, Layout layout) : values(size_t(layout.mns * kDepth)) {
    for (int& x : values) x = int(random() % 9) - 4;
    std::vector<unsigned char> bytes(size_t(layout.bytes()));
    std::vector<uint16_t> elements(values.size()), rows(values.size());
    for (int mn = 0; mn < layout.mns; ++mn) {
      for (int k = 0; k < kDepth; ++k) {
        const float x = float(values[size_t(mn * kDepth + k)]);
        const uint16_t bits = bf16 ? flash::float_to_bf16(x) : flash::float_to_fp16(x);
        elements[size_t(mn * kDepth + k)] = bits;
        rows[size_t(layout.trans ? k * layout.mns + mn : mn * kDepth + k)] = bits;
        bytes[size_t(layout.place(mn, k))] = static_cast<unsigned char>(bits);
        bytes[size_t(layout.place(mn, k)) + 1] = static_cast<unsigned char>(bits >> 8);
      }
    }
    image.reset(new OnDevice<unsigned char>(bytes));
    plain.reset(new OnDevice<uint16_t>(elements));
    stored.reset(new OnDevice<uint16_t>(rows));
  }
  std::vector<int> values;
  std::unique_ptr<OnDevice<unsigned char>> image;
  std::unique_ptr<OnDevice<uint16_t>> plain, stored;
};

template <int N, class Element, int kTransA, int kTransB, bool kFromRegisters, Tiles kTiles>
void check_tiles(int width_a, int width_b) {
  INFO("N " << N << ", trans " << kTransA << " " << kTransB << ", widths " << width_a << " " << width_b
            << (kTiles == Tiles::by_tma ? ", by TMA" : ""));
  std::mt19937 random(unsigned(N + width_a));
  const Layout la{kRows, kTransA != 0, width_a}, lb{N, kTransB != 0, width_b};
  const bool bf16 = std::is_same<Element, __nv_bfloat16>::value;
  const Matrix a(random, bf16, la), b(random, bf16, lb);
  const OnDevice<float> out(size_t(kRows * N));
  const Operand oa{a.image->data(), la.bytes(), width_a, la.slab_bytes()},
      ob{b.image->data(), lb.bytes(), width_b, lb.slab_bytes()};
  const auto map = [](const Matrix& m, Layout l) {
    return map_of<Element>(m.stored->data(), l.rows(), l.trans ? l.mns : kDepth, l.width);
  };
  launch(product<N, Element, kTransA, kTransB, kFromRegisters, kTiles>, 1, kThreads,
         size_t((oa.bytes + 1023) / 1024 * 1024 + ob.bytes), nullptr, map(a, la), map(b, lb), oa, ob,
         reinterpret_cast<const Element*>(a.plain->data()), out.data());
  const std::vector<float> got = out.values();
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < N; ++j) {
      int expected = 0;
      for (int k = 0; k < kDepth; ++k) expected += a.values[size_t(i * kDepth + k)] * b.values[size_t(j * kDepth + k)];
      if (got[size_t(i * N + j)] != float(expected)) {
        FAIL("row " << i << ", column " << j << ": " << got[size_t(i * N + j)] << ", not " << expected);
      }
    }
  }
}

template <int N, class Element, int kTransA, int kTransB, bool kFromRegisters = false>
void check(int width_a, int width_b) {
  check_tiles<N, Element, kTransA, kTransB, kFromRegisters, Tiles::by_threads>(width_a, width_b);
  check_tiles<N, Element, kTransA, kTransB, kFromRegisters, Tiles::by_tma>(width_a, width_b);
}

bool no_wgmma() {
  if (flash::query_device().compute_capability == 90) return false;
  WARN("SKIP: needs a GPU of compute capability 9.0");
  return true;
}

}  // namespace

TEST_CASE("wgmma multiplies operands of either direction, with every swizzle") {
  if (no_wgmma()) return;
  for (int a : {64, 32, 16}) {
    for (int b : {64, 32, 16}) {
      check<64, __nv_bfloat16, 0, 0>(a, b);
      check<128, __half, 0, 1>(a, b);
      check<64, __half, 1, 0>(a, b);
      check<64, __nv_bfloat16, 1, 1>(a, b);
    }
  }
}

TEST_CASE("wgmma takes A from registers, and any N") {
  if (no_wgmma()) return;
  check<64, __nv_bfloat16, 0, 1, true>(64, 64);
  check<80, __nv_bfloat16, 0, 0, true>(64, 64);
  check<96, __half, 0, 0>(64, 64);
  check<176, __nv_bfloat16, 0, 0>(64, 64);
  check<256, __half, 0, 1, true>(64, 64);
}

#if !defined(__CUDACC__) && FLASH_WATCH
TEST_CASE("products of tiles that TMA brought are never accused, in any schedule") {
  for (int seed = 0; seed <= 20; ++seed) {
    setenv("EMU_SEED", std::to_string(seed).c_str(), 1);
    INFO("EMU_SEED=" << seed);
    flash::reset_watch_report();
    for (int width : {64, 32, 16}) {
      check_tiles<64, __nv_bfloat16, 0, 0, false, Tiles::by_tma>(width, 64);
      check_tiles<128, __half, 1, 1, false, Tiles::by_tma>(64, width);
      check_tiles<96, __nv_bfloat16, 0, 0, true, Tiles::by_tma>(width, width);
    }
    for (const auto& fault : flash::take_watch_report().faults) FAIL_CHECK(fault.message);
  }
  unsetenv("EMU_SEED");
}
#endif
