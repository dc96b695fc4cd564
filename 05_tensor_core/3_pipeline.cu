// 05.3 pipeline: the loops of 05.2, arranged so that the tensor cores seldom wait.
//
// Idea: cp.async copies the next tiles of K and V into a second pair of buffers while these are multiplied, so a key tile
//   costs one barrier. A warp owns 32 query rows, two m16 tiles, that share every fragment of K and V it loads. O is
//   rescaled only when a row's maximum has grown by more than 2^8, and one vote of the warp finds that out.
// Global memory: as 05.2: Q once, K and V once a query tile, O and softmax_lse once.
// Limits: fp16 and bf16, head_dim 64 or 128, compute capability 8.0. 64 and 96 KB of shared memory, which a consumer card
//   has too. Two blocks of 128 threads fill the registers of an SM, 255 a thread; on sm_90 none is spilled.
#include <algorithm>
#include <cmath>

#include "common/kernel/cuda.cuh"
#include "common/kernel/ptx/cp_async.cuh"
#include "common/kernel/ptx/ex2.cuh"
#include "common/kernel/ptx/ldmatrix.cuh"
#include "common/kernel/ptx/mma.cuh"
#include "common/kernel/ptx/pack.cuh"
#include "common/kernel/step.h"
#include "common/kernel/tiles_seen.h"

