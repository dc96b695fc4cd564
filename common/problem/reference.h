// Attention in double precision on the CPU: what every step is checked against. (b, h, i) names a row of Q.
#pragma once
#include <vector>

#include "common/problem/inputs.h"
#include "common/problem/problem.h"

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
// The backward (FlashAttention-2, section 2.2), from inputs alone. The checker's rows, which start from the run's own O
// and LSE, are in expected.h.
ReferenceBackward reference_backward(const Problem&, const Inputs&);

}  // namespace flash
