// The rule. For each checked element, with `unit` the error that rounding explains there (expected.h):
//
//   |got - expected| <= 2 * worst * unit + one ulp of the output type at max(|expected|, the row's scale)
//
// `worst` is the largest error of the plain materialised computation (materialised.h) over all checked elements, in
// units; the RMS over the elements is bounded likewise by twice its RMS. Reasons:
//   - Twice: a right kernel sums in another order and rounds elsewhere, so its errors are other draws of the same kind.
//   - Units instead of the bare scale of a row: rows differ. With one figure for all, the rows that cancel (dQ of a row
//     that sees one key is zero) would either fail on noise or, setting the figure, let garbage pass in the others.
//   - One ulp: the output is rounded to its type whatever the algorithm, and a draw may be lucky (exactly representable).
//   - A small problem is few draws, which may all be lucky: `worst` counts as at least kLeastWorst, the RMS as at least
//     kLeastRms. And an RMS over n rows scatters by 1 / sqrt(2 n): its bound is widened by 1 + 3 / sqrt(n), four
//     standard deviations, which is nothing for a problem of thousands of rows.
// What rounding can't touch is held to the bit: rows that see no key are O = 0, LSE = -inf, dQ = 0; NaN and infinity fail
// anywhere in an output, in rows that aren't sampled as well.
#include "common/check/rule.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "common/problem/dtype.h"

