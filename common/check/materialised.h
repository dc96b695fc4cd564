// Attention as a plain implementation computes it in the problem's own precision: inputs in the dtype, scores, sums
// and softmax in fp32, P and dS (the operands of the second product) rounded to the dtype, outputs rounded to it.
// Every sum runs in index order; those of the gradients in blocks (blocks.h) where they are long. Its error against
// fp64 is the checker's yardstick.
#pragma once
#include <vector>

#include "common/problem/inputs.h"
#include "common/problem/problem.h"

namespace flash {

// Row (b, h, i) of O ([head_dim]) and its LSE.
void materialised_forward_row(const Problem&, const Inputs&, int b, int h, int i, float* o, float* softmax_lse);

// The backward's D[b, h, i] = sum over columns of dO * O, in fp32.
std::vector<float> materialised_row_d(const Problem&, const Inputs&, const std::vector<float>& o);

// Row (b, h, i) of dQ; row (b, kv_head, j) of dK and dV ([head_dim] each). softmax_lse as in problem.h, row_d as above.
void materialised_dq_row(const Problem&, const Inputs&, const std::vector<float>& softmax_lse,
                         const std::vector<float>& row_d, int b, int h, int i, float* dq);
void materialised_dkv_row(const Problem&, const Inputs&, const std::vector<float>& softmax_lse,
                          const std::vector<float>& row_d, int b, int kv_head, int j, float* dk, float* dv);

}  // namespace flash
