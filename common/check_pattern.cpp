// Two kinds of words: *where* (rows past a tile, the last columns, one head, rows without a key) and *what* (a constant,
// a factor, or exactly what another, wrong formula gives). The latter is tried out: wrong rows are recomputed in double
// precision with one thing changed, and the change that explains all of them is named.
#include "common/check_pattern.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <set>

#include "common/dtype.h"
#include "common/layout.h"
#include "common/row_math.h"

namespace flash {
namespace {

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

std::string factor_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, std::fabs(value) >= 0.01 ? "%.3f" : "%.3g", value);
  return text;
}

bool of_keys(const CheckedRows& t) { return t.tensor == "dK" || t.tensor == "dV"; }

std::vector<size_t> wrong_rows(const CheckedRows& t) {
  std::vector<size_t> rows;
  for (size_t r = 0; r < t.rows.size(); ++r)
    if (t.row_is_wrong(r)) rows.push_back(r);
  return rows;
}

// ---- where ----

// True if the wrong rows are exactly the checked rows that `chosen` takes, and it takes some and leaves some.
bool exactly(const CheckedRows& t, const std::function<bool(const RowIndex&)>& chosen) {
  size_t taken = 0;
  for (size_t r = 0; r < t.rows.size(); ++r) {
    const bool in = chosen(t.rows[r]);
    if (in != t.row_is_wrong(r)) return false;
    taken += in;
  }
  return taken > 0 && taken < t.rows.size();
}

// The one value that all wrong rows share (a batch, a head); -1 if they share none.
int shared_by(const CheckedRows& t, const std::vector<size_t>& wrong, int RowIndex::*coordinate) {
  for (size_t r : wrong)
    if (t.rows[r].*coordinate != t.rows[wrong[0]].*coordinate) return -1;
  return t.rows[wrong[0]].*coordinate;
}

std::string where_rows(const Problem& p, const CheckedRows& t, const std::vector<size_t>& wrong) {
  const std::string row = of_keys(t) ? "key" : "row";
  if (!of_keys(t) && p.causal) {
    if (exactly(t, [&](const RowIndex& r) { return visible_keys(p, r.i) == 0; }))
      return "only the rows that see no key are wrong (they are O = 0, LSE = -inf, and zero gradients)";
    if (exactly(t, [&](const RowIndex& r) { return visible_keys(p, r.i) > 0; }))
      return "every row that sees a key is wrong, and no other";
  }
  const std::string head = of_keys(t) ? "key/value head " : "head ";
  const int h = shared_by(t, wrong, &RowIndex::h), b = shared_by(t, wrong, &RowIndex::b);
  std::string within;
  if (b >= 0 && p.batch > 1 && exactly(t, [&](const RowIndex& r) { return r.b == b; }))
    return "only batch " + std::to_string(b) + " is wrong, and every row of it";
  if (h >= 0 && t.heads > 1) {
    if (exactly(t, [&](const RowIndex& r) { return r.h == h; }))
      return "only " + head + std::to_string(h) + " is wrong, and every row of it";
    within = "only " + head + std::to_string(h) + " is wrong";
  } else if (t.heads > 1 && exactly(t, [&](const RowIndex& r) { return r.h > 0; })) {
    return "every " + head + "past the first is wrong";
  } else if (b >= 0 && p.batch > 1) {
    within = "only batch " + std::to_string(b) + " is wrong";
  }
  int least = t.rows_per_head, greatest = -1;
  for (size_t r : wrong) {
    least = std::min(least, t.rows[r].i);
    greatest = std::max(greatest, t.rows[r].i);
  }
  // "Every" is held to the heads that have a wrong row at all.
  std::set<std::pair<int, int>> heads;
  for (size_t r : wrong) heads.insert({t.rows[r].b, t.rows[r].h});
  bool every_from_least = true, every_to_greatest = true, any_right = false;
  std::vector<unsigned char> tile_starts_right(1, 1);
  for (size_t r = 0; r < t.rows.size(); ++r) {
    if (!heads.count({t.rows[r].b, t.rows[r].h}) || t.row_is_wrong(r)) continue;
    any_right = true;
    if (t.rows[r].i >= least) every_from_least = false;
    if (t.rows[r].i <= greatest) every_to_greatest = false;
  }
  std::string rows;
  if (wrong.size() == 1) {
    rows = "only " + row + " " + std::to_string(least) + " is wrong";
  } else if (any_right && least == greatest) {
    rows = "only " + row + " " + std::to_string(least) + " of each head is wrong";
  } else if (any_right && every_from_least && least > 0) {
    rows = "every " + row + " past " + std::to_string(least - 1) + " is wrong";
  } else if (any_right && every_to_greatest && greatest + 1 < t.rows_per_head) {
    rows = "every " + row + " up to " + std::to_string(greatest) + " is wrong, none past it";
  } else if (any_right && least > 0) {
    rows = "all " + row + "s before " + std::to_string(least) + " are right";
  }
  if (within.empty()) return rows;
  return rows.empty() ? within : within + ", and there " + rows;
}