namespace flash {
namespace {

const double kLeastWorst = 1.0;
const double kLeastRms = 0.25;

double rms(const double* values, int n) {
  double sum = 0;
  for (int c = 0; c < n; ++c) sum += values[c] * values[c];
  return std::sqrt(sum / n);
}

double unit_roundoff(Dtype dtype) {
  return std::ldexp(1.0, dtype == Dtype::fp32 ? -24 : dtype == Dtype::fp16 ? -11 : -8);
}

// What a row's errors are divided by in reports: the RMS of its reference; for LSE at least 1, as an absolute error of
// LSE is a relative one of exp(LSE). A row that cancels almost to nothing is measured by the terms that cancel.
double scale_of_row(const CheckedRows& t, size_t r) {
  const double value = rms(&t.expected[r * t.columns], t.columns);
  if (t.tensor == "LSE") return std::isfinite(value) ? std::max(1.0, value) : 1.0;
  const double terms = rms(&t.unit[r * t.columns], t.columns) / unit_roundoff(t.dtype);
  return value > std::ldexp(terms, -10) ? value : terms;
}

bool must_be_exact(const CheckedRows& t, size_t e) {
  return t.unit[e] == 0 && (t.expected[e] == 0 || std::isinf(t.expected[e]));
}

bool is_same_infinity(double expected, float got) { return std::isinf(expected) && double(got) == expected; }

double error_of(const CheckedRows& t, size_t e) {
  if (is_same_infinity(t.expected[e], t.got[e])) return 0;
  const double error = std::fabs(double(t.got[e]) - t.expected[e]);
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

std::vector<int> index_of(const CheckedRows& t, size_t e) {
  const RowIndex& row = t.rows[e / t.columns];
  std::vector<int> index{row.b, row.h, row.i};
  if (t.tensor != "LSE") index.push_back(int(e % t.columns));
  return index;
}

// How many rows the sum of squared errors is spread over: (sum of weights)^2 / (sum of their squares), a row's weight
// being the square of its unit over its scale. Errors within a row go together (one score's error moves all columns), and
// where few rows weigh, an RMS is as much a matter of luck as a single error.
double independent_rows(const CheckedRows& t) {
  double sum = 0, squares = 0;
  for (size_t r = 0; r < t.rows.size(); ++r) {
    if (t.scale[r] == 0) continue;
    const double weight = std::pow(rms(&t.unit[r * t.columns], t.columns) / t.scale[r], 2);
    sum += weight;
    squares += weight * weight;
  }
  const double rows = squares > 0 ? sum * sum / squares : 1;
  return std::min(rows, double(t.query_rows));  // keys share what is common to a query row: its LSE, its D
}

}  // namespace

TensorCheck judge(CheckedRows* t, const std::vector<double>& reference, int extra_ulps) {
  TensorCheck check;
  check.tensor = t->tensor;
  check.rows_checked = t->rows.size();
  check.rows_total = t->rows_total;
  t->scale.resize(t->rows.size());
  t->bound.assign(t->elements(), 0.0);
  t->wrong.assign(t->elements(), 0);
  for (size_t r = 0; r < t->rows.size(); ++r) t->scale[r] = scale_of_row(*t, r);

  // The yardstick: the materialised computation's errors in units.
  double worst = kLeastWorst;
  double square_sum = 0;
  size_t inexact = 0;
  for (size_t e = 0; e < t->elements(); ++e) {
    if (must_be_exact(*t, e)) continue;
    const double error = std::fabs(double(t->plain[e]) - reference[e]);
    if (!std::isfinite(error)) {
      check.verdict = Verdict::skip;
      check.first_index = check.worst_index = index_of(*t, e);
      check.first_expected = check.worst_expected = t->expected[e];
      check.first_got = check.worst_got = t->got[e];
      return check;
    }
    if (t->unit[e] == 0) continue;
    worst = std::max(worst, error / t->unit[e]);
    square_sum += (error / t->unit[e]) * (error / t->unit[e]);
    ++inexact;
  }
  double rms_of_plain = inexact ? std::sqrt(square_sum / double(inexact)) : 0.0;
  rms_of_plain = std::max(kLeastRms, rms_of_plain) * (1 + 3 / std::sqrt(independent_rows(*t)));

  double worst_ratio = -1, error_squares = 0, bound_squares = 0;
  for (size_t e = 0; e < t->elements(); ++e) {
    const double scale = t->scale[e / t->columns];
    const double error = error_of(*t, e);
    double rms_bound = 0;
    if (!must_be_exact(*t, e)) {
      const double value =
          std::max(std::fabs(t->expected[e]), rms(&t->expected[e / t->columns * t->columns], t->columns));
      const double ulp =
          std::max(ulp_at(t->dtype, value), double(FLT_MIN));  // GPUs may flush results below FLT_MIN to 0
      t->bound[e] = 2 * worst * t->unit[e] + (1 + extra_ulps) * ulp;
      rms_bound = 2 * rms_of_plain * t->unit[e] + (1 + extra_ulps) * ulp;
    }
    const double ratio = error == 0         ? 0
                         : t->bound[e] == 0 ? std::numeric_limits<double>::infinity()
                                            : error / t->bound[e];
    t->wrong[e] = ratio > 1;
    if (t->wrong[e]) {
      if (check.wrong == 0) {
        check.first_index = index_of(*t, e);
        check.first_expected = t->expected[e];
        check.first_got = t->got[e];
      }
      ++check.wrong;
    }
    if (ratio > worst_ratio) {
      worst_ratio = ratio;
      check.worst_index = index_of(*t, e);
      check.worst_expected = t->expected[e];
      check.worst_got = t->got[e];
      const double divisor = scale > 0 ? scale : 1;
      check.max_error = error / divisor;
      check.max_bound = t->bound[e] / divisor;
    }
    if (scale > 0) {
      error_squares += (error / scale) * (error / scale);
      bound_squares += (rms_bound / scale) * (rms_bound / scale);
    }
  }
  const double elements = double(std::max<size_t>(1, t->elements()));
  check.rms_error = std::sqrt(error_squares / elements);
  check.rms_bound = std::sqrt(bound_squares / elements);
  if (check.wrong > 0 || !(check.rms_error <= check.rms_bound)) check.verdict = Verdict::fail;
  if (check.verdict == Verdict::fail && check.wrong == 0) {
    check.first_index = check.worst_index;
    check.first_expected = check.worst_expected;
    check.first_got = check.worst_got;
  }
  return check;
}

}  // namespace flash