namespace {

using flash::Problem;

constexpr const char* kName = "05_tensor_core/3_pipeline";
constexpr unsigned kAllLanes = 0xffffffffu;

// Query rows and keys a tile. As many keys as the registers for S allow beside those for O.
#ifdef TILE_M
constexpr int kBlockM = TILE_M;
__host__ __device__ constexpr int block_n(int) { return TILE_N; }
#else
constexpr int kBlockM = 128;
__host__ __device__ constexpr int block_n(int head_dim) { return head_dim == 64 ? 96 : 64; }
#endif
constexpr int kWarpRows = 32;
constexpr int kThreads = kBlockM / kWarpRows * kWarpSize;
constexpr int kBuffers = 2;  // of K, and of V
static_assert(kBlockM % kWarpRows == 0, "TILE=MxN: M must be a multiple of 32: a warp owns 32 query rows");
static_assert(kThreads <= 256, "TILE=MxN: M must be at most 256: 8 warps with 255 registers a thread fill an SM");
static_assert(block_n(128) % 16 == 0, "TILE=MxN: N must be a multiple of 16: an mma of P V takes 16 keys");
static_assert(block_n(64) * 64 % (kThreads * 8) == 0 && block_n(128) * 128 % (kThreads * 8) == 0,
              "TILE=MxN: N must be a multiple of M / 8: the threads copy that many rows at a time, 16 bytes each");

__host__ __device__ constexpr int shared_bytes(int head_dim) {
  return (kBlockM + 2 * kBuffers * block_n(head_dim)) * head_dim * 2;
}

constexpr float kRescaleAbove = 8.f;  // in the exponent: P may grow to 2^8 before the maximum it refers to moves
constexpr float kLowest = -3e38f;     // where maxima start: finite, so that no -inf - -inf can arise

// Where 16-byte chunk `chunk` of row `row` lies in a tile, in elements. In one row, swizzle(row, 2 k + h) is
// swizzle(row, h) ^ 16 k for h of 0 or 1: a lane moves on to its next fragment with one xor.
template <int kHeadDim>
__device__ __forceinline__ int swizzle(int row, int chunk) {
  return row * kHeadDim + (chunk ^ row % 8) * 8;
}

// Starts to copy rows first_row … first_row + kRows - 1 of a [seqlen, kHeadDim] matrix to shared memory, zeros for rows
// past its end.
template <int kHeadDim, int kRows, class Element>
__device__ __forceinline__ void copy_ragged_tile(Element* tile, const Element* matrix, int first_row, int seqlen) {
#pragma unroll
  for (int i = 0; i < kRows * kHeadDim / 8; i += kThreads) {
    const int row = (i + threadIdx.x) / (kHeadDim / 8), chunk = (i + threadIdx.x) % (kHeadDim / 8);
    const bool exists = first_row + row < seqlen;
    const Element* from = matrix + (exists ? size_t(first_row + row) * kHeadDim + chunk * 8 : 0);
    cp_async<16>(&tile[swizzle<kHeadDim>(row, chunk)], from, exists);
  }
}

// How many key tiles a query tile sees: all, or when causal those up to its last row's diagonal.
__host__ __device__ inline int key_tiles_seen(const Problem& problem, int query_tile) {
  int keys = problem.seqlen_k;
  if (problem.causal) {
    const int rows = min((query_tile + 1) * kBlockM, problem.seqlen_q);
    keys = max(rows + problem.seqlen_k - problem.seqlen_q, 0);
  }
  return ceil_div(keys, block_n(problem.head_dim));
}

template <class Element, int kHeadDim, bool kCausal>
__global__ void __launch_bounds__(kThreads, 256 / kThreads)
    pipeline_kernel(const Problem problem, const Element* __restrict__ q, const Element* __restrict__ k,
                    const Element* __restrict__ v, Element* __restrict__ o, float* __restrict__ softmax_lse) {
  constexpr int kBlockN = block_n(kHeadDim), kTile = kBlockN * kHeadDim;
  constexpr int kMmaM = kWarpRows / 16;    // m16 tiles of rows a warp
  constexpr int kMmaK = kHeadDim / 16;     // k16 steps of Q K^T
  constexpr int kMmaN = kBlockN / 8;       // n8 tiles of keys in S; two of them are a k16 step of P V
  constexpr int kMmaD = kHeadDim / 8;      // n8 tiles of columns in O
  constexpr int kChunks = kHeadDim / 8;    // 16-byte chunks a row
  constexpr bool kKeepQ = kHeadDim == 64;  // in registers, where 32 are left for it; else read again for every key tile
  Element* const q_tile = dynamic_shared<Element>();     // [kBlockM][kHeadDim]
  Element* const k_tiles = q_tile + kBlockM * kHeadDim;  // [kBuffers][kBlockN][kHeadDim]
  Element* const v_tiles = k_tiles + kBuffers * kTile;   // [kBuffers][kBlockN][kHeadDim]
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const int group = lane / 4, quad = lane % 4;  // the lane map's two coordinates

  // Full: the tiles of a head side by side, to share its K and V in L2. Causal: a tile has the more to do the later it
  // is, so the last tiles of all heads start first, and the short ones fill the gaps at the end.
  const int query_tiles = ceil_div(problem.seqlen_q, kBlockM), batch_heads = gridDim.x / query_tiles;
  const int query_tile = kCausal ? query_tiles - 1 - blockIdx.x / batch_heads : blockIdx.x % query_tiles;
  const int batch_head = kCausal ? blockIdx.x % batch_heads : blockIdx.x / query_tiles;
  const int batch = batch_head / problem.heads, head = batch_head % problem.heads;
  const int kv_head = batch * problem.kv_heads + head / (problem.heads / problem.kv_heads);
  q += size_t(batch_head) * problem.seqlen_q * kHeadDim, o += size_t(batch_head) * problem.seqlen_q * kHeadDim;
  k += size_t(kv_head) * problem.seqlen_k * kHeadDim, v += size_t(kv_head) * problem.seqlen_k * kHeadDim;
  softmax_lse += size_t(batch_head) * problem.seqlen_q;
  const int first_row = query_tile * kBlockM, warp_row = first_row + warp * kWarpRows;
  const int diagonal = problem.seqlen_k - problem.seqlen_q;      // causal: row i sees the keys j <= i + diagonal
  const float scale_log2 = problem.softmax_scale * 1.44269504f;  // e^x = 2^(x log2 e), and 2^x is what the hardware has

  // What this lane addresses for ldmatrix, in elements from q_tile: a row of the first 16 x 16 patch of Q, K and V.
  const int q_lane = swizzle<kHeadDim>(warp * kWarpRows + lane % 16, lane / 16);
  const int k_lane = kBlockM * kHeadDim + swizzle<kHeadDim>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
  const int v_lane = kBlockM * kHeadDim + kBuffers * kTile + swizzle<kHeadDim>(lane % 16, lane / 16);
  // What this thread copies of a tile: a chunk of every (kThreads / kChunks)-th row.
  const int copy_row = threadIdx.x / kChunks, copy_chunk = threadIdx.x % kChunks;

  // Row i of m tile m: warp_row + 16 m + 8 i + group. Maxima are scaled and base 2, as in the exponent; a row's sum is
  // spread over the four lanes of its group until the end.
  float o_acc[kMmaM][kMmaD][4] = {};
  float row_max[kMmaM][2], row_sum[kMmaM][2] = {};
  for (int m = 0; m < kMmaM; ++m) row_max[m][0] = row_max[m][1] = kLowest;

  // Key tiles are walked from the last to the first: the one that may be ragged is copied here, all others are whole.
  const int last_tile = key_tiles_seen(problem, query_tile) - 1;
  uint32_t q_kept[kMmaK][kMmaM][4];
  if (last_tile >= 0) {
    copy_ragged_tile<kHeadDim, kBlockM>(q_tile, q, first_row, problem.seqlen_q);
    copy_ragged_tile<kHeadDim, kBlockN>(k_tiles + last_tile % 2 * kTile, k, last_tile * kBlockN, problem.seqlen_k);
    copy_ragged_tile<kHeadDim, kBlockN>(v_tiles + last_tile % 2 * kTile, v, last_tile * kBlockN, problem.seqlen_k);
    cp_async_commit();
    k += size_t(last_tile) * kTile + copy_row * kHeadDim + copy_chunk * 8;
    v += size_t(last_tile) * kTile + copy_row * kHeadDim + copy_chunk * 8;
    if (kKeepQ) {
      cp_async_wait<0>();
      __syncthreads();  // Q is there, from every thread
#pragma unroll
      for (int kk = 0; kk < kMmaK; ++kk) {
        for (int m = 0; m < kMmaM; ++m) ldmatrix_x4(q_kept[kk][m], q_tile + (q_lane ^ kk * 16) + m * 16 * kHeadDim);
      }
    }
  }

#pragma unroll 1
  for (int key_tile = last_tile; key_tile >= 0; --key_tile) {  // @next-tile
    cp_async_wait<0>();
    __syncthreads();  // this K and V are there, from every thread; and every warp has read those they will be replaced by
    const int first_key = key_tile * kBlockN, buffer = key_tile % 2 * kTile, other_buffer = kTile - buffer;
    k -= kTile, v -= kTile;

    // S = Q K^T.
    float s_acc[kMmaM][kMmaN][4] = {};
#pragma unroll
    for (int kk = 0; kk < kMmaK; ++kk) {
      uint32_t q_frag[kMmaM][4];
#pragma unroll
      for (int m = 0; m < kMmaM; ++m) {
        if (kKeepQ) {
          for (int r = 0; r < 4; ++r) q_frag[m][r] = q_kept[kk][m][r];
        } else {
          ldmatrix_x4(q_frag[m], q_tile + (q_lane ^ kk * 16) + m * 16 * kHeadDim);
        }
      }
#pragma unroll
      for (int n = 0; n < kMmaN; n += 2) {
        uint32_t k_frag[2][2];  // of n tiles n and n + 1
        ldmatrix_x4(k_frag, q_tile + ((buffer + k_lane) ^ kk * 16) + n * 8 * kHeadDim);
#pragma unroll
        for (int m = 0; m < kMmaM; ++m) {
          mma_m16n8k16<Element>(s_acc[m][n], q_frag[m], k_frag[0]);
          mma_m16n8k16<Element>(s_acc[m][n + 1], q_frag[m], k_frag[1]);
        }
      }
      if (kk == 0 && key_tile > 0) {  // the next K and V; not sooner, for now the tensor cores have work meanwhile
#pragma unroll
        for (int row = 0; row < kBlockN; row += kThreads / kChunks) {
          const int to = other_buffer + swizzle<kHeadDim>(row + copy_row, copy_chunk);
          cp_async<16>(k_tiles + to, k + row * kHeadDim);
          cp_async<16>(v_tiles + to, v + row * kHeadDim);
        }
        cp_async_commit();
      }
    }

    // Keys that a row doesn't see: past the end, and later ones when causal. Most tiles have none.
    if (first_key + kBlockN > problem.seqlen_k || (kCausal && first_key + kBlockN - 1 > warp_row + diagonal)) {
#pragma unroll
      for (int m = 0; m < kMmaM; ++m) {
#pragma unroll
        for (int n = 0; n < kMmaN; ++n) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int row = warp_row + m * 16 + e / 2 * 8 + group, key = first_key + n * 8 + quad * 2 + e % 2;
            if (key >= problem.seqlen_k || (kCausal && key > row + diagonal)) s_acc[m][n][e] = -INFINITY;
          }
        }
      }
    }