std::string where_columns(const CheckedRows& t) {
  if (t.columns == 1) return "";
  std::vector<size_t> wrong(t.columns, 0);
  for (size_t e = 0; e < t.elements(); ++e) wrong[e % t.columns] += t.wrong[e];
  int first = 0, last = t.columns - 1;
  while (first < t.columns && wrong[first] == 0) ++first;
  while (last >= 0 && wrong[last] == 0) --last;
  if (first > last || (first == 0 && last == t.columns - 1)) return "";
  for (int c = first; c <= last; ++c)
    if (wrong[c] == 0) return "";
  const int count = last - first + 1;
  if (last == t.columns - 1)
    return count == 1 ? "only the last column is wrong"
                      : "only the last " + std::to_string(count) + " columns are wrong";
  if (first == 0)
    return count == 1 ? "only the first column is wrong"
                      : "only the first " + std::to_string(count) + " columns are wrong";
  return "only columns " + std::to_string(first) + " to " + std::to_string(last) + " are wrong";
}

// ---- what: the values alone ----

double largest_score(const Problem& p, const Inputs& in, const RowIndex& row) {
  double largest = -std::numeric_limits<double>::infinity();
  for (int j = 0; j < visible_keys(p, row.i); ++j)
    largest =
        std::max(largest, p.softmax_scale * dot(q_row(in.q.data(), p, row.b, row.h, row.i),
                                                kv_row(in.k.data(), p, row.b, kv_head_of(p, row.h), j), p.head_dim));
  return largest;
}

// exp() of fp32 overflows above 88.7 and underflows below -103.
const double kExpOverflows = 88.7, kExpUnderflows = -103;

// Outputs hold bytes 0xFF before the kernel runs: a NaN, but not one that arithmetic makes.
bool is_untouched(const CheckedRows& t, float value) {
  const Dtype dtype = t.tensor == "LSE" ? Dtype::fp32 : t.dtype;
  const float before = unpack(dtype, std::vector<unsigned char>(dtype_bytes(dtype), 0xff))[0];
  return std::memcmp(&before, &value, sizeof value) == 0;
}

std::string what_not_finite(const Problem& p, const Inputs& in, const CheckedRows& t) {
  size_t nan = 0, infinite = 0, untouched = 0, wrong = 0;
  bool explained = !of_keys(t) && t.tensor != "dQ", underflows_too = false, overflows_too = false;
  int tried = 0;
  for (size_t r = 0; r < t.rows.size(); ++r) {
    bool finite = true;
    for (int c = 0; c < t.columns; ++c) {
      const size_t e = r * t.columns + c;
      if (!t.wrong[e]) continue;
      ++wrong;
      nan += std::isnan(t.got[e]);
      infinite += std::isinf(t.got[e]);
      if (!std::isfinite(t.got[e])) finite = false;
      untouched += is_untouched(t, t.got[e]);
    }
    if (!explained || (finite && tried > 200)) continue;
    ++tried;
    const double largest = largest_score(p, in, t.rows[r]);
    if (!finite && largest > kExpOverflows)
      overflows_too = true;
    else if (!finite && largest < kExpUnderflows + 10 && visible_keys(p, t.rows[r].i) > 0)
      underflows_too = true;
    else if (!finite)
      explained = false;
    if (finite && largest > kExpOverflows + 1) explained = false;
  }
  if (nan + infinite == 0) return "";
  auto count = [wrong](size_t n) {
    return n == wrong ? "all wrong elements"
                      : std::to_string(n) + " of the " + std::to_string(wrong) + " wrong elements";
  };
  if (untouched == nan && infinite == 0)
    return count(untouched) + " were never written: what was there before the run still is";
  std::string text = nan ? "NaN in " + count(nan) : "";
  if (infinite) text += (text.empty() ? "" : " and ") + ("infinity in " + count(infinite));
  if (untouched > 0) text += " (" + std::to_string(untouched) + " of them never written)";
  if (explained && overflows_too)
    return text +
           ", in the rows with a score above 88, where exp() overflows, and in no other: was the row's maximum "
           "subtracted before exp()?";
  if (explained && underflows_too)
    return text +
           ", in the rows whose scores are all far below zero, where exp() underflows to 0: does the running "
           "maximum start at -infinity?";
  return text;
}

