// wgmma.mma_async: D += A B by the four warps of a warpgroup, A [64, 16], B [16, N] of 16-bit elements, D [64, N] of fp32.
// B, and A unless it comes from registers, are read from shared memory by the tensor cores themselves, later.
//
//   wgmma_fence();                                               // before the first, and after other code touched D or a
//   Wgmma<N, Element>::template ss<0, 0>(d, a, b, 0);            // D = A B    A and B by descriptor
//   Wgmma<N, Element>::template rs<1>(d, registers, b, 1);       // D += A B   A from registers, B stored "transposed"
//   wgmma_commit();                                              // these are a group
//   wgmma_wait<0>();  pin(d);                                    // all but the newest 0 groups have their results
//
// Until the wait nobody touches D, the registers of A, or the operands in shared memory. What threads wrote there
// themselves needs a fence_async() and a barrier first. Where ptxas can't prove it of the registers, it serialises the
// products, and the build fails: docs/wgmma_serialised.md.
//
// D: warp w of the warpgroup has rows 16 w to 16 w + 15, and of these each lane what it has of mma's C (mma.cuh), N / 8
// times: d[4 j] to d[4 j + 3] of columns 8 j to 8 j + 7. A from registers is mma's A.
//
// A descriptor says where element (mn, k) of an operand is, mn its row of D (A) or column (B). Tiles lie as TMA leaves
// them, in rows of 128 (64, 32) bytes with a swizzle of as many bytes, 8 rows a pattern; `stride` is from one 8 rows to
// the next:
//
//   rows along mn ("K-major", kTrans 0):  128 bytes of a row are 64 k.   leading: unused     next 16 k: + 32 bytes
//   rows along k ("MN-major", kTrans 1):  128 bytes of a row are 64 mn.  leading: to the     next 16 k: + 16 rows
//                                                                        next 64 mn
//
// All 128 threads call these together (issue: the same products, with equal descriptors). Needs sm_90a.
#pragma once

#include "common/device/tensor_layout.h"
#include "common/kernel/ptx/sm90.cuh"

#ifndef __CUDACC__
#include "common/emu/instructions/wgmma.h"
#else
namespace {
template <int N, class Element>
struct Wgmma;
}
#include "common/kernel/ptx/wgmma_shapes.cuh"

namespace {

__device__ __forceinline__ void wgmma_fence() { PTX_SM90A(asm volatile("wgmma.fence.sync.aligned;" ::: "memory")); }
__device__ __forceinline__ void wgmma_commit() {
  PTX_SM90A(asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"));
}
template <int kGroupsOpen>
__device__ __forceinline__ void wgmma_wait() {
  PTX_SM90A(asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroupsOpen) : "memory"));
}
// The compiler moves no read of these above this, and no write below.
template <int kCount>
__device__ __forceinline__ void pin(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

}  // namespace
#endif

namespace {

constexpr int kWarpgroup = 128;  // threads
constexpr int kWgmmaM = 64, kWgmmaK = 16;

// To go on by some bytes, add bytes >> 4.
__device__ __forceinline__ uint64_t wgmma_descriptor(const void* tile, flash::Swizzle swizzle, int leading_bytes,
                                                     int stride_bytes) {
  const uint64_t mode = swizzle == flash::Swizzle::none ? 0 : 4 - uint64_t(swizzle);
  return uint64_t(shared_address(tile) >> 4) | uint64_t(leading_bytes >> 4) << 16 | uint64_t(stride_bytes >> 4) << 32 |
         mode << 62;
}

// Of a tile in slabs of 64 columns, [slab][rows][64], each row 128 bytes with a swizzle of as many: for either direction.
// What follows is for adding to it.
__device__ __forceinline__ uint64_t slabs_descriptor(const void* tile, int rows) {
  return wgmma_descriptor(tile, flash::Swizzle::bytes128, rows * 128, 8 * 128);
}
// `step` times 16 columns on: K-major.
__host__ __device__ constexpr uint64_t columns_on(int step, int rows) {
  return uint64_t(step / 4 * rows * 128 + step % 4 * 32) >> 4;
}
// `step` times 16 rows on: MN-major.
__host__ __device__ constexpr uint64_t rows_on(int step) { return uint64_t(step * 16 * 128) >> 4; }
__host__ __device__ constexpr uint64_t bytes_on(int bytes) { return uint64_t(bytes) >> 4; }

}  // namespace