    // Online softmax. Only when some row of the warp has outgrown its maximum are maxima moved and sums and O rescaled.
    float tile_max[kMmaM][2];
    bool outgrown = false;
#pragma unroll
    for (int m = 0; m < kMmaM; ++m) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        tile_max[m][i] = -INFINITY;
#pragma unroll
        for (int n = 0; n < kMmaN; ++n) {
          tile_max[m][i] = fmaxf(tile_max[m][i], fmaxf(s_acc[m][n][2 * i], s_acc[m][n][2 * i + 1]));
        }
        outgrown |= tile_max[m][i] * scale_log2 - kRescaleAbove > row_max[m][i];
      }
    }
    if (__any_sync(kAllLanes, outgrown)) {
#pragma unroll
      for (int m = 0; m < kMmaM; ++m) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float new_max = tile_max[m][i];
          new_max = fmaxf(new_max, __shfl_xor_sync(kAllLanes, new_max, 1));  // the four lanes of a group share the row
          new_max = fmaxf(new_max, __shfl_xor_sync(kAllLanes, new_max, 2));
          new_max = fmaxf(new_max * scale_log2, row_max[m][i]);
          const float rescale = ex2(row_max[m][i] - new_max);
          row_max[m][i] = new_max;
          row_sum[m][i] *= rescale;  // @rescale-sum
#pragma unroll
          for (int n = 0; n < kMmaD; ++n) o_acc[m][n][2 * i] *= rescale, o_acc[m][n][2 * i + 1] *= rescale;
        }
      }
    }

    // P = 2^(S - maximum) and O += P V, 16 keys at a time: the exponentials of the next 16 run beside these mmas.
