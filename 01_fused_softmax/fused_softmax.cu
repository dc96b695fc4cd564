// 01_fused_softmax: one kernel. A thread block takes one query row and keeps its scores in shared memory, so that S and
// P never reach global memory. A warp takes a key: its 32 lanes read that row of K (later of V) side by side.
//
//   scores[key] = softmax_scale q . k[key]                    the warps share out the keys
//   m = max(scores), scores[key] = exp(scores[key] - m), l = sum(scores)
//   o = sum over the keys of scores[key] * v[key], / l         the warps share out the keys, warp 0 adds their sums
//
// Traffic: bytes the threads ask for, with d = head_dim and a pair for each query row and key that it sees:
//   read   pairs * 4 * 2 d (K and V), and q once per warp: rows * 4 * kWarps * d
//   write  O and the LSE, nothing else
// Limits: a row of scores must fit the shared memory of a block (227 KB on an H200: 57,000 keys); every row reads all
// of K and V again.
#include "common/kernel/cuda.cuh"
#include "common/kernel/step.h"

namespace {

using flash::Problem;

constexpr int kWarps = 8;  // enough to keep an SM busy when long rows leave room for few blocks
constexpr int kThreads = kWarps * kWarpSize;
constexpr unsigned kAllLanes = 0xffffffffu;

// The sum, the maximum of x over the 32 lanes of a warp, known to every lane. All lanes must call.
__device__ __forceinline__ float warp_sum(float x) {
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, distance));
  return x;
}

template <int kHeadDim>
__global__ void fused_softmax_kernel(const float* q, const float* k, const float* v, float* o, float* softmax_lse,
                                     Problem problem) {
  constexpr int kColsPerLane = kHeadDim / kWarpSize;  // lane x of a warp owns columns x, x + 32, …
  float* scores = dynamic_shared<float>();            // [seqlen_k]: scores first, exp(score - m) later
  __shared__ float warp_m[kWarps];
  __shared__ float warp_l[kWarps];
  __shared__ float warp_o[kWarps][kHeadDim];

  const int warp = threadIdx.x / kWarpSize;
  const int lane = threadIdx.x % kWarpSize;
  const size_t row = blockIdx.x;  // over [batch, heads, seqlen_q]
  const int i = int(row % problem.seqlen_q);
  const int head = int(row / problem.seqlen_q % problem.heads);
  const size_t batch = row / problem.seqlen_q / problem.heads;
  const size_t kv_head = batch * problem.kv_heads + head / (problem.heads / problem.kv_heads);
  const float* k_head = k + kv_head * problem.seqlen_k * kHeadDim;
  const float* v_head = v + kv_head * problem.seqlen_k * kHeadDim;
  // The row sees keys 0 … keys - 1.
  const int keys = problem.causal ? max(0, problem.seqlen_k - problem.seqlen_q + i + 1) : problem.seqlen_k;

  float q_row[kColsPerLane];
  for (int n = 0; n < kColsPerLane; ++n) q_row[n] = q[row * kHeadDim + n * kWarpSize + lane];  // @load-q

  // 1. The scores.
  for (int key = warp; key < keys; key += kWarps) {
    const float* k_row = k_head + size_t(key) * kHeadDim;
    float dot = 0.0f;
    for (int n = 0; n < kColsPerLane; ++n) dot += q_row[n] * k_row[n * kWarpSize + lane];  // @load-k
    dot = warp_sum(dot);
    if (lane == 0) scores[key] = problem.softmax_scale * dot;
  }
  __syncthreads();  // @scores-complete: each thread now reads scores that other warps wrote

  // 2. Their softmax, except for the division: the maximum, then the exponentials and their sum.
  float m = -INFINITY;
  for (int key = threadIdx.x; key < keys; key += kThreads) m = fmaxf(m, scores[key]);
  m = warp_max(m);  // @warp-max
  if (lane == 0) warp_m[warp] = m;
  __syncthreads();  // warp_m is complete
  for (int w = 0; w < kWarps; ++w) m = fmaxf(m, warp_m[w]);

  float l = 0.0f;
  for (int key = threadIdx.x; key < keys; key += kThreads) {
    const float weight = expf(scores[key] - m);
    scores[key] = weight;
    l += weight;
  }
  l = warp_sum(l);
  if (lane == 0) warp_l[warp] = l;
  __syncthreads();  // warp_l is complete, and so are the exponentials

  // 3. The output: each warp adds up the values of its keys.
  float o_row[kColsPerLane] = {};
  for (int key = warp; key < keys; key += kWarps) {
    const float* v_row = v_head + size_t(key) * kHeadDim;
    const float weight = scores[key];
    for (int n = 0; n < kColsPerLane; ++n) o_row[n] += weight * v_row[n * kWarpSize + lane];  // @load-v
  }
  for (int n = 0; n < kColsPerLane; ++n) warp_o[warp][n * kWarpSize + lane] = o_row[n];
  __syncthreads();  // warp_o is complete

  // 4. Warp 0 adds the warps' sums and divides.
  if (warp != 0) return;
  l = 0.0f;
  for (int w = 0; w < kWarps; ++w) l += warp_l[w];
  const float inverse_l = l > 0.0f ? 1.0f / l : 0.0f;  // l = 0: the row sees no key and its output is 0
  for (int n = 0; n < kColsPerLane; ++n) {
    float sum = 0.0f;
    for (int w = 0; w < kWarps; ++w) sum += warp_o[w][n * kWarpSize + lane];
    o[row * kHeadDim + n * kWarpSize + lane] = sum * inverse_l;
  }
  if (lane == 0) softmax_lse[row] = m + logf(l);  // @lse: -inf where the row sees no key
}

void forward(const flash::ForwardArgs& args, const flash::Plan& plan, void*, flash::Stream stream) {
  const Problem& problem = args.problem;
  const auto kernel = problem.head_dim == 32   ? fused_softmax_kernel<32>
                      : problem.head_dim == 64 ? fused_softmax_kernel<64>
                                               : fused_softmax_kernel<128>;
  launch(kernel, flash::q_rows(problem), kThreads, plan.shared_bytes, stream, args.q, args.k, args.v, args.o,
         args.softmax_lse, problem);
}

flash::Plan plan(const Problem& problem, const flash::Device& device) {
  flash::Plan plan;
  const double pairs = flash::flops(problem, flash::Direction::forward) / (4 * problem.head_dim);  // unmasked ones
  const double q_read = double(flash::q_elements(problem)) * kWarps;
  const double kv_read = pairs * 2 * problem.head_dim;
  const double write = double(flash::q_elements(problem)) + double(flash::q_rows(problem));
  plan.traffic = {4 * (q_read + kv_read), 4 * write};

  plan.shared_bytes = problem.seqlen_k * sizeof(float);
  const size_t of_the_warps = kWarps * (2 + problem.head_dim) * sizeof(float);         // warp_m, warp_l, warp_o
  const size_t together = ceil_div(int(of_the_warps), 128) * 128 + plan.shared_bytes;  // scores start at 128 n
  plan.refusal = flash::shared_memory_refusal("01_fused_softmax", "a row of scores",
                                              "seqlen_k " + std::to_string(problem.seqlen_k), together, device);
  return plan;
}

const flash::RegisterStep registered(flash::forward_step("01_fused_softmax",
                                                         "one kernel: a row of scores stays in shared memory",
                                                         {flash::Dtype::fp32}, {32, 64, 128}, plan, forward));

}  // namespace
