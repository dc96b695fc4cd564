// Attention in double precision on the CPU: what every step is checked against. (b, h, i) names a row of Q.
#pragma once
#include <vector>

#include "common/attention.h"
#include "common/inputs.h"

namespace flash {

// One row of O and its LSE, from the definition: scores, maximum, sum, weighted sum.
struct ReferenceRow {
  std::vector<double> o;  // [head_dim]
  double softmax_lse;     // -inf where the row sees no key
};
ReferenceRow reference_forward_row(const Problem&, const Inputs&, int b, int h, int i);

struct ReferenceForward {
  std::vector<double> o;            // [batch, heads, seqlen_q, head_dim]
  std::vector<double> softmax_lse;  // [batch, heads, seqlen_q]
};
ReferenceForward reference_forward(const Problem&, const Inputs&);

struct ReferenceBackward {
  std::vector<double> dq, dk, dv;
};
// The whole backward (FlashAttention-2, section 2.2), from inputs alone.
ReferenceBackward reference_backward(const Problem&, const Inputs&);

// Rows of the gradients on their own, for problems too large for all of them. They take O and LSE as the run under
// test computed them (rows of which are checked by themselves): `o` and `softmax_lse` shaped as in attention.h.
std::vector<double> reference_dq_row(const Problem&, const Inputs&, const std::vector<float>& o,
                                     const std::vector<float>& softmax_lse, int b, int h, int i);
struct ReferenceKeyRow {
  std::vector<double> dk, dv;  // [head_dim] of key/value row (b, kv_head, j)
};
ReferenceKeyRow reference_dkv_row(const Problem&, const Inputs&, const std::vector<float>& o,
                                  const std::vector<float>& softmax_lse, int b, int kv_head, int j);

}  // namespace flash
