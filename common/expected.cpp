#include "common/expected.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "common/layout.h"
#include "common/row_math.h"

namespace flash {
namespace {

const double kUnitFp32 = std::ldexp(1.0, -24);

// The error of rounding x to the dtype once. fp16 runs out of exponents at 2^-14: below, the spacing stays 2^-24.
double rounding(Dtype dtype, double x) {
  switch (dtype) {
    case Dtype::fp32:
      return kUnitFp32 * std::fabs(x);
    case Dtype::bf16:
      return std::ldexp(std::fabs(x), -8);
    case Dtype::fp16:
      break;
  }
  return std::max(std::ldexp(std::fabs(x), -11), std::ldexp(1.0, -25));
}

double square(double x) { return x * x; }

double norm(const float* row, int n) { return std::sqrt(dot(row, row, n)); }

std::vector<double> norms(const std::vector<float>& rows, int n) {
  std::vector<double> result(rows.size() / n);
  for (size_t r = 0; r < result.size(); ++r) result[r] = norm(&rows[r * n], n);
  return result;
}

// From sums of squares to units: adds what summing n terms in fp32 costs, and roots.
void finish_units(double terms, ExpectedRow* row) {
  double mean_square = 0;
  for (double value : row->value) mean_square += square(value) / double(row->value.size());
  for (double& unit : row->unit) unit = std::sqrt(unit + square(kUnitFp32) * terms * mean_square);
}

}  // namespace

ExpectedForward expected_forward_row(const Problem& p, const Inputs& in, int b, int h, int i) {
  const int d = p.head_dim;
  const int keys = visible_keys(p, i);
  const float* q = q_row(in.q.data(), p, b, h, i);
  const float* k = kv_row(in.k.data(), p, b, kv_head_of(p, h), 0);
  const float* v = kv_row(in.v.data(), p, b, kv_head_of(p, h), 0);
  ExpectedForward row;
  row.o.value.assign(d, 0.0);
  row.o.unit.assign(d, 0.0);
  row.lse = -std::numeric_limits<double>::infinity();
  row.lse_unit = 0;
  if (keys == 0) return row;

  std::vector<double> probability(keys), score_error(keys);
  const double q_norm = norm(q, d);
  double maximum = -std::numeric_limits<double>::infinity();
  for (int j = 0; j < keys; ++j) {
    const float* k_j = k + size_t(j) * d;
    probability[j] = p.softmax_scale * dot(q, k_j, d);
    // |q| |k| for the dot product; 1 for exp() itself
    score_error[j] = kUnitFp32 * (1 + p.softmax_scale * q_norm * norm(k_j, d));
    maximum = std::max(maximum, probability[j]);
  }
  double sum = 0;
  for (double& s : probability) sum += s = std::exp(s - maximum);
  for (double& s : probability) s /= sum;
  row.lse = maximum + std::log(sum);

  for (int j = 0; j < keys; ++j) add_scaled(row.o.value.data(), probability[j], v + size_t(j) * d, d);
  double lse_unit = square(kUnitFp32) * (keys + square(row.lse));
  for (int j = 0; j < keys; ++j) {
    if (probability[j] < 1e-30) continue;  // too little to be seen in any sum
    // A score's error moves the row towards v_j and away from O (the division by the sum); rounding P moves it by v_j.
    const double by_score = square(probability[j] * score_error[j]);
    const double by_rounding = p.dtype == Dtype::fp32 ? 0 : square(rounding(p.dtype, probability[j]));
    const float* v_j = v + size_t(j) * d;
    for (int c = 0; c < d; ++c)
      row.o.unit[c] += by_score * square(v_j[c] - row.o.value[c]) + by_rounding * square(v_j[c]);
    lse_unit += by_score;
  }
  row.lse_unit = std::sqrt(lse_unit);
  finish_units(keys, &row.o);
  return row;
}

ExpectedBackward::ExpectedBackward(const Problem& p, const Inputs& in, const std::vector<float>& o,
                                   const std::vector<float>& softmax_lse)
    : p_(p),
      in_(in),
      softmax_lse_(softmax_lse),
      row_d_(q_rows(p)),
      q_norm_(norms(in.q, p.head_dim)),
      k_norm_(norms(in.k, p.head_dim)),
      v_norm_(norms(in.v, p.head_dim)),
      o_norm_(norms(o, p.head_dim)),
      d_o_norm_(norms(in.d_o, p.head_dim)) {
  for (size_t row = 0; row < row_d_.size(); ++row)
    row_d_[row] = dot(&in.d_o[row * p.head_dim], &o[row * p.head_dim], p.head_dim);
}

struct ExpectedBackward::Pair {
  double probability, ds;              // ds without softmax_scale
  double probability_error2, ds_error2;  // expected squares of their errors
};

ExpectedBackward::Pair ExpectedBackward::pair(size_t q, size_t kv) const {
  const int d = p_.head_dim;
  Pair pair;
  const double lse = softmax_lse_[q];
  pair.probability = std::exp(p_.softmax_scale * dot(&in_.q[q * d], &in_.k[kv * d], d) - lse);
  const double dp_minus_d = dot(&in_.d_o[q * d], &in_.v[kv * d], d) - row_d_[q];
  pair.ds = pair.probability * dp_minus_d;
  // Relative, by the score, the LSE's own scaling, exp(); and absolute, where exp() may flush to zero.
  const double exp_error =
      kUnitFp32 * (1 + p_.softmax_scale * q_norm_[q] * k_norm_[kv] + std::fabs(lse)) * pair.probability + FLT_MIN;
  const double dp_error = kUnitFp32 * d_o_norm_[q] * (v_norm_[kv] + o_norm_[q]);
  pair.probability_error2 = square(exp_error) + square(rounding(p_.dtype, pair.probability));
  pair.ds_error2 = square(exp_error * dp_minus_d) + square(pair.probability * dp_error) +
                   square(FLT_MIN * d_o_norm_[q] * (v_norm_[kv] + o_norm_[q])) + square(rounding(p_.dtype, pair.ds));
  return pair;
}

ExpectedRow ExpectedBackward::dq_row(int b, int h, int i) const {
  const int d = p_.head_dim;
  const int keys = visible_keys(p_, i);
  const size_t q = q_row_index(p_, b, h, i);
  const double scale = p_.softmax_scale;
  ExpectedRow dq{std::vector<double>(d, 0.0), std::vector<double>(d, 0.0)};
  std::vector<double> weighted_keys(d, 0.0);
  for (int j = 0; j < keys; ++j) {
    const size_t kv = kv_row_index(p_, b, kv_head_of(p_, h), j);
    const Pair term = pair(q, kv);
    const float* k = &in_.k[kv * d];
    add_scaled(dq.value.data(), scale * term.ds, k, d);
    add_scaled(weighted_keys.data(), term.probability, k, d);
    add_scaled_squares(dq.unit.data(), square(scale) * term.ds_error2, k, d);
  }
  // D's error is the same in every term of the row: it doesn't average out.
  const double d_error = scale * kUnitFp32 * d_o_norm_[q] * o_norm_[q];
  for (int c = 0; c < d; ++c) dq.unit[c] += square(d_error * weighted_keys[c]);
  if (keys > 0) finish_units(keys + square(softmax_lse_[q]), &dq);
  return dq;
}

void ExpectedBackward::dkv_row(int b, int kv_head, int j, ExpectedRow* dk, ExpectedRow* dv) const {
  const int d = p_.head_dim;
  const size_t kv = kv_row_index(p_, b, kv_head, j);
  const double scale = p_.softmax_scale;
  *dk = ExpectedRow{std::vector<double>(d, 0.0), std::vector<double>(d, 0.0)};
  *dv = *dk;
  for (int h = kv_head * group_size(p_); h < (kv_head + 1) * group_size(p_); ++h) {
    for (int i = first_query(p_, j); i < p_.seqlen_q; ++i) {
      const size_t q = q_row_index(p_, b, h, i);
      const Pair term = pair(q, kv);
      add_scaled(dk->value.data(), scale * term.ds, &in_.q[q * d], d);
      add_scaled_squares(dk->unit.data(), square(scale) * term.ds_error2, &in_.q[q * d], d);
      add_scaled(dv->value.data(), term.probability, &in_.d_o[q * d], d);
      add_scaled_squares(dv->unit.data(), term.probability_error2, &in_.d_o[q * d], d);
    }
  }
  const double terms = double(group_size(p_)) * (p_.seqlen_q - first_query(p_, j));
  finish_units(terms, dk);
  finish_units(terms, dv);
}

}  // namespace flash
