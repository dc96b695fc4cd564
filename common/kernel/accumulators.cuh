// What a lane has of a wgmma's D, 64 rows x N columns (ptx/wgmma.cuh), and what is done to it. Its rows are lane_row() and
// lane_row() + 8, i = 0 and 1; in them it has columns lane_column() + 8 n and the next:
//
//   d[4 n + 2 i], d[4 n + 2 i + 1]
//
// The four lanes of a group share the two rows.
#pragma once
#include <cmath>

#include "common/kernel/ptx/pack.cuh"
#include "common/kernel/ptx/stmatrix.cuh"
#include "common/kernel/slabs.cuh"
#include "common/problem/mask.h"

namespace {

constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ int lane_row() { return threadIdx.x / kWarpSize % 4 * 16 + threadIdx.x % kWarpSize / 4; }
__device__ __forceinline__ int lane_column() { return threadIdx.x % 4 * 2; }

// Scores of keys that a row doesn't see become -inf. D's first row and column are of this query and this key.
template <int kCount>
__device__ __forceinline__ void mask_scores(float (&s_acc)[kCount], const flash::Problem& problem, int first_row,
                                            int first_key) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int end = flash::visible_keys(problem, first_row + lane_row() + 8 * i) - first_key - lane_column();
#pragma unroll
    for (int n = 0; n < kCount / 4; ++n) {
      if (8 * n >= end) s_acc[4 * n + 2 * i] = -INFINITY;
      if (8 * n + 1 >= end) s_acc[4 * n + 2 * i + 1] = -INFINITY;
    }
  }
}

// The largest element of row i that this lane has.
template <int kCount>
__device__ __forceinline__ float lane_maximum(const float (&d)[kCount], int i) {
  float maximum = -INFINITY;
#pragma unroll
  for (int n = 0; n < kCount / 4; ++n) maximum = fmaxf(maximum, fmaxf(d[4 * n + 2 * i], d[4 * n + 2 * i + 1]));
  return maximum;
}

template <int kCount>
__device__ __forceinline__ void scale_rows(float (&d)[kCount], const float (&scale)[2]) {
#pragma unroll
  for (int n = 0; n < kCount; ++n) d[n] *= scale[n / 2 % 2];
}

// Of what the four lanes of a group have.
__device__ __forceinline__ float group_maximum(float mine) {
  mine = fmaxf(mine, __shfl_xor_sync(kAllLanes, mine, 1));
  return fmaxf(mine, __shfl_xor_sync(kAllLanes, mine, 2));
}
__device__ __forceinline__ float group_sum(float mine) {
  mine += __shfl_xor_sync(kAllLanes, mine, 1);
  return mine + __shfl_xor_sync(kAllLanes, mine, 2);
}

// 64 columns, 32 of d from `d` on, scaled and rounded, to this warp's 16 rows of a slab.
template <class Element>
__device__ __forceinline__ void store_slab(Element (&slab)[16][64], const float* d, const float (&scale)[2]) {
  const int lane = threadIdx.x % kWarpSize;
#pragma unroll
  for (int n = 0; n < 4; ++n, d += 8) {  // 16 columns
    stmatrix_x4(slab_chunk(slab, lane % 16, 2 * n + lane / 16), pack<Element>(d[0] * scale[0], d[1] * scale[0]),
                pack<Element>(d[2] * scale[1], d[3] * scale[1]), pack<Element>(d[4] * scale[0], d[5] * scale[0]),
                pack<Element>(d[6] * scale[1], d[7] * scale[1]));
  }
}

}  // namespace