std::string what_constant(const CheckedRows& t) {
  bool any = false;
  float value = 0;
  for (size_t e = 0; e < t.elements(); ++e) {
    if (!t.wrong[e]) continue;
    if (any && t.got[e] != value) return "";
    value = t.got[e];
    any = true;
  }
  if (!any || t.elements() < 3 || !std::isfinite(value)) return "";
  if (value == 0) return "every wrong element is 0: was anything written there?";
  return "every wrong element is " + number(value) + " (constant output)";
}

// Least-squares factor of a row, and whether it explains the row to a hundredth of the error.
bool row_factor(const CheckedRows& t, size_t r, double* factor) {
  double product = 0, square = 0, error = 0, rest = 0;
  for (int c = 0; c < t.columns; ++c) {
    const double expected = t.expected[r * t.columns + c], got = t.got[r * t.columns + c];
    if (!std::isfinite(got) || !std::isfinite(expected)) return false;
    product += expected * got;
    square += expected * expected;
  }
  if (square == 0) return false;
  *factor = product / square;
  for (int c = 0; c < t.columns; ++c) {
    const size_t e = r * t.columns + c;
    error += std::pow(t.got[e] - t.expected[e], 2);
    rest += std::pow(std::max(0.0, std::fabs(t.got[e] - *factor * t.expected[e]) - std::fabs(*factor) * t.bound[e]), 2);
  }
  return rest < 1e-4 * error;
}

std::string what_factor(const Problem& p, const CheckedRows& t, const std::vector<size_t>& wrong) {
  if (t.columns > 1 ? wrong.empty() : wrong.size() < 2) return "";
  double least = std::numeric_limits<double>::infinity(), greatest = -least;
  for (size_t r : wrong) {
    double factor;
    if (!row_factor(t, r, &factor) || factor == 0) return "";
    least = std::min(least, factor);
    greatest = std::max(greatest, factor);
  }
  const double middle = (least + greatest) / 2;
  if (greatest - least < 0.01 * std::fabs(middle)) {
    std::string text = "the wrong rows are right up to a constant factor " + factor_text(middle);
    if (t.tensor == "LSE" && std::fabs(middle - 1.4427) < 0.003)
      text = "LSE is in base 2: multiply by log(2) = 0.6931";
    else if (std::fabs(middle * p.softmax_scale - 1) < 0.01)
      text += ", which is 1 / softmax_scale: is softmax_scale missing?";
    else if (std::fabs(middle / p.softmax_scale - 1) < 0.01)
      text += ", which is softmax_scale: is it applied twice?";
    return text;
  }
  if (t.columns == 1) return "";  // any number is a multiple of any other
  std::string text =
      "each wrong row is right up to a factor of its own (" + factor_text(least) + " to " + factor_text(greatest) + ")";
  if (t.tensor == "O") text += ": look at the division by the row's sum, and at what rescales it";
  if (t.tensor == "dQ") text += ": is P = exp(S - LSE)?";
  return text;
}

// Values of the right size that have nothing to do with the expected ones.
std::string what_unrelated(const CheckedRows& t) {
  if (t.columns == 1) return "";
  double product = 0, expected2 = 0, got2 = 0;
  size_t wrong = 0;
  for (size_t e = 0; e < t.elements(); ++e) {
    if (!t.wrong[e]) continue;
    ++wrong;
    product += t.expected[e] * t.got[e];
    expected2 += t.expected[e] * t.expected[e];
    got2 += double(t.got[e]) * t.got[e];
  }
  if (wrong < 256 || got2 < expected2 / 16 || got2 > expected2 * 16) return "";
  if (std::fabs(product) > 0.1 * std::sqrt(expected2 * got2)) return "";
  return "the wrong values have a plausible size and nothing to do with the expected ones: left over from another run, "
         "or "
         "read from the wrong place?";
}

