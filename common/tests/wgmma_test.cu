// wgmma (common/kernel/ptx/wgmma.cuh) against a plain product: operands with rows along mn and along k, every swizzle, A
// from shared memory and from registers. On the GPU and on the CPU back end; small whole numbers, exact in every order.
#include "common/tests/catch.h"
// Before CUDA's words, some of which are macros on the CPU back end.
#include <random>
#include <vector>

#include "common/device/device.h"
#include "common/device/memory.h"
#include "common/kernel/cuda.cuh"
#include "common/kernel/ptx/fence.cuh"
#include "common/kernel/ptx/wgmma.cuh"
#include "common/problem/dtype.h"

namespace {

using flash::DeviceBuffer;
using flash::Swizzle;

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
  int bytes, width, slab_bytes;
};

__device__ __forceinline__ uint64_t descriptor_at(const unsigned char* tile, Operand o, bool trans, int k) {
  const Swizzle swizzle = o.width == 64 ? Swizzle::bytes128 : o.width == 32 ? Swizzle::bytes64 : Swizzle::bytes32;
  const int on = trans ? k * o.width * 2 : k / o.width * o.slab_bytes + k % o.width * 2;
  return wgmma_descriptor(tile, swizzle, trans ? o.slab_bytes : 16, 16 * o.width) + uint64_t(on >> 4);
}

template <int N, class Element, int kTransA, int kTransB, bool kFromRegisters>
__global__ void product(const unsigned char* a, const unsigned char* b, const Element* plain_a, Operand oa, Operand ob,
                        float* out) {
  unsigned char* a_tile = dynamic_shared<unsigned char>();
  unsigned char* b_tile = a_tile + (oa.bytes + 1023) / 1024 * 1024;
  const int t = threadIdx.x, warp = t / 32, lane = t % 32;
  for (int i = t; i < oa.bytes; i += kThreads) a_tile[i] = a[i];
  for (int i = t; i < ob.bytes; i += kThreads) b_tile[i] = b[i];
  fence_async();
  __syncthreads();
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

template <int N, class Element, int kTransA, int kTransB, bool kFromRegisters = false>
void check(int width_a, int width_b) {
  INFO("N " << N << ", trans " << kTransA << " " << kTransB << ", widths " << width_a << " " << width_b);
  std::mt19937 random(unsigned(N + width_a));
  const Layout la{kRows, kTransA != 0, width_a}, lb{N, kTransB != 0, width_b};
  std::vector<int> a(kRows * kDepth), b(kDepth * N);
  for (int& x : a) x = int(random() % 9) - 4;
  for (int& x : b) x = int(random() % 9) - 4;
  const bool bf16 = std::is_same<Element, __nv_bfloat16>::value;
  const auto bits = [&](int x) { return bf16 ? flash::float_to_bf16(float(x)) : flash::float_to_fp16(float(x)); };
  std::vector<unsigned char> a_image(size_t(la.bytes())), b_image(size_t(lb.bytes()));
  std::vector<uint16_t> plain(a.size());
  const auto put = [](std::vector<unsigned char>& image, int at, uint16_t value) {
    image[size_t(at)] = static_cast<unsigned char>(value),
    image[size_t(at) + 1] = static_cast<unsigned char>(value >> 8);
  };
  for (int k = 0; k < kDepth; ++k) {
    for (int i = 0; i < kRows; ++i) {
      put(a_image, la.place(i, k), bits(a[size_t(i * kDepth + k)]));
      plain[size_t(i * kDepth + k)] = bits(a[size_t(i * kDepth + k)]);
    }
    for (int j = 0; j < N; ++j) put(b_image, lb.place(j, k), bits(b[size_t(j * kDepth + k)]));
  }
  DeviceBuffer a_in("a", a_image.size()), b_in("b", b_image.size()), plain_in("plain", plain.size() * 2),
      out("out", size_t(kRows * N) * 4);
  a_in.copy_from_host(a_image.data()), b_in.copy_from_host(b_image.data()), plain_in.copy_from_host(plain.data());
  const Operand oa{la.bytes(), width_a, la.slab_bytes()}, ob{lb.bytes(), width_b, lb.slab_bytes()};
  launch(product<N, Element, kTransA, kTransB, kFromRegisters>, 1, kThreads,
         size_t((oa.bytes + 1023) / 1024 * 1024 + ob.bytes), nullptr, static_cast<const unsigned char*>(a_in.data()),
         static_cast<const unsigned char*>(b_in.data()), static_cast<const Element*>(plain_in.data()), oa, ob,
         static_cast<float*>(out.data()));
  std::vector<float> got(size_t(kRows * N));
  out.copy_to_host(got.data());
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < N; ++j) {
      int expected = 0;
      for (int k = 0; k < kDepth; ++k) expected += a[size_t(i * kDepth + k)] * b[size_t(j * kDepth + k)];
      if (got[size_t(i * N + j)] != float(expected)) {
        FAIL("row " << i << ", column " << j << ": " << got[size_t(i * N + j)] << ", not " << expected);
      }
    }
  }
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
