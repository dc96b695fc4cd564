// --deterministic: dQ without atomics. A block owns 64 queries, 16 a warp, and walks over the keys, as a forward does;
// S and dP once more, this time not transposed: dS in registers is the A operand of dQ += dS K. No block waits for
// another and nothing depends on which runs first.
// Global memory: reads Q and dO once, K and V once a query tile; writes dQ once.
#pragma once
#include "06_backward/tiles.cuh"
#include "common/kernel/ptx/ex2.cuh"

namespace {

constexpr int kDqBlockM = 64, kDqBlockN = 64, kDqThreads = kDqBlockM / 16 * kWarpSize;
constexpr int dq_shared_bytes(int head_dim) { return 2 * (2 * kDqBlockM + 2 * 2 * kDqBlockN) * head_dim; }
__host__ __device__ inline int keys_seen(bool causal, int seqlen_q, int seqlen_k, int query) {
  return causal ? min(seqlen_k, max(0, min(query + kDqBlockM, seqlen_q) + seqlen_k - seqlen_q)) : seqlen_k;
}

template <class Element, int kHeadDim>
__global__ void __launch_bounds__(kDqThreads) deterministic_dq_kernel(Params p) {
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const int query_tiles = ceil_div(p.seqlen_q, kDqBlockM);
  const int query = (query_tiles - 1 - int(blockIdx.x % query_tiles)) * kDqBlockM;  // causal: long walks start first
  const size_t head = blockIdx.x / query_tiles;                                     // over [batch, heads]
  const size_t kv_head = head / (p.heads / p.kv_heads);
  const int steps = ceil_div(keys_seen(p.causal, p.seqlen_q, p.seqlen_k, query), kDqBlockN);

  Element* const q_tile = dynamic_shared<Element>();         // [kDqBlockM][kHeadDim]
  Element* const do_tile = q_tile + kDqBlockM * kHeadDim;    // [kDqBlockM][kHeadDim]
  Element* const kv_tiles = do_tile + kDqBlockM * kHeadDim;  // [2 stages][K, V][kDqBlockN][kHeadDim]
  const auto copy_step = [&](int step) {
    Element* const k_tile = kv_tiles + step % 2 * 2 * kDqBlockN * kHeadDim;
    const size_t offset = (kv_head * p.seqlen_k + step * kDqBlockN) * kHeadDim;
    copy_tile<kDqBlockN, kHeadDim, kDqThreads>(k_tile, p.k, offset, p.seqlen_k - step * kDqBlockN);
    copy_tile<kDqBlockN, kHeadDim, kDqThreads>(k_tile + kDqBlockN * kHeadDim, p.v, offset,
                                               p.seqlen_k - step * kDqBlockN);
  };
  const size_t q_offset = (head * p.seqlen_q + query) * kHeadDim;
  copy_tile<kDqBlockM, kHeadDim, kDqThreads>(q_tile, p.q, q_offset, p.seqlen_q - query);
  copy_tile<kDqBlockM, kHeadDim, kDqThreads>(do_tile, p.d_o, q_offset, p.seqlen_q - query);
  if (steps > 0) copy_step(0);
  cp_async_commit();

  const int row = warp * 16 + lane / 4;  // of the tile: this lane has parts of it and of row + 8
  const size_t stat = head * p.padded_q + query + row;
  const float lse2[2] = {p.lse2[stat], p.lse2[stat + 8]}, d_sum[2] = {p.d_sum[stat], p.d_sum[stat + 8]};
  float dq[1][kHeadDim / 16][2][4] = {};
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<0>();
    __syncthreads();  // this step's K and V have landed for all warps, and none still reads those of the step before
    if (step + 1 < steps) copy_step(step + 1);
    cp_async_commit();
    const Element* const k_tile = kv_tiles + step % 2 * 2 * kDqBlockN * kHeadDim;
    float s[1][kDqBlockN / 16][2][4] = {}, dp[1][kDqBlockN / 16][2][4] = {};
    multiply_abt<kHeadDim>(s, q_tile + warp * 16 * kHeadDim, k_tile);
    multiply_abt<kHeadDim>(dp, do_tile + warp * 16 * kHeadDim, k_tile + kDqBlockN * kHeadDim);
    const int key = step * kDqBlockN;
    if (key + kDqBlockN > p.seqlen_k || (p.causal && key + kDqBlockN - 1 > query + p.diagonal())) {
      mask<false>(s, key + lane % 4 * 2, query + row, p);
    }
    uint32_t ds[1][kDqBlockN / 16][4];
    for (int n = 0; n < kDqBlockN / 16; ++n) {
      for (int i = 0; i < 4; ++i) {
        float d[2];
        for (int j = 0; j < 2; ++j) {
          const float prob = ex2(s[0][n][i / 2][i % 2 * 2 + j] * (p.scale * kLog2e) - lse2[i % 2]);
          d[j] = prob * kPUnit<Element> * (dp[0][n][i / 2][i % 2 * 2 + j] - d_sum[i % 2]);
        }
        ds[0][n][i] = pack<Element>(d[0], d[1]);
      }
    }
    multiply_ab<kHeadDim>(dq, ds, k_tile);
  }
  cp_async_wait<0>();
  write_rows<kHeadDim>(static_cast<Element*>(p.dq) + q_offset + warp * 16 * kHeadDim, dq, p.scale,
                       p.seqlen_q - query - warp * 16);
}

}  // namespace
