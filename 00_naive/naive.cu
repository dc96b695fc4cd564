// 00_naive: attention as its formula is written, in three kernels.
//
//   S = softmax_scale Q K^T        one thread a score
//   P = softmax of each row of S   one thread a row, in place: P takes the memory of S
//   O = P V                        one thread an element of O
//
// Traffic: the seqlen_q x seqlen_k matrix goes to global memory twice (S, then P) and is read back after each time.
// Bytes the threads ask for, with d = head_dim and one pair a query row and key (masked ones are computed too):
//   read   pairs * 4 * (2 d for S, 3 for the softmax, 2 d for O)
//   write  pairs * 4 * 2, then O and the LSE
// Limits: 4 bytes a pair of workspace, 64 GB for 32 heads of 16384 x 16384; nothing is shared between threads.
#include "common/attention.h"
#include "common/cuda.cuh"

namespace {

using flash::Problem;

constexpr int kThreads = 128;  // threads a block; the results don't depend on it

// Where the keys (or the values) of a query row start: rows are numbered over [batch, heads, seqlen_q].
__device__ size_t kv_offset(const Problem& p, size_t row) {
  const size_t head = row / p.seqlen_q % p.heads;
  const size_t batch = row / p.seqlen_q / p.heads;
  const size_t kv_head = head / (p.heads / p.kv_heads);  // @kv-head
  return (batch * p.kv_heads + kv_head) * p.seqlen_k * p.head_dim;
}

// s[row][key] = softmax_scale * (q[row] . k[key]), or -inf where the mask hides the key from the row.
// Block (x, y) takes row x and the y-th run of kThreads keys.
__global__ void scores_kernel(const float* q, const float* k, float* s, Problem p) {
  const size_t row = blockIdx.x;  // @row-and-key
  const int key = blockIdx.y * kThreads + threadIdx.x;
  if (key >= p.seqlen_k) return;  // the last run may be short

  const float* q_row = q + row * p.head_dim;
  const float* k_row = k + kv_offset(p, row) + size_t(key) * p.head_dim;
  float dot = 0.0f;
  for (int x = 0; x < p.head_dim; ++x) {
    const float k_x = k_row[x];  // neighbouring threads read head_dim floats apart: the slow way, see the chapter
    dot += q_row[x] * k_x;
  }

  const int i = int(row % p.seqlen_q);
  const bool masked = p.causal && key > i + p.seqlen_k - p.seqlen_q;  // @mask
  s[row * p.seqlen_k + key] = masked ? -INFINITY : p.softmax_scale * dot;
}

// Turns each row of scores into probabilities, and writes log(sum(exp(scores))).
__global__ void softmax_kernel(float* s, float* softmax_lse, Problem p, size_t rows) {
  const size_t row = size_t(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= rows) return;

  float* s_row = s + row * p.seqlen_k;
  float m = -INFINITY;  // @row-max
  for (int key = 0; key < p.seqlen_k; ++key) m = fmaxf(m, s_row[key]);
  if (m == -INFINITY) m = 0.0f;  // the row sees no key: exp(-inf - 0) is 0, where exp(-inf - -inf) would be NaN

  float l = 0.0f;
  for (int key = 0; key < p.seqlen_k; ++key) l += expf(s_row[key] - m);
  const float inverse_l = l > 0.0f ? 1.0f / l : 0.0f;
  for (int key = 0; key < p.seqlen_k; ++key) s_row[key] = expf(s_row[key] - m) * inverse_l;
  softmax_lse[row] = m + logf(l);  // log(0) = -inf where the row sees no key
}

// o[row][x] = sum over the keys of p[row][key] * v[key][x].
__global__ void output_kernel(const float* probabilities, const float* v, float* o, Problem p, size_t elements) {
  const size_t element = size_t(blockIdx.x) * kThreads + threadIdx.x;
  if (element >= elements) return;

  const size_t row = element / p.head_dim;  // @row-and-column
  const int x = int(element % p.head_dim);
  const float* p_row = probabilities + row * p.seqlen_k;
  const float* v_column = v + kv_offset(p, row) + x;
  float sum = 0.0f;
  for (int key = 0; key < p.seqlen_k; ++key) {
    const float v_x = v_column[size_t(key) * p.head_dim];  // neighbouring threads read neighbouring floats
    sum += p_row[key] * v_x;
  }
  o[element] = sum;
}

void forward(const flash::ForwardArgs& args, void* workspace, flash::Stream stream) {
  const Problem& p = args.problem;
  const auto* q = static_cast<const float*>(args.q);
  const auto* k = static_cast<const float*>(args.k);
  const auto* v = static_cast<const float*>(args.v);
  auto* o = static_cast<float*>(args.o);
  auto* s = static_cast<float*>(workspace);  // [batch, heads, seqlen_q, seqlen_k]
  const size_t rows = flash::q_rows(p);
  const size_t elements = flash::q_elements(p);
  auto blocks = [](size_t threads) { return unsigned((threads + kThreads - 1) / kThreads); };

  // Rows go along x: a grid may be 2^31 - 1 blocks wide, but only 65535 high.
  launch(scores_kernel, dim3(unsigned(rows), blocks(p.seqlen_k)), kThreads, 0, stream, q, k, s, p);  // @grid
  launch(softmax_kernel, blocks(rows), kThreads, 0, stream, s, args.softmax_lse, p, rows);
  launch(output_kernel, blocks(elements), kThreads, 0, stream, s, v, o, p, elements);
}

double pairs(const Problem& p) { return double(flash::q_rows(p)) * p.seqlen_k; }

size_t workspace_bytes(const Problem& p) {
  const bool fits_size_t = pairs(p) * sizeof(float) < 9e18;
  return fits_size_t ? flash::q_rows(p) * p.seqlen_k * sizeof(float) : SIZE_MAX;
}

std::string supports(const Problem& p, const flash::Device& device) {
  if (workspace_bytes(p) > device.global_bytes) {
    return "00_naive keeps every score in global memory: they need " +
           std::to_string(uint64_t(pairs(p) * 4 / (1 << 20))) + " MB, this device has " +
           std::to_string(device.global_bytes >> 20) + " MB free";
  }
  const int most_keys = 65535 * kThreads;
  if (p.seqlen_k > most_keys) {
    return "00_naive gives a thread block " + std::to_string(kThreads) +
           " keys, and CUDA allows 65535 blocks along y: seqlen_k " + std::to_string(p.seqlen_k) + " is more than " +
           std::to_string(most_keys);
  }
  return "";
}

flash::Traffic traffic(const Problem& p) {
  const double scores_read = pairs(p) * 2 * p.head_dim;  // a row of Q and a row of K for each score
  const double softmax_read = pairs(p) * 3;              // maximum, sum, probabilities
  const double output_read = pairs(p) * 2 * p.head_dim;  // P and V for each product
  const double write = pairs(p) * 2 + double(flash::q_elements(p)) + double(flash::q_rows(p));
  return {4 * (scores_read + softmax_read + output_read), 4 * write};
}

flash::StepInfo step_info() {
  flash::StepInfo step;
  step.number = "00";
  step.name = "00_naive";
  step.idea = "three kernels, S and P in global memory";
  step.dtypes = {flash::Dtype::fp32};
  step.head_dims = {32, 64, 128};
  step.supports = supports;
  step.workspace_bytes = workspace_bytes;
  step.traffic = traffic;
  step.forward = forward;
  return step;
}

const flash::RegisterStep registered(step_info());

}  // namespace