#pragma unroll
    for (int kk = 0; kk < kMmaN / 2; ++kk) {
      uint32_t p_frag[kMmaM][4];
#pragma unroll
      for (int m = 0; m < kMmaM; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {  // n tile 2 kk + half of S
          float p[4];
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            p[e] = ex2(s_acc[m][2 * kk + half][e] * scale_log2 - row_max[m][e / 2]);
          }
          row_sum[m][0] += p[0] + p[1];
          row_sum[m][1] += p[2] + p[3];
          p_frag[m][2 * half] = pack<Element>(p[0], p[1]);
          p_frag[m][2 * half + 1] = pack<Element>(p[2], p[3]);
        }
      }
#pragma unroll
      for (int n = 0; n < kMmaD; n += 2) {
        uint32_t v_frag[2][2];
        ldmatrix_x4_trans(v_frag, q_tile + ((buffer + v_lane) ^ n * 8) + kk * 16 * kHeadDim);
#pragma unroll
        for (int m = 0; m < kMmaM; ++m) {
          mma_m16n8k16<Element>(o_acc[m][n], p_frag[m], v_frag[0]);
          mma_m16n8k16<Element>(o_acc[m][n + 1], p_frag[m], v_frag[1]);
        }
      }
    }  // @tile-done
  }

  // O / sum goes to global memory by way of the warp's own rows of q_tile, so that it leaves in pieces of 16 bytes.
  __syncwarp();  // every lane has read Q
