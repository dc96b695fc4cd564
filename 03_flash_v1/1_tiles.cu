// 03.1: FlashAttention-1, as simply as CUDA can say it. A tile of K and V stays on chip while all queries pass by.
//
//   for each tile of keys: its K and V go to shared memory
//     for each tile of queries, one thread per query:
//       read what the query has gathered from the keys before (its output O, their maximum and their sum),
//       merge it with the keys of the tile, as 02 merged two partial softmaxes, and write it back
//
// A block owns a whole head of a sequence, for no other block may touch its rows. Shared memory: at most 32 KB.
// Traffic: as before, bytes the threads ask for, with d = head_dim and one visit per query row and key tile it sees:
//   read   K and V once per head, Q at every visit; O, maximum and sum at every visit but a row's first
//   write  O, maximum, sum and LSE at every visit: visits * 4 * (d + 3)
// Limits: one block per head; a row of Q and of O is one thread's, so neighbouring threads read rows, not neighbouring
// floats; each multiply-add asks shared memory for a float of K or V.
// Paper: FlashAttention (arXiv 2205.14135), Algorithm 1; its B_r is kBlockM, its B_c kBlockN.
#include <algorithm>

#include "common/kernel/cuda.cuh"
#include "common/kernel/step.h"
#include "common/problem/mask.h"

