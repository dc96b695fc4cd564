#include "common/check/expected.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "common/check/blocks.h"
#include "common/problem/layout.h"
#include "common/problem/mask.h"
#include "common/problem/row_math.h"

namespace flash {
namespace {

const double kUnitFp32 = std::ldexp(1.0, -24);
const double kExpError = 2;  // of a single-precision exp() or exp2(), the GPU's fast ones included, in units of 2^-24

// The error of rounding x to the dtype once. fp16 runs out of exponents at 2^-14: below, the spacing stays 2^-24. A
// kernel may fold `factor` into x before it rounds or multiply by it later: the larger of the two absolute errors counts.
double rounding(Dtype dtype, double x, double factor = 1) {
  switch (dtype) {
    case Dtype::fp32: return kUnitFp32 * std::fabs(x);
    case Dtype::bf16: return std::ldexp(std::fabs(x), -8);
    case Dtype::fp16: break;
  }
  return std::max(std::ldexp(std::fabs(x), -11), std::ldexp(1.0, -25) / std::min(1.0, factor));
}

double square(double x) { return x * x; }

double norm(const float* row, int n) { return std::sqrt(dot(row, row, n)); }

std::vector<double> norms(const std::vector<float>& rows, int n) {
  std::vector<double> result(rows.size() / n);
  for (size_t r = 0; r < result.size(); ++r) result[r] = norm(&rows[r * n], n);
  return result;
}

// See expected.h, for n additions: the part of the result, added by finish_units, and the part of a term have the same
// form.
double summing_error2(double n, double term) { return square(kUnitFp32 * term) * n / 2; }

// See expected.h: what tensor cores cut off a dot product of n terms.
double cut_off(Dtype dtype, int n, double value) {
  return dtype == Dtype::fp32 ? 0 : kUnitFp32 * (n / 8.0) * std::fabs(value);
}

double dot_error2(int n, double x_norm, double y_norm, double value) {
  return square(kUnitFp32 * x_norm * y_norm) / 2 + summing_error2(n, value);
}

// Relative, of exp(score - offset): both and their difference may be rounded (to a multiple of log(2), say), then exp().
double exp_error2(double score, double offset) {
  return square(kUnitFp32) * (square(kExpError) + square(score) + square(offset) + square(score - offset));
}

// From sums of squares to units.
void finish_units(Dtype dtype, double n, ExpectedRow* row) {
  for (size_t c = 0; c < row->unit.size(); ++c) {
    const double value = row->value[c];
    row->unit[c] = std::sqrt(row->unit[c] + summing_error2(n, value) + square(rounding(dtype, value)));
  }
}

}  // namespace

ExpectedForward::ExpectedForward(const Problem& p, const Inputs& in)
    : p_(p), in_(in), k_norm_(norms(in.k, p.head_dim)) {}

ExpectedForwardRow ExpectedForward::row(int b, int h, int i) const {
  const Problem& p = p_;
  const Inputs& in = in_;
  const int d = p.head_dim;
  const int keys = visible_keys(p, i);
  const float* q = q_row(in.q.data(), p, b, h, i);
  const float* k = kv_row(in.k.data(), p, b, kv_head_of(p, h), 0);
  const float* v = kv_row(in.v.data(), p, b, kv_head_of(p, h), 0);
  const double* k_norm = &k_norm_[kv_row_index(p, b, kv_head_of(p, h), 0)];
  ExpectedForwardRow row;
  row.o.value.assign(d, 0.0);
  row.o.unit.assign(d, 0.0);
  row.lse = -std::numeric_limits<double>::infinity();
  row.lse_unit = 0;
  if (keys == 0) return row;

  std::vector<double> probability(keys), score_error2(keys), score_cut_off(keys);
  const double q_norm = norm(q, d);
  double maximum = -std::numeric_limits<double>::infinity();
  for (int j = 0; j < keys; ++j) {
    const float* k_j = k + size_t(j) * d;
    const double product = dot(q, k_j, d);
    probability[j] = p.softmax_scale * product;
    score_error2[j] = square(p.softmax_scale) * dot_error2(d, q_norm, k_norm[j], product);
    score_cut_off[j] = p.softmax_scale * cut_off(p.dtype, d, product);
    maximum = std::max(maximum, probability[j]);
  }
  for (int j = 0; j < keys; ++j) score_error2[j] += exp_error2(probability[j], maximum);
  double sum = 0;
  for (double& s : probability) sum += s = std::exp(s - maximum);
  for (double& s : probability) s /= sum;
  row.lse = maximum + std::log(sum);

  for (int j = 0; j < keys; ++j) add_scaled(row.o.value.data(), probability[j], v + size_t(j) * d, d);
  double lse_unit = summing_error2(keys, 1) + square(kUnitFp32 * row.lse);
  lse_unit += square(dot(probability.data(), score_cut_off.data(), keys));  // the same way in every score
  for (int j = 0; j < keys; ++j) {
    if (probability[j] < 1e-12) continue;  // too little to be seen in any sum
    // A score's error moves the row towards v_j and away from O (the division by the sum); rounding P moves it by v_j.
    const double by_score = square(probability[j]) * score_error2[j];
    const double by_rounding =
        summing_error2(keys, probability[j]) + (p.dtype == Dtype::fp32 ? 0 : square(rounding(p.dtype, probability[j])));
    const float* v_j = v + size_t(j) * d;
    for (int c = 0; c < d; ++c)
      row.o.unit[c] += by_score * square(v_j[c] - row.o.value[c]) + by_rounding * square(v_j[c]);
    lse_unit += by_score;
  }
  row.lse_unit = std::sqrt(lse_unit);
  finish_units(p.dtype, keys, &row.o);
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
      d_o_norm_(norms(in.d_o, p.head_dim)),
      d_error2_(q_rows(p)) {
  const int d = p.head_dim;
  for (size_t row = 0; row < row_d_.size(); ++row) {
    row_d_[row] = dot(&in.d_o[row * d], &o[row * d], d);
    d_error2_[row] = dot_error2(d, d_o_norm_[row], norm(&o[row * d], d), row_d_[row]);
  }
}

struct ExpectedBackward::Pair {
  double probability, ds;                // ds without softmax_scale
  double probability_error2, ds_error2;  // expected squares of their errors
};

ExpectedBackward::Pair ExpectedBackward::pair(size_t q, size_t kv) const {
  const int d = p_.head_dim;
  Pair pair;
  const double lse = softmax_lse_[q];
  const double score = dot(&in_.q[q * d], &in_.k[kv * d], d);
  pair.probability = std::exp(p_.softmax_scale * score - lse);
  const double dp = dot(&in_.d_o[q * d], &in_.v[kv * d], d);
  pair.ds = pair.probability * (dp - row_d_[q]);
  // P's relative error; absolute: exp() may flush to zero.
  const double exponent_error2 = square(p_.softmax_scale) * dot_error2(d, q_norm_[q], k_norm_[kv], score) +
                                 exp_error2(p_.softmax_scale * score, lse);
  const double p_error2 = exponent_error2 * square(pair.probability) + square(FLT_MIN);
  const double dp_error2 = dot_error2(d, d_o_norm_[q], v_norm_[kv], dp) + d_error2_[q];
  pair.probability_error2 = p_error2 + square(rounding(p_.dtype, pair.probability));
  pair.ds_error2 = p_error2 * square(dp - row_d_[q]) + square(pair.probability) * dp_error2 +
                   square(rounding(p_.dtype, pair.ds, p_.softmax_scale)) + square(FLT_MIN);
  return pair;
}

ExpectedRow ExpectedBackward::dq_row(int b, int h, int i) const {
  const int d = p_.head_dim;
  const int keys = visible_keys(p_, i);
  const size_t q = q_row_index(p_, b, h, i);
  const double scale = p_.softmax_scale;
  const double sums = additions(keys, block_of_keys(keys));
  ExpectedRow dq{std::vector<double>(d, 0.0), std::vector<double>(d, 0.0)};
  std::vector<double> weighted_keys(d, 0.0);
  for (int j = 0; j < keys; ++j) {
    const size_t kv = kv_row_index(p_, b, kv_head_of(p_, h), j);
    const Pair term = pair(q, kv);
    const float* k = &in_.k[kv * d];
    add_scaled(dq.value.data(), scale * term.ds, k, d);
    add_scaled(weighted_keys.data(), term.probability, k, d);
    add_scaled_squares(dq.unit.data(), square(scale) * (term.ds_error2 + summing_error2(sums, term.ds)), k, d);
  }
  // D's error is the same in every term of the row: it doesn't average out.
  for (int c = 0; c < d; ++c) dq.unit[c] += square(scale * weighted_keys[c]) * d_error2_[q];
  if (keys > 0)
    finish_units(p_.dtype, sums + 2 * square(softmax_lse_[q]), &dq);  // LSE's scaling moves the row as a whole
  return dq;
}

void ExpectedBackward::dkv_row(int b, int kv_head, int j, ExpectedRow* dk, ExpectedRow* dv) const {
  const int d = p_.head_dim;
  const size_t kv = kv_row_index(p_, b, kv_head, j);
  const double scale = p_.softmax_scale;
  *dk = ExpectedRow{std::vector<double>(d, 0.0), std::vector<double>(d, 0.0)};
  *dv = *dk;
  const double terms = double(group_size(p_)) * (p_.seqlen_q - first_query(p_, j));
  const double sums = additions(terms, block_of_queries(terms));
  for (int h = kv_head * group_size(p_); h < (kv_head + 1) * group_size(p_); ++h) {
    for (int i = first_query(p_, j); i < p_.seqlen_q; ++i) {
      const size_t q = q_row_index(p_, b, h, i);
      const Pair term = pair(q, kv);
      add_scaled(dk->value.data(), scale * term.ds, &in_.q[q * d], d);
      add_scaled_squares(dk->unit.data(), square(scale) * (term.ds_error2 + summing_error2(sums, term.ds)),
                         &in_.q[q * d], d);
      add_scaled(dv->value.data(), term.probability, &in_.d_o[q * d], d);
      add_scaled_squares(dv->unit.data(), term.probability_error2 + summing_error2(sums, term.probability),
                         &in_.d_o[q * d], d);
    }
  }
  finish_units(p_.dtype, sums, dk);
  finish_units(p_.dtype, sums, dv);
}

}  // namespace flash