#pragma unroll
  for (int m = 0; m < kMmaM; ++m) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float sum = row_sum[m][i];
      sum += __shfl_xor_sync(kAllLanes, sum, 1);
      sum += __shfl_xor_sync(kAllLanes, sum, 2);
      const float inverse = sum > 0.f ? 1.f / sum : 0.f;  // a row that has seen no key gives 0, and -inf
      const int row = m * 16 + i * 8 + group;
      if (quad == 0 && warp_row + row < problem.seqlen_q) {
        softmax_lse[warp_row + row] = (row_max[m][i] + log2f(sum)) * 0.69314718f;  // ln 2
      }
#pragma unroll
      for (int n = 0; n < kMmaD; ++n) {
        Element* to = &q_tile[swizzle<kHeadDim>(warp * kWarpRows + row, n) + quad * 2];
        *reinterpret_cast<uint32_t*>(to) =
            pack<Element>(o_acc[m][n][2 * i] * inverse, o_acc[m][n][2 * i + 1] * inverse);
      }
    }
  }
  __syncwarp();  // the rows are whole
#pragma unroll
  for (int row = lane / kChunks; row < kWarpRows; row += kWarpSize / kChunks) {
    const int chunk = lane % kChunks;
    if (warp_row + row >= problem.seqlen_q) break;
    const uint4 part = *reinterpret_cast<const uint4*>(&q_tile[swizzle<kHeadDim>(warp * kWarpRows + row, chunk)]);
    *reinterpret_cast<uint4*>(&o[size_t(warp_row + row) * kHeadDim + chunk * 8]) = part;
  }
}

template <class Element, int kHeadDim>
void start(const flash::ForwardArgs& a, const flash::Plan& plan, flash::Stream stream) {
  const Problem& p = a.problem;
  const auto kernel = p.causal ? pipeline_kernel<Element, kHeadDim, true> : pipeline_kernel<Element, kHeadDim, false>;
  launch(kernel, ceil_div(p.seqlen_q, kBlockM) * p.heads * p.batch, kThreads, plan.shared_bytes, stream, p, a.q, a.k,
         a.v, a.o, a.softmax_lse);
}

template <class Element>
void start(const flash::ForwardArgs& a, const flash::Plan& plan, flash::Stream stream) {
  a.problem.head_dim == 64 ? start<Element, 64>(a, plan, stream) : start<Element, 128>(a, plan, stream);
}

void forward(const flash::ForwardArgs& a, const flash::Plan& plan, void*, flash::Stream stream) {
  a.problem.dtype == flash::Dtype::bf16 ? start<__nv_bfloat16>(a, plan, stream) : start<__half>(a, plan, stream);
}

flash::Plan plan(const Problem& p, const flash::Device& device) {
  flash::Plan plan;
  plan.block_m = kBlockM, plan.block_n = block_n(p.head_dim);
  plan.shared_bytes = shared_bytes(p.head_dim);
  plan.refusal = flash::tiles_refusal(kName, plan, p, device);
  double rows = 2 * flash::keys_visited_by_all(p, plan.block_m, plan.block_n);  // of K and V; and of Q
  for (int query = 0; query < p.seqlen_q; query += kBlockM) {  // a tile that sees nothing doesn't even read its Q
    if (flash::keys_visited(p, query, plan.block_m, plan.block_n) > 0) rows += std::min(kBlockM, p.seqlen_q - query);
  }
  const double heads = double(p.batch) * p.heads, row = p.head_dim * 2.0;  // bytes a row of Q, K, V, O
  plan.traffic = {heads * rows * row, heads * p.seqlen_q * (row + 4)};
  return plan;
}

const flash::RegisterStep registered(flash::with_tensor_cores(
    flash::at_least(80),
    flash::forward_step(kName, "copies that overlap with the maths, 32 rows a warp, a maximum that may lag behind",
                        {flash::Dtype::bf16, flash::Dtype::fp16}, {64, 128}, plan, forward)));

}  // namespace
