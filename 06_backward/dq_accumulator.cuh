// dQ, to which every key tile's block adds a share: an accumulator in fp32, rounded by a last kernel. Its layout is
// ours to choose, since nobody else reads it: patches of 16 x 16 in which the 8 elements of a lane are two runs of 16
// bytes, so that a warp adds 512 consecutive bytes at once.
#pragma once
#include "06_backward/tiles.cuh"

namespace {

constexpr int kPatch = 16 * 16;  // elements of a patch, the unit in which dS and dQ are kept

// Four floats to one lane's place in the accumulator.
__device__ __forceinline__ void add_to_global(float* address, float4 value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  atomicAdd(reinterpret_cast<float4*>(address), value);
#else
  atomicAdd(address, value.x);
  atomicAdd(address + 1, value.y);
  atomicAdd(address + 2, value.z);
  atomicAdd(address + 3, value.w);
#endif
}

// dQ += dS K for this warp's 32 queries and 32 columns of a step's query tile (and its share of the keys). A patch of
// dS^T holds 8 x 8 matrices of [key][query], in the order down, then right.
template <class T, class Element>
__device__ __forceinline__ void accumulate_dq(const Params& params, const Walk<T::kBlockM>& walk, int step,
                                              const Element* ds_patches, const Element* k_tile) {
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const int row = warp % T::kSquaresM * 32, col = warp / T::kSquaresM % T::kSquaresN * 32;
  const int key0 = warp / (T::kSquaresM * T::kSquaresN) * T::kDqKeys;
  const int chunk = lane / 8 % 2 * 16 + lane / 16 * 8 + lane % 8;  // right first, and each matrix turned over by .trans
  float dq[2][2][2][4] = {};
  for (int key = 0; key < T::kDqKeys; key += 16) {
    uint32_t a[2][4];
    for (int m = 0; m < 2; ++m) {
      const int patch = (key0 + key) / 16 * (T::kBlockM / 16) + row / 16 + m;
      ldmatrix_x4_trans(a[m], ds_patches + patch * kPatch + chunk * 8);
    }
    for (int n = 0; n < 2; ++n) {
      uint32_t b[2][2];
      ldmatrix_x4_trans(b, down_first<T::kHeadDim>(k_tile + key0 * T::kHeadDim, key, col + n * 16));
      for (int m = 0; m < 2; ++m) mma_pair<Element>(dq[m][n], a[m], b);
    }
  }
  // Where to, not sooner: it takes a division, and now there are products to do meanwhile.
  float* const dq_tile = params.dq_accum + (walk.head(step) * params.padded_q + walk.query(step)) * T::kHeadDim;
  for (int m = 0; m < 2; ++m) {
    for (int n = 0; n < 2; ++n) {
      const int patch = (row / 16 + m) * (T::kHeadDim / 16) + col / 16 + n;
      const float(&c)[2][4] = dq[m][n];  // a lane's 8 elements, 16 bytes beside its neighbours' 16 bytes, twice
      float* const place = dq_tile + patch * kPatch + lane * 4;
      add_to_global(place, make_float4(c[0][0], c[0][1], c[1][0], c[1][1]));
      add_to_global(place + kPatch / 2, make_float4(c[0][2], c[0][3], c[1][2], c[1][3]));
    }
  }
}

// At last: dQ = scale * the accumulator, out of its patches and rounded. 8 columns of a row per thread.
template <class Element, int kHeadDim>
__global__ void round_dq_kernel(Params params) {
  const int seqlen_q = params.problem.seqlen_q;
  const float scale = params.problem.softmax_scale;
  const size_t index = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const size_t padded_row = index / (kHeadDim / 8), head = padded_row / params.padded_q;
  const int i = int(padded_row % params.padded_q), chunk = int(index % (kHeadDim / 8));
  if (i >= seqlen_q) return;
  const float* const patch = params.dq_accum + padded_row / 16 * 16 * kHeadDim + chunk / 2 * kPatch;
  const float* const place = patch + i % 16 * 16 + chunk % 2 * 2;  // of lane i % 8 * 4, in half i / 8 of the patch
  uint32_t packed[4];
  for (int n = 0; n < 4; ++n) {
    const float2 x = *reinterpret_cast<const float2*>(place + n * 4);
    packed[n] = pack<Element>(x.x * scale, x.y * scale);
  }
  static_cast<uint4*>(params.dq)[(head * seqlen_q + i) * (kHeadDim / 8) + chunk] =
      make_uint4(packed[0], packed[1], packed[2], packed[3]);
}

}  // namespace