// ---- what: another formula ----

// A forward with one thing changed.
struct Formula {
  std::string words;
  std::function<bool(int i, int j)> sees;
  std::function<int(int h)> kv_head;
  double scale;
  bool swap_kv = false;
  // of a backward alone
  bool without_d = false;
  double scale_of_gradient = 0;       // dQ's and dK's factor; 0: softmax_scale
  std::function<bool(int h)> counts;  // query heads that add to dK and dV
  bool other_gradient = false;        // dV where dK belongs
};

// Row of O under the formula, and its LSE.
void evaluate(const Problem& p, const Inputs& in, const Formula& f, const RowIndex& row, std::vector<double>* o,
              double* lse) {
  const std::vector<float>& keys = f.swap_kv ? in.v : in.k;
  const std::vector<float>& values = f.swap_kv ? in.k : in.v;
  const int kv_head = f.kv_head(row.h);
  std::vector<double> s(p.seqlen_k, -std::numeric_limits<double>::infinity());
  double maximum = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int j = 0; j < p.seqlen_k; ++j) {
    if (!f.sees(row.i, j)) continue;
    s[j] = f.scale *
           dot(q_row(in.q.data(), p, row.b, row.h, row.i), kv_row(keys.data(), p, row.b, kv_head, j), p.head_dim);
    maximum = std::max(maximum, s[j]);
  }
  o->assign(p.head_dim, 0.0);
  *lse = maximum;
  if (std::isinf(maximum)) return;
  for (double& score : s) sum += score = std::exp(score - maximum);
  for (int j = 0; j < p.seqlen_k; ++j)
    if (s[j] > 0) add_scaled(o->data(), s[j] / sum, kv_row(values.data(), p, row.b, kv_head, j), p.head_dim);
  *lse = maximum + std::log(sum);
}

Formula right_formula(const Problem& p) {
  const int shift = p.seqlen_k - p.seqlen_q;
  Formula right;
  right.sees = [p, shift](int i, int j) { return !p.causal || j <= i + shift; };
  right.kv_head = [p](int h) { return kv_head_of(p, h); };
  right.scale = p.softmax_scale;
  return right;
}

// Mistakes that a forward and a backward can share.
std::vector<Formula> other_formulas(const Problem& p) {
  const int shift = p.seqlen_k - p.seqlen_q;
  const Formula right = right_formula(p);
  std::vector<Formula> formulas;
  auto add = [&](const std::string& words, const std::function<void(Formula*)>& change) {
    formulas.push_back(right);
    formulas.back().words = words;
    change(&formulas.back());
  };
  if (p.causal) {
    add("the causal mask is left out", [](Formula* f) { f->sees = [](int, int) { return true; }; });
    add("the causal mask lets each row see one key too many",
        [&](Formula* f) { f->sees = [shift](int i, int j) { return j <= i + shift + 1; }; });
    add("the causal mask takes one key too many (a row sees its own key)",
        [&](Formula* f) { f->sees = [shift](int i, int j) { return j < i + shift; }; });
    if (shift != 0)
      add("the causal mask is aligned to the top left; with different lengths it belongs to the bottom right",
          [](Formula* f) { f->sees = [](int i, int j) { return j <= i; }; });
  } else {
    add("a causal mask is applied and none was asked for",
        [&](Formula* f) { f->sees = [shift](int i, int j) { return j <= i + shift; }; });
  }
  for (int tile : {128, 64, 32, 16, 8, 4, 2}) {
    const int whole = p.seqlen_k / tile * tile;
    if (whole == p.seqlen_k) continue;
    add("the keys past " + std::to_string(whole - 1) + " (a last tile of fewer than " + std::to_string(tile) +
            " keys) are left out",
        [&](Formula* f) {
          auto sees = right.sees;
          f->sees = [sees, whole](int i, int j) { return sees(i, j) && j < whole; };
        });
  }
  if (p.kv_heads < p.heads && p.kv_heads > 1)
    add("query head h reads key/value head h % kv_heads; it should be h / (heads / kv_heads)",
        [&](Formula* f) { f->kv_head = [p](int h) { return h % p.kv_heads; }; });
  if (p.kv_heads > 1)
    add("every query head reads key/value head 0", [](Formula* f) { f->kv_head = [](int) { return 0; }; });
  add("K and V are swapped", [](Formula* f) { f->swap_kv = true; });
  add("softmax_scale is left out", [](Formula* f) { f->scale = 1; });
  add("softmax_scale is applied twice", [&](Formula* f) { f->scale = double(p.softmax_scale) * p.softmax_scale; });
  add("scores are in base 2 and exponentials in base e, or the other way round (a factor log2(e) too many)",
      [&](Formula* f) { f->scale = p.softmax_scale * 1.4426950408889634; });
  add("exp2() is given scores without the factor log2(e)",
      [&](Formula* f) { f->scale = p.softmax_scale * 0.6931471805599453; });
  return formulas;
}