namespace {

using flash::Problem;

constexpr int kBlockM = 64;  // queries of a tile: one thread each
// Keys of a tile: M / 4d as the paper sets it, for an M of 8192 floats (32 KB).
__host__ __device__ constexpr int block_n(int head_dim) { return 8192 / (4 * head_dim); }

// Copies a tile of a [seqlen, kHeadDim] matrix to shared memory, from first_row on, or what there is of it. Neighbouring
// threads copy neighbouring floats.
template <int kRows, int kHeadDim>
__device__ __forceinline__ void load_tile(float (&tile)[kRows][kHeadDim], const float* matrix, int first_row,
                                          int seqlen) {
  const float* from = matrix + size_t(first_row) * kHeadDim;
  const int rows = min(kRows, seqlen - first_row);
  for (int n = threadIdx.x; n < rows * kHeadDim; n += kBlockM) {  // @load-tile
    tile[n / kHeadDim][n % kHeadDim] = from[n];
  }
}

template <int kHeadDim>
__global__ void __launch_bounds__(kBlockM)
    tiles_kernel(const float* q, const float* k, const float* v, float* o, float* softmax_lse, float* saved_max,
                 float* saved_sum, Problem problem) {
  constexpr int kBlockN = block_n(kHeadDim);
  __shared__ float k_tile[kBlockN][kHeadDim];
  __shared__ float v_tile[kBlockN][kHeadDim];
  __shared__ float weights[kBlockN][kBlockM];  // a column per thread, which is its own: first scores, then exponentials

  const int thread = threadIdx.x;
  const size_t head = blockIdx.x;  // over [batch, heads]
  const size_t batch = head / problem.heads;
  const size_t kv_head = batch * problem.kv_heads + head % problem.heads / (problem.heads / problem.kv_heads);
  const float* k_head = k + kv_head * problem.seqlen_k * kHeadDim;
  const float* v_head = v + kv_head * problem.seqlen_k * kHeadDim;

  for (int first_key = 0; first_key < problem.seqlen_k; first_key += kBlockN) {
    __syncthreads();  // @load-k-and-v: every thread is done with the K and V before these
    load_tile(k_tile, k_head, first_key, problem.seqlen_k);
    load_tile(v_tile, v_head, first_key, problem.seqlen_k);
    __syncthreads();  // K and V are there

    for (int i = thread; i < problem.seqlen_q; i += kBlockM) {
      const int keys = min(flash::visible_keys(problem, i) - first_key, kBlockN);  // @keys: those the row sees
      if (keys <= 0 && first_key > 0) continue;  // none; but the first tile gives every row its first O
      const size_t row = head * problem.seqlen_q + i;

      // Lines 7 and 8 of Algorithm 1: the row of Q, and the maximum and the sum over the keys before.
      float q_row[kHeadDim];
      for (int x = 0; x < kHeadDim; ++x) q_row[x] = q[row * kHeadDim + x];  // @load-q
      const float old_max = first_key > 0 ? saved_max[row] : -INFINITY;
      const float old_sum = first_key > 0 ? saved_sum[row] : 0.0f;

      // Line 9: the scores; lines 10 and 11: the new maximum, the weights and the new sum.
      float row_max = old_max;
      for (int key = 0; key < keys; ++key) {
        float dot = 0.0f;
        for (int x = 0; x < kHeadDim; ++x) dot += q_row[x] * k_tile[key][x];  // @scores
        weights[key][thread] = problem.softmax_scale * dot;
        row_max = fmaxf(row_max, problem.softmax_scale * dot);
      }
      const float base = row_max == -INFINITY ? 0.0f : row_max;  // no key seen yet: -inf - -inf would be NaN
      const float rescale = expf(old_max - base);
      float row_sum = old_sum * rescale;
      for (int key = 0; key < keys; ++key) {
        const float weight = expf(weights[key][thread] - base);
        weights[key][thread] = weight;
        row_sum += weight;
      }

      // Line 12: the new O. It is divided by its sum at all times.
      const float inverse_sum = row_sum > 0.0f ? 1.0f / row_sum : 0.0f;  // 0: the row sees no key and its output is 0
      const float old_share = old_sum * rescale * inverse_sum;
      float o_row[kHeadDim];
      for (int x = 0; x < kHeadDim; ++x) o_row[x] = first_key > 0 ? old_share * o[row * kHeadDim + x] : 0.0f;
      for (int key = 0; key < keys; ++key) {
        const float weight = weights[key][thread] * inverse_sum;
        for (int x = 0; x < kHeadDim; ++x) o_row[x] += weight * v_tile[key][x];  // @output
      }
      for (int x = 0; x < kHeadDim; ++x) o[row * kHeadDim + x] = o_row[x];

      // Line 13.
      saved_max[row] = row_max;
      saved_sum[row] = row_sum;
      softmax_lse[row] = row_max + logf(row_sum);  // -inf where the row has seen no key
    }
  }
}

void forward(const flash::ForwardArgs& args, const flash::Plan&, void* workspace, flash::Stream stream) {
  const Problem& problem = args.problem;
  const auto kernel = problem.head_dim == 32   ? tiles_kernel<32>
                      : problem.head_dim == 64 ? tiles_kernel<64>
                                               : tiles_kernel<128>;
  float* saved_max = static_cast<float*>(workspace);
  float* saved_sum = saved_max + flash::q_rows(problem);
  launch(kernel, problem.batch * problem.heads, kBlockM, 0, stream, args.q, args.k, args.v, args.o, args.softmax_lse,
         saved_max, saved_sum, problem);
}

flash::Plan plan(const Problem& problem, const flash::Device&) {
  flash::Plan plan;
  plan.block_m = kBlockM;
  plan.block_n = block_n(problem.head_dim);
  plan.workspace_bytes = 2 * flash::q_rows(problem) * sizeof(float);

  double visits = 0;  // of the rows of a head by key tiles
  for (int i = 0; i < problem.seqlen_q; ++i) {
    visits += std::max(ceil_div(flash::visible_keys(problem, i), plan.block_n), 1);
  }
  const double heads = double(problem.batch) * problem.heads;
  const double kv_read = 2. * problem.seqlen_k * problem.head_dim;
  const double q_read = visits * problem.head_dim;
  const double o_read = (visits - problem.seqlen_q) * (problem.head_dim + 2);
  plan.traffic = {4 * heads * (kv_read + q_read + o_read), 4 * heads * visits * (problem.head_dim + 3)};
  return plan;
}

const flash::RegisterStep registered(flash::forward_step(
    "03_flash_v1/1_tiles", "tiles of K and V in shared memory, one thread per query; O is rescaled in global memory",
    {flash::Dtype::fp32}, {32, 64, 128}, plan, forward));

}  // namespace
