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
#include "common/check.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdio>
#include <limits>

#include "common/check_pattern.h"
#include "common/check_rows.h"
#include "common/dtype.h"
#include "common/error.h"
#include "common/expected.h"
#include "common/layout.h"
#include "common/materialised.h"
#include "common/parallel.h"

namespace flash {
namespace {

const double kLeastWorst = 1.0;
const double kLeastRms = 0.25;

// Checking a row costs its length times head_dim, several times over; this much is about a second on one core.
const double kWorkForAllRows = 3e8;
const double kElementsForAllRows = 1 << 22;
const size_t kLeastSampledRows = 8;

uint64_t scrambled(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// About `count` of 0 .. total-1, ascending: both ends, the edges of tiles (16 to 256 rows) at both ends, and one at
// random from each of as many equal stretches as are left.
std::vector<int> sample(int total, size_t count, uint64_t seed) {
  std::vector<int> chosen;
  if (count >= size_t(total)) {
    for (int i = 0; i < total; ++i) chosen.push_back(i);
    return chosen;
  }
  chosen = {0, total - 1};
  for (int tile : {64, 128, 32, 16, 256}) {
    const int last = (total - 1) / tile * tile;  // where the last, perhaps ragged, tile starts
    for (int edge : {last, last - 1, tile - 1, tile})
      if (edge >= 0 && edge < total && chosen.size() * 2 < count) chosen.push_back(edge);
  }
  const size_t stretches = count - std::min(count, chosen.size());
  for (size_t n = 0; n < stretches; ++n) {
    const size_t begin = n * size_t(total) / stretches, end = (n + 1) * size_t(total) / stretches;
    chosen.push_back(int(begin + scrambled(seed * 1000003 + n) % (end - begin)));
  }
  std::sort(chosen.begin(), chosen.end());
  chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
  return chosen;
}

// All rows of a small tensor, else as many as the work allows, spread over the batch and the heads.
std::vector<RowIndex> rows_to_check(int batch, int heads, int rows_per_head, double work_per_row, int columns,
                                    uint64_t seed) {
  const double total = double(batch) * heads * rows_per_head;
  size_t per_head = rows_per_head;
  int head_step = 1;
  if (total * work_per_row > kWorkForAllRows || total * columns > kElementsForAllRows) {
    const double rows =
        std::max(double(kLeastSampledRows), std::min(kWorkForAllRows / work_per_row, kElementsForAllRows / columns));
    per_head = size_t(std::max(2.0, rows / (double(batch) * heads)));
    head_step = int(std::max(1.0, std::ceil(double(batch) * heads * per_head / rows)));
  }
  std::vector<RowIndex> rows;
  const long long all_heads = (long long)batch * heads;
  for (long long at = 0; at < all_heads; ++at) {
    if (at % head_step != 0 && at != all_heads - 1) continue;
    for (int i : sample(rows_per_head, per_head, scrambled(seed + uint64_t(at))))
      rows.push_back({int(at / heads), int(at % heads), i});
  }
  return rows;
}

CheckedRows new_rows(const Problem& p, const std::string& tensor, Dtype dtype, int heads, int rows_per_head,
                     int columns) {
  CheckedRows t;
  t.tensor = tensor;
  t.dtype = dtype;
  t.heads = heads;
  t.rows_per_head = rows_per_head;
  t.columns = columns;
  t.rows_total = size_t(p.batch) * heads * rows_per_head;
  t.query_rows = q_rows(p);
  return t;
}

size_t row_position(const CheckedRows& t, const RowIndex& row) {
  return ((size_t(row.b) * t.heads + row.h) * t.rows_per_head + row.i) * t.columns;
}

// Makes room for the rows and takes what the run wrote; set_row() fills in the rest, a row at a time.
void set_rows(CheckedRows* t, const std::vector<RowIndex>& rows, const std::vector<float>& got) {
  t->rows = rows;
  t->expected.resize(t->elements());
  t->unit.resize(t->elements());
  t->plain.resize(t->elements());
  t->got.resize(t->elements());
  for (size_t r = 0; r < rows.size(); ++r)
    std::copy_n(got.begin() + row_position(*t, rows[r]), t->columns, t->got.begin() + r * t->columns);
}

void set_row(CheckedRows* t, size_t r, const ExpectedRow& expected) {
  std::copy(expected.value.begin(), expected.value.end(), t->expected.begin() + r * t->columns);
  std::copy(expected.unit.begin(), expected.unit.end(), t->unit.begin() + r * t->columns);
}

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

// Fills scale, bound and wrong; the verdict and its figures. `reference` is what the yardstick's errors are measured
// from (the same as t->expected, unless that came from a file).
TensorCheck judge(CheckedRows* t, const std::vector<double>& reference, int extra_ulps = 0) {
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

// Rows that no sample may miss: NaN or infinity where none belongs, and rows without a key that aren't exact. A few of
// each are enough to tell the story.
std::vector<RowIndex> conspicuous_rows(const Problem& p, const std::vector<float>& values, bool is_lse, bool of_keys) {
  const size_t kEnough = 64;
  const int heads = of_keys ? p.kv_heads : p.heads;
  const int rows_per_head = of_keys ? p.seqlen_k : p.seqlen_q;
  const int columns = is_lse ? 1 : p.head_dim;
  std::vector<RowIndex> rows;
  const float* value = values.data();
  for (int b = 0; b < p.batch; ++b) {
    for (int h = 0; h < heads; ++h) {
      for (int i = 0; i < rows_per_head; ++i) {
        const bool no_key = !of_keys && visible_keys(p, i) == 0;
        bool good = true;
        for (int c = 0; c < columns; ++c, ++value) {
          if (no_key)
            good = good && (is_lse ? *value == -std::numeric_limits<float>::infinity() : *value == 0);
          else
            good = good && std::isfinite(*value);
        }
        if (!good && rows.size() < kEnough) rows.push_back({b, h, i});
      }
    }
  }
  return rows;
}

void merge(std::vector<RowIndex>* rows, const std::vector<RowIndex>& more) {
  auto before = [](const RowIndex& x, const RowIndex& y) {
    return x.b != y.b ? x.b < y.b : x.h != y.h ? x.h < y.h : x.i < y.i;
  };
  auto same = [](const RowIndex& x, const RowIndex& y) { return x.b == y.b && x.h == y.h && x.i == y.i; };
  rows->insert(rows->end(), more.begin(), more.end());
  std::sort(rows->begin(), rows->end(), before);
  rows->erase(std::unique(rows->begin(), rows->end(), same), rows->end());
}

// work(r) for each row; on several threads where that is worth starting them.
template <typename Work>
void in_parallel(const std::vector<RowIndex>& rows, double work_per_row, const Work& work) {
  if (double(rows.size()) * work_per_row > 1e7)
    parallel_for(rows.size(), work);
  else
    for (size_t r = 0; r < rows.size(); ++r) work(r);
}

void require_size(const char* tensor, size_t got, size_t expected) {
  if (got != expected)
    throw Error(kUsage, std::string("check: ") + tensor + " has " + std::to_string(got) + " elements, expected " +
                            std::to_string(expected) + ".");
}

void require_inputs(const Problem& p, const Inputs& in) {
  require_size("Q", in.q.size(), q_elements(p));
  require_size("K", in.k.size(), kv_elements(p));
  require_size("V", in.v.size(), kv_elements(p));
}

struct ForwardRows {
  CheckedRows o, lse;
};

ForwardRows forward_rows(const Problem& p, const Inputs& in, const Outputs& out, uint64_t seed, bool with_lse) {
  require_inputs(p, in);
  require_size("O", out.o.size(), q_elements(p));
  ForwardRows result;
  result.o = new_rows(p, "O", p.dtype, p.heads, p.seqlen_q, p.head_dim);
  result.lse = new_rows(p, "LSE", Dtype::fp32, p.heads, p.seqlen_q, 1);
  std::vector<RowIndex> rows =
      rows_to_check(p.batch, p.heads, p.seqlen_q, double(p.seqlen_k) * p.head_dim, p.head_dim, seed);
  merge(&rows, conspicuous_rows(p, out.o, false, false));
  if (with_lse) {
    require_size("LSE", out.softmax_lse.size(), q_rows(p));
    merge(&rows, conspicuous_rows(p, out.softmax_lse, true, false));
  }
  set_rows(&result.o, rows, out.o);
  if (with_lse) set_rows(&result.lse, rows, out.softmax_lse);
  const ExpectedForward expected(p, in);
  in_parallel(rows, double(p.seqlen_k) * p.head_dim, [&](size_t r) {
    const RowIndex& row = rows[r];
    const ExpectedForwardRow expected_row = expected.row(row.b, row.h, row.i);
    set_row(&result.o, r, expected_row.o);
    float plain_lse;
    materialised_forward_row(p, in, row.b, row.h, row.i, &result.o.plain[r * p.head_dim], &plain_lse);
    if (!with_lse) return;
    set_row(&result.lse, r, {{expected_row.lse}, {expected_row.lse_unit}});
    result.lse.plain[r] = plain_lse;
  });
  return result;
}

void add_tensor(const Problem& p, const Inputs& in, const Outputs& out, CheckedRows* rows, CheckResult* result) {
  TensorCheck check = judge(rows, rows->expected);
  if (check.verdict == Verdict::fail) check.pattern = find_pattern(p, in, out, *rows);
  result->tensors.push_back(check);
}

Verdict worst_verdict(const std::vector<TensorCheck>& tensors) {
  Verdict verdict = Verdict::pass;
  for (const TensorCheck& t : tensors) {
    if (t.verdict == Verdict::fail) return Verdict::fail;
    if (t.verdict == Verdict::skip) verdict = Verdict::skip;
  }
  return verdict;
}

std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

std::string short_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2g", value);
  return text;
}

// "O[b 0, h 1, i 63, column 5]"; dK and dV name their key/value head and their key.
std::string element_name(const TensorCheck& t, const std::vector<int>& index) {
  const bool of_keys = t.tensor == "dK" || t.tensor == "dV";
  std::string name = t.tensor + "[b " + std::to_string(index[0]) + (of_keys ? ", kv head " : ", h ") +
                     std::to_string(index[1]) + (of_keys ? ", key " : ", row ") + std::to_string(index[2]);
  if (index.size() > 3) name += ", column " + std::to_string(index[3]);
  return name + "]";
}

std::string rows_text(const TensorCheck& t) {
  if (t.rows_checked >= t.rows_total) return "all " + std::to_string(t.rows_total) + " rows";
  return std::to_string(t.rows_checked) + " of " + std::to_string(t.rows_total) + " rows";
}

std::string story(const TensorCheck& t, int columns) {
  if (t.verdict == Verdict::skip)
    return t.tensor + " can't be checked: a plain computation in this precision overflows at " +
           element_name(t, t.first_index) + " (expected " + number(t.first_expected) + ").";
  const std::string figures = "max error " + short_number(t.max_error) + " (bound " + short_number(t.max_bound) +
                              "), RMS " + short_number(t.rms_error) + " (bound " + short_number(t.rms_bound) + ")";
  if (t.verdict == Verdict::pass) return t.tensor + " is right: " + figures + ", " + rows_text(t) + ".";
  std::string text;
  if (t.wrong > 0) {
    text = t.tensor + " is wrong: " + std::to_string(t.wrong) + " of " + std::to_string(t.rows_checked * columns) +
           " checked elements (" + rows_text(t) + ").\n";
    text += "  first: " + element_name(t, t.first_index) + " is " + number(t.first_got) + ", expected " +
            number(t.first_expected) + "\n";
    text += "  worst: " + element_name(t, t.worst_index) + " is " + number(t.worst_got) + ", expected " +
            number(t.worst_expected);
  } else {
    text = t.tensor + " is wrong: no element alone, but the errors together are too large.\n  " + figures;
  }
  if (!t.pattern.empty()) text += "\n  pattern: " + t.pattern;
  return text;
}

void conclude(const Problem& p, const std::string& reference, CheckResult* result) {
  result->verdict = worst_verdict(result->tensors);
  if (result->verdict == Verdict::pass) {
    std::string line;
    for (const TensorCheck& t : result->tensors)
      line += (line.empty() ? "" : "; ") + t.tensor + " max error " + short_number(t.max_error) + " (bound " +
              short_number(t.max_bound) + ")";
    result->message = line + "; " + rows_text(result->tensors.front()) + " checked against " + reference;
    return;
  }
  for (const TensorCheck& t : result->tensors)
    result->message += (result->message.empty() ? "" : "\n") + story(t, t.tensor == "LSE" ? 1 : p.head_dim);
  const std::string hint = compare_tensors(result->tensors);
  if (!hint.empty()) result->message += "\n" + hint;
}

void add_forward(const Problem& p, const Inputs& in, const Outputs& out, uint64_t seed, CheckResult* result) {
  ForwardRows rows = forward_rows(p, in, out, seed, true);
  add_tensor(p, in, out, &rows.o, result);
  add_tensor(p, in, out, &rows.lse, result);
}

}  // namespace

const char* verdict_name(Verdict verdict) {
  return verdict == Verdict::pass ? "pass" : verdict == Verdict::fail ? "fail" : "skip";
}

CheckResult check_forward(const Problem& p, const Inputs& in, const Outputs& out, uint64_t seed) {
  CheckResult result;
  add_forward(p, in, out, seed, &result);
  conclude(p, "fp64", &result);
  return result;
}

CheckResult check_backward(const Problem& p, const Inputs& in, const Outputs& out, uint64_t seed) {
  CheckResult result;
  require_size("dO", in.d_o.size(), q_elements(p));
  require_size("dQ", out.dq.size(), q_elements(p));
  require_size("dK", out.dk.size(), kv_elements(p));
  require_size("dV", out.dv.size(), kv_elements(p));
  add_forward(p, in, out, seed, &result);
  if (worst_verdict(result.tensors) != Verdict::pass) {
    conclude(p, "fp64", &result);
    result.message += "\ndQ, dK and dV weren't checked: they are made from O and LSE.";
    return result;
  }

  const ExpectedBackward expected(p, in, out.o, out.softmax_lse);
  const std::vector<float> row_d = materialised_row_d(p, in, out.o);

  const double dq_work = 2.0 * p.seqlen_k * p.head_dim;
  CheckedRows dq = new_rows(p, "dQ", p.dtype, p.heads, p.seqlen_q, p.head_dim);
  std::vector<RowIndex> rows = rows_to_check(p.batch, p.heads, p.seqlen_q, dq_work, p.head_dim, seed);
  merge(&rows, conspicuous_rows(p, out.dq, false, false));
  set_rows(&dq, rows, out.dq);
  in_parallel(rows, dq_work, [&](size_t r) {
    const RowIndex& row = rows[r];
    set_row(&dq, r, expected.dq_row(row.b, row.h, row.i));
    materialised_dq_row(p, in, out.softmax_lse, row_d, row.b, row.h, row.i, &dq.plain[r * p.head_dim]);
  });
  add_tensor(p, in, out, &dq, &result);

  const double dkv_work = 2.0 * group_size(p) * p.seqlen_q * p.head_dim;
  CheckedRows dk = new_rows(p, "dK", p.dtype, p.kv_heads, p.seqlen_k, p.head_dim);
  CheckedRows dv = new_rows(p, "dV", p.dtype, p.kv_heads, p.seqlen_k, p.head_dim);
  rows = rows_to_check(p.batch, p.kv_heads, p.seqlen_k, dkv_work, p.head_dim, seed);
  merge(&rows, conspicuous_rows(p, out.dk, false, true));
  merge(&rows, conspicuous_rows(p, out.dv, false, true));
  set_rows(&dk, rows, out.dk);
  set_rows(&dv, rows, out.dv);
  in_parallel(rows, dkv_work, [&](size_t r) {
    const RowIndex& row = rows[r];
    ExpectedRow expected_dk, expected_dv;
    expected.dkv_row(row.b, row.h, row.i, &expected_dk, &expected_dv);
    set_row(&dk, r, expected_dk);
    set_row(&dv, r, expected_dv);
    materialised_dkv_row(p, in, out.softmax_lse, row_d, row.b, row.h, row.i, &dk.plain[r * p.head_dim],
                         &dv.plain[r * p.head_dim]);
  });
  add_tensor(p, in, out, &dk, &result);
  add_tensor(p, in, out, &dv, &result);
  conclude(p, "fp64", &result);
  return result;
}

CheckResult check_expected(const Problem& p, const Inputs& in, const Outputs& out,
                           const std::vector<float>& expected_o) {
  require_size("the expected O", expected_o.size(), q_elements(p));
  CheckResult result;
  ForwardRows rows = forward_rows(p, in, out, 0, false);
  const std::vector<double> reference = rows.o.expected;
  for (size_t e = 0; e < rows.o.elements(); ++e) {
    const size_t at = row_position(rows.o, rows.o.rows[e / p.head_dim]) + e % p.head_dim;
    rows.o.expected[e] = expected_o[at];
  }
  result.tensors.push_back(judge(&rows.o, reference, 1));  // the file's values were rounded as well
  if (result.tensors[0].verdict == Verdict::fail) result.tensors[0].pattern = find_pattern(p, in, out, rows.o);
  conclude(p, "the expected file", &result);
  return result;
}

}  // namespace flash