std::vector<Formula> other_gradient_formulas(const Problem& p, const CheckedRows& t) {
  std::vector<Formula> formulas;
  auto add = [&](const std::string& words, const std::function<void(Formula*)>& change) {
    formulas.push_back(right_formula(p));
    formulas.back().words = words;
    change(&formulas.back());
  };
  if (t.tensor != "dV") {
    add("D is left out: dS = P (dP - D), D = rowsum(dO * O)", [](Formula* f) { f->without_d = true; });
    add("softmax_scale is left out of the gradient", [](Formula* f) { f->scale_of_gradient = 1; });
  }
  if (t.tensor != "dQ") {
    const int group = group_size(p);
    if (group > 1) {
      const std::string words =
          " query head of a group is counted: " + t.tensor + " is the sum over the group's " + std::to_string(group);
      add("only the last" + words,
          [group](Formula* f) { f->counts = [group](int h) { return h % group == group - 1; }; });
      add("only the first" + words, [group](Formula* f) { f->counts = [group](int h) { return h % group == 0; }; });
    }
    add(t.tensor == "dK" ? "dV is written where dK belongs" : "dK is written where dV belongs",
        [](Formula* f) { f->other_gradient = true; });
  }
  for (const Formula& formula : other_formulas(p))
    if (!formula.swap_kv) formulas.push_back(formula);
  return formulas;
}

// The row of dQ, dK or dV under the formula, from the run's O and LSE.
void evaluate_gradient(const Problem& p, const Inputs& in, const Outputs& out, const Formula& f, const CheckedRows& t,
                       const RowIndex& row, std::vector<double>* gradient) {
  const int d = p.head_dim;
  const bool is_dq = t.tensor == "dQ";
  const bool is_dv = (t.tensor == "dV") != f.other_gradient;
  gradient->assign(d, 0.0);
  for (int h = is_dq ? row.h : 0; h < (is_dq ? row.h + 1 : p.heads); ++h) {
    const int kv_head = f.kv_head(h);
    if (!is_dq && (kv_head != row.h || (f.counts && !f.counts(h)))) continue;
    for (int n = 0; n < (is_dq ? p.seqlen_k : p.seqlen_q); ++n) {
      const int i = is_dq ? row.i : n, j = is_dq ? n : row.i;
      const size_t q = q_row_index(p, row.b, h, i), kv = kv_row_index(p, row.b, kv_head, j);
      if (!f.sees(i, j) || !std::isfinite(out.softmax_lse[q])) continue;
      const float* d_o = &in.d_o[q * d];
      const double probability = std::exp(f.scale * dot(&in.q[q * d], &in.k[kv * d], d) - out.softmax_lse[q]);
      const double row_d = f.without_d ? 0 : dot(d_o, &out.o[q * d], d);
      const double ds = (f.scale_of_gradient > 0 ? f.scale_of_gradient : f.scale) * probability *
                        (dot(d_o, &in.v[kv * d], d) - row_d);
      if (is_dq)
        add_scaled(gradient->data(), ds, &in.k[kv * d], d);
      else if (is_dv)
        add_scaled(gradient->data(), probability, d_o, d);
      else
        add_scaled(gradient->data(), ds, &in.q[q * d], d);
    }
  }
}

