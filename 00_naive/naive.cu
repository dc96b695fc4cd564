// 00_naive: attention as its formula is written, in three kernels.
//
//   S = softmax_scale Q K^T        one thread per score
//   P = softmax of each row of S   one thread per row, in place: P takes the memory of S
//   O = P V                        one thread per element of O
//
// Traffic: the seqlen_q x seqlen_k matrix goes to global memory twice (S, then P) and is read back after each time.
// Bytes the threads ask for, with d = head_dim and a pair for each query row and key (masked ones are computed too):
//   read   pairs * 4 * (2 d for S, 3 for the softmax, 2 d for O)
//   write  pairs * 4 * 2, then O and the LSE
// Limits: 4 bytes of workspace per pair, 64 GB for 32 heads of 16384 x 16384; nothing is shared between threads.
#include <algorithm>

#include "common/kernel/cuda.cuh"
#include "common/kernel/step.h"

namespace {

using flash::Problem;

constexpr int kThreads = 128;  // per block; the results don't depend on it

// Where the keys (or the values) of a query row start: rows are numbered over [batch, heads, seqlen_q].
__device__ size_t kv_offset(const Problem& problem, size_t row) {
  const size_t head = row / problem.seqlen_q % problem.heads;
  const size_t batch = row / problem.seqlen_q / problem.heads;
  const size_t kv_head = head / (problem.heads / problem.kv_heads);  // @kv-head
  return (batch * problem.kv_heads + kv_head) * problem.seqlen_k * problem.head_dim;
}

// s[row][key] = softmax_scale * (q[row] . k[key]), or -inf where the mask hides the key from the row.
// Block (x, y) takes row x and the y-th run of kThreads keys.
__global__ void scores_kernel(const float* q, const float* k, float* s, Problem problem) {
  const size_t row = blockIdx.x;  // @row-and-key
  const int key = blockIdx.y * kThreads + threadIdx.x;
  if (key >= problem.seqlen_k) return;  // the last run may be short

  const float* q_row = q + row * problem.head_dim;
  const float* k_row = k + kv_offset(problem, row) + size_t(key) * problem.head_dim;
  float dot = 0.0f;
  for (int x = 0; x < problem.head_dim; ++x) {
    const float k_x = k_row[x];  // neighbouring threads read head_dim floats apart: the slow way, see the chapter
    dot += q_row[x] * k_x;
  }

  const int i = int(row % problem.seqlen_q);
  const bool masked = problem.causal && key > i + problem.seqlen_k - problem.seqlen_q;  // @mask
  s[row * problem.seqlen_k + key] = masked ? -INFINITY : problem.softmax_scale * dot;
}

// Turns each row of scores into weights, and writes log(sum(exp(scores))).
__global__ void softmax_kernel(float* s, float* softmax_lse, Problem problem, size_t rows) {
  const size_t row = size_t(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= rows) return;

  float* s_row = s + row * problem.seqlen_k;
  float m = -INFINITY;  // @row-max
  for (int key = 0; key < problem.seqlen_k; ++key) m = fmaxf(m, s_row[key]);
  if (m == -INFINITY) m = 0.0f;  // the row sees no key: exp(-inf - 0) is 0, where exp(-inf - -inf) would be NaN

  float l = 0.0f;
  for (int key = 0; key < problem.seqlen_k; ++key) l += expf(s_row[key] - m);
  const float inverse_l = l > 0.0f ? 1.0f / l : 0.0f;
  for (int key = 0; key < problem.seqlen_k; ++key) s_row[key] = expf(s_row[key] - m) * inverse_l;
  softmax_lse[row] = m + logf(l);  // log(0) = -inf where the row sees no key
}

// o[row][x] = sum over the keys of weights[row][key] * v[key][x].
__global__ void output_kernel(const float* weights, const float* v, float* o, Problem problem, size_t elements) {
  const size_t element = size_t(blockIdx.x) * kThreads + threadIdx.x;
  if (element >= elements) return;

  const size_t row = element / problem.head_dim;  // @row-and-column
  const int x = int(element % problem.head_dim);
  const float* weights_row = weights + row * problem.seqlen_k;
  const float* v_column = v + kv_offset(problem, row) + x;
  float sum = 0.0f;
  for (int key = 0; key < problem.seqlen_k; ++key) {
    const float v_x = v_column[size_t(key) * problem.head_dim];  // neighbouring threads read neighbouring floats
    sum += weights_row[key] * v_x;
  }
  o[element] = sum;
}

void forward(const flash::ForwardArgs& args, const flash::Plan&, void* workspace, flash::Stream stream) {
  const Problem& problem = args.problem;
  void* s = workspace;  // [batch, heads, seqlen_q, seqlen_k]
  const size_t rows = flash::q_rows(problem);
  const size_t elements = flash::q_elements(problem);
  const auto blocks = [](size_t threads) { return (threads + kThreads - 1) / kThreads; };
  // Rows go along x: a grid may be 2^31 - 1 blocks wide, but only 65535 high.
  const dim3 score_blocks(rows, blocks(problem.seqlen_k));  // @grid
  launch(scores_kernel, score_blocks, kThreads, 0, stream, args.q, args.k, s, problem);
  launch(softmax_kernel, blocks(rows), kThreads, 0, stream, s, args.softmax_lse, problem, rows);
  launch(output_kernel, blocks(elements), kThreads, 0, stream, s, args.v, args.o, problem, elements);
}

flash::Plan plan(const Problem& problem, const flash::Device& device) {
  flash::Plan plan;
  const double d = problem.head_dim;
  const double rows = double(flash::q_rows(problem));
  const double pairs = rows * problem.seqlen_k;
  // A row of Q and one of K for each score; maximum, sum and weights; P and V for each product.
  plan.traffic = {4 * (pairs * 2 * d + pairs * 3 + pairs * 2 * d), 4 * (pairs * 2 + rows * d + rows)};
  plan.workspace_bytes = size_t(std::min(pairs * sizeof(float), 9e18));
  plan.refusal = flash::workspace_refusal("00_naive", "every score", plan, device);
  if (plan.refusal.empty()) plan.refusal = flash::grid_refusal("00_naive", "seqlen_k", problem.seqlen_k, kThreads);
  return plan;
}

const flash::RegisterStep registered(flash::forward_step("00_naive", "three kernels, S and P in global memory",
                                                         {flash::Dtype::fp32}, {32, 64, 128}, plan, forward));

}  // namespace
