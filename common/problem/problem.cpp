#include "common/problem/problem.h"

#include <algorithm>

namespace flash {

const char* dtype_name(Dtype dtype) {
  switch (dtype) {
    case Dtype::fp32: return "fp32";
    case Dtype::fp16: return "fp16";
    case Dtype::bf16: return "bf16";
  }
  return "?";
}

Traffic least_traffic(const Problem& p, Direction direction) {
  const double element = double(dtype_bytes(p.dtype));
  const double q = double(q_elements(p)) * element, kv = double(kv_elements(p)) * element, lse = double(q_rows(p)) * 4;
  if (direction == Direction::forward) return {q + 2 * kv, q + lse};
  return {3 * q + 2 * kv + lse, q + 2 * kv};
}

double flops(const Problem& p, Direction direction) {
  double pairs = double(p.seqlen_q) * p.seqlen_k;
  if (p.causal) {
    // Row i sees min(max(i + 1 + offset, 0), seqlen_k) keys; the sum over rows, in closed form.
    const double offset = double(p.seqlen_k) - p.seqlen_q;
    const double first = std::max(1.0 + offset, 0.0);  // keys seen by the first row that sees any
    const double rows = offset >= 0 ? p.seqlen_q : p.seqlen_k;
    pairs = rows * ((offset >= 0 ? first : 1.0) + p.seqlen_k) / 2;
  }
  return 4.0 * p.batch * p.heads * p.head_dim * pairs * (direction == Direction::forward ? 1.0 : 2.5);
}

}  // namespace flash
