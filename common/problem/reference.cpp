#include "common/problem/reference.h"

#include <cmath>
#include <limits>

#include "common/problem/layout.h"
#include "common/problem/mask.h"
#include "common/problem/row_math.h"

namespace flash {
namespace {

const double kInfinity = std::numeric_limits<double>::infinity();

// The scores of row i against the keys it sees: softmax_scale * q_i . k_j.
void scores_of_row(const Problem& p, const Inputs& in, int b, int h, int i, std::vector<double>* scores) {
  const float* q = q_row(in.q.data(), p, b, h, i);
  const float* k = kv_row(in.k.data(), p, b, kv_head_of(p, h), 0);
  scores->resize(visible_keys(p, i));
  for (size_t j = 0; j < scores->size(); ++j) (*scores)[j] = p.softmax_scale * dot(q, k + j * p.head_dim, p.head_dim);
}

// Scores become probabilities; the answer is log(sum(exp(scores))).
double softmax(std::vector<double>* scores) {
  double maximum = -kInfinity;
  for (double s : *scores) maximum = std::max(maximum, s);
  if (maximum == -kInfinity) return -kInfinity;  // no key is seen
  double sum = 0;
  for (double& s : *scores) sum += s = std::exp(s - maximum);
  for (double& s : *scores) s /= sum;
  return maximum + std::log(sum);
}

double forward_row(const Problem& p, const Inputs& in, int b, int h, int i, std::vector<double>* scratch, double* o) {
  scores_of_row(p, in, b, h, i, scratch);
  const double lse = softmax(scratch);
  const float* v = kv_row(in.v.data(), p, b, kv_head_of(p, h), 0);
  std::fill(o, o + p.head_dim, 0.0);
  for (size_t j = 0; j < scratch->size(); ++j) add_scaled(o, (*scratch)[j], v + j * p.head_dim, p.head_dim);
  return lse;
}

}  // namespace

ReferenceRow reference_forward_row(const Problem& p, const Inputs& in, int b, int h, int i) {
  ReferenceRow row;
  row.o.resize(p.head_dim);
  std::vector<double> scratch;
  row.softmax_lse = forward_row(p, in, b, h, i, &scratch, row.o.data());
  return row;
}

ReferenceForward reference_forward(const Problem& p, const Inputs& in) {
  ReferenceForward result;
  result.o.resize(q_elements(p));
  result.softmax_lse.resize(q_rows(p));
  std::vector<double> scratch;
  for (int b = 0; b < p.batch; ++b)
    for (int h = 0; h < p.heads; ++h)
      for (int i = 0; i < p.seqlen_q; ++i)
        result.softmax_lse[q_row_index(p, b, h, i)] =
            forward_row(p, in, b, h, i, &scratch, q_row(result.o.data(), p, b, h, i));
  return result;
}

// With P = softmax(S) row by row, S = scale Q K^T, O = P V:
//   dV_j = sum_i P_ij dO_i        dP_ij = dO_i . v_j        dS_ij = P_ij (dP_ij - D_i), D_i = dO_i . o_i
//   dQ_i = scale sum_j dS_ij k_j  dK_j = scale sum_i dS_ij q_i
ReferenceBackward reference_backward(const Problem& p, const Inputs& in) {
  const int d = p.head_dim;
  ReferenceBackward grad;
  grad.dq.assign(q_elements(p), 0.0);
  grad.dk.assign(kv_elements(p), 0.0);
  grad.dv.assign(kv_elements(p), 0.0);
  std::vector<double> probabilities;
  std::vector<double> o(d);
  for (int b = 0; b < p.batch; ++b) {
    for (int h = 0; h < p.heads; ++h) {
      const int kv_head = kv_head_of(p, h);
      for (int i = 0; i < p.seqlen_q; ++i) {
        forward_row(p, in, b, h, i, &probabilities, o.data());
        const float* d_o = q_row(in.d_o.data(), p, b, h, i);
        const double row_d = dot(d_o, o.data(), d);
        for (int j = 0; j < int(probabilities.size()); ++j) {
          const double dp = dot(d_o, kv_row(in.v.data(), p, b, kv_head, j), d);
          const double ds = p.softmax_scale * probabilities[j] * (dp - row_d);
          add_scaled(kv_row(grad.dv.data(), p, b, kv_head, j), probabilities[j], d_o, d);
          add_scaled(kv_row(grad.dk.data(), p, b, kv_head, j), ds, q_row(in.q.data(), p, b, h, i), d);
          add_scaled(q_row(grad.dq.data(), p, b, h, i), ds, kv_row(in.k.data(), p, b, kv_head, j), d);
        }
      }
    }
  }
  return grad;
}

}  // namespace flash