// The formula explains a row if what is left of the error is small beside the error, and near the row's own bound.
bool explains(const CheckedRows& t, size_t r, const std::vector<double>& other) {
  double error = 0, rest = 0;
  for (int c = 0; c < t.columns; ++c) {
    const size_t e = r * t.columns + c;
    if (std::isinf(other[c]) && double(t.got[e]) == other[c]) continue;
    if (!std::isfinite(t.got[e]) || !std::isfinite(other[c])) return false;
    error = std::isfinite(t.expected[e]) ? std::max(error, std::fabs(t.got[e] - t.expected[e])) : 1;
    rest = std::max(rest, std::fabs(t.got[e] - other[c]) - 8 * t.bound[e]);
  }
  return rest <= 0.02 * error;
}

std::string what_formula(const Problem& p, const Inputs& in, const Outputs& out, const CheckedRows& t,
                         const std::vector<size_t>& wrong) {
  const size_t kTried = std::min<size_t>(6, wrong.size());  // rows, spread over the wrong ones
  std::vector<size_t> tried;
  for (size_t n = 0; n < kTried; ++n) tried.push_back(wrong[n * (wrong.size() - 1) / std::max<size_t>(1, kTried - 1)]);
  const bool forward = t.tensor == "O" || t.tensor == "LSE";
  std::vector<double> values;
  double lse = 0;
  for (const Formula& formula : forward ? other_formulas(p) : other_gradient_formulas(p, t)) {
    bool all = true;
    for (size_t r : tried) {
      if (forward)
        evaluate(p, in, formula, t.rows[r], &values, &lse);
      else
        evaluate_gradient(p, in, out, formula, t, t.rows[r], &values);
      if (t.tensor == "LSE") values.assign(1, lse);
      all = all && explains(t, r, values);
      if (!all) break;
    }
    if (all) return "the wrong rows are what comes out if " + formula.words;
  }
  if (t.tensor == "LSE") {
    bool is_maximum = true;
    for (size_t r : tried) is_maximum = is_maximum && explains(t, r, {largest_score(p, in, t.rows[r])});
    if (is_maximum) return "LSE is the row's maximum alone: log(sum) is missing";
  }
  return "";
}

}  // namespace

std::string find_pattern(const Problem& p, const Inputs& in, const Outputs& out, const CheckedRows& t) {
  const std::vector<size_t> wrong = wrong_rows(t);
  if (wrong.empty()) return "";
  std::string what = what_not_finite(p, in, t);
  if (what.empty()) what = what_constant(t);
  if (what.empty()) what = what_formula(p, in, out, t, wrong);
  if (what.empty()) what = what_factor(p, t, wrong);
  if (what.empty()) what = what_unrelated(t);
  std::string where = where_columns(t);
  const std::string rows = where_rows(p, t, wrong);
  if (!rows.empty()) where += (where.empty() ? "" : "; ") + rows;
  if (where.empty() || what.empty()) return where + what;
  return where + "; " + what;
}

std::string compare_tensors(const std::vector<TensorCheck>& tensors) {
  auto is = [&](const char* name, Verdict verdict) {
    for (const TensorCheck& t : tensors)
      if (t.tensor == name) return t.verdict == verdict;
    return false;
  };
  if (is("O", Verdict::fail) && is("LSE", Verdict::pass))
    return "LSE is right, so the scores, the maximum and the sum are: look at what O alone goes through (P V, the "
           "rescaling "
           "of the accumulator, the division by the sum, the store).";
  if (is("O", Verdict::pass) && is("LSE", Verdict::fail))
    return "O is right, so the maximum and the sum agree: look at how LSE = maximum + log(sum) is put together.";
  if (is("dV", Verdict::pass) && is("dQ", Verdict::fail) && is("dK", Verdict::fail))
    return "dV is right, so P is: look at dS = P (dP - D), at D and at softmax_scale.";
  if (is("dQ", Verdict::pass) && is("dV", Verdict::pass) && is("dK", Verdict::fail))
    return "dQ is right, so dS is: look at the sum that makes dK.";
  if (is("dQ", Verdict::fail) && is("dV", Verdict::pass) && is("dK", Verdict::pass))
    return "dK is right, so dS is: look at the sum that makes dQ.";
  if (is("dQ", Verdict::pass) && is("dV", Verdict::fail) && is("dK", Verdict::pass))
    return "dQ and dK are right, so P is: look at the sum that makes dV.";
  return "";
}

}  // namespace flash
