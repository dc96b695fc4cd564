// 02_online_softmax: one kernel, one pass over the keys, no row of scores. A partial softmax is three things: the
// largest score so far, the sum of the exponentials, the weighted sum of the values. Two of them merge into one, so a
// warp merges its keys one by one, and the warps' partial softmaxes merge at the end.
//
//   m = max(m1, m2)    l = exp(m1 - m) l1 + exp(m2 - m) l2    o = exp(m1 - m) o1 + exp(m2 - m) o2
//
// Traffic: as 01's, bytes the threads ask for, with d = head_dim and a pair for each query row and key that it sees:
//   read   pairs * 4 * 2 d (K and V), and q once per warp: rows * 4 * kWarps * d
//   write  O and the LSE, nothing else
// Limits: any seqlen; but every row reads all of K and V again, and each key rescales the whole output.
#include "common/kernel/cuda.cuh"
#include "common/kernel/step.h"

namespace {

using flash::Problem;

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;
constexpr unsigned kAllLanes = 0xffffffffu;

// The sum of x over the 32 lanes of a warp, known to every lane. All lanes must call.
__device__ __forceinline__ float warp_sum(float x) {
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
  return x;
}

// The softmax of a row over some of its keys, not yet divided. A warp holds one: every lane has m and l, and lane x has
// the columns x, x + 32, … of o.
template <int kColsPerLane>
struct Partial {
  float m = -INFINITY;         // @largest: the largest score
  float l = 0.0f;              // sum of exp(score - m)
  float o[kColsPerLane] = {};  // sum of exp(score - m) * v
};

// The softmax over the keys of a and those of b together (Milakov and Gimelshein, arXiv 1805.02867, section 3.1).
template <int kColsPerLane>
__device__ __forceinline__ Partial<kColsPerLane> merge(const Partial<kColsPerLane> a, const Partial<kColsPerLane> b) {
  Partial<kColsPerLane> both;  // @merge
  both.m = fmaxf(a.m, b.m);
  if (both.m == -INFINITY) return both;  // no key on either side; -inf - -inf below would be NaN
  const float scale_a = expf(a.m - both.m);
  const float scale_b = expf(b.m - both.m);
  both.l = scale_a * a.l + scale_b * b.l;
  for (int n = 0; n < kColsPerLane; ++n) both.o[n] = scale_a * a.o[n] + scale_b * b.o[n];
  return both;
}

template <int kHeadDim>
__global__ void online_softmax_kernel(const float* q, const float* k, const float* v, float* o, float* softmax_lse,
                                      Problem problem) {
  constexpr int kColsPerLane = kHeadDim / kWarpSize;  // lane x of a warp owns columns x, x + 32, …
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
  for (int n = 0; n < kColsPerLane; ++n) q_row[n] = q[row * kHeadDim + n * kWarpSize + lane];

  // 1. Each warp goes once over its keys. A key alone is a partial softmax too: m is its score, l is 1, o is its v.
  Partial<kColsPerLane> seen;  // @one-pass
  for (int key = warp; key < keys; key += kWarps) {
    const float* k_row = k_head + size_t(key) * kHeadDim;
    const float* v_row = v_head + size_t(key) * kHeadDim;
    float dot = 0.0f;
    for (int n = 0; n < kColsPerLane; ++n) dot += q_row[n] * k_row[n * kWarpSize + lane];  // @load-k

    Partial<kColsPerLane> one;
    one.m = problem.softmax_scale * warp_sum(dot);
    one.l = 1.0f;
    for (int n = 0; n < kColsPerLane; ++n) one.o[n] = v_row[n * kWarpSize + lane];  // @load-v
    seen = merge(seen, one);
  }

  // 2. The warps hand over what they have seen.
  if (lane == 0) warp_m[warp] = seen.m;
  if (lane == 0) warp_l[warp] = seen.l;
  for (int n = 0; n < kColsPerLane; ++n) warp_o[warp][n * kWarpSize + lane] = seen.o[n];
  __syncthreads();  // warp_m, warp_l and warp_o are complete

  // 3. Warp 0 merges it and divides.
  if (warp != 0) return;
  for (int w = 1; w < kWarps; ++w) {
    Partial<kColsPerLane> other;
    other.m = warp_m[w];
    other.l = warp_l[w];
    for (int n = 0; n < kColsPerLane; ++n) other.o[n] = warp_o[w][n * kWarpSize + lane];
    seen = merge(seen, other);
  }
  const float inverse_l = seen.l > 0.0f ? 1.0f / seen.l : 0.0f;  // l = 0: the row sees no key and its output is 0
  for (int n = 0; n < kColsPerLane; ++n) o[row * kHeadDim + n * kWarpSize + lane] = seen.o[n] * inverse_l;
  if (lane == 0) softmax_lse[row] = seen.m + logf(seen.l);  // -inf where the row sees no key
}

void forward(const flash::ForwardArgs& args, const flash::Plan&, void*, flash::Stream stream) {
  const Problem& problem = args.problem;
  const auto kernel = problem.head_dim == 32   ? online_softmax_kernel<32>
                      : problem.head_dim == 64 ? online_softmax_kernel<64>
                                               : online_softmax_kernel<128>;
  launch(kernel, flash::q_rows(problem), kThreads, 0, stream, args.q, args.k, args.v, args.o, args.softmax_lse,
         problem);
}

flash::Plan plan(const Problem& problem, const flash::Device&) {
  flash::Plan plan;
  const double pairs = flash::flops(problem, flash::Direction::forward) / (4 * problem.head_dim);  // unmasked ones
  const double q_read = double(flash::q_elements(problem)) * kWarps;
  const double kv_read = pairs * 2 * problem.head_dim;
  const double write = double(flash::q_elements(problem)) + double(flash::q_rows(problem));
  plan.traffic = {4 * (q_read + kv_read), 4 * write};
  return plan;
}

const flash::RegisterStep registered(flash::forward_step("02_online_softmax",
                                                         "one pass with a running maximum and sum: no row of scores",
                                                         {flash::Dtype::fp32}, {32, 64, 128}, plan, forward));

}  // namespace
