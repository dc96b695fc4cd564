#include "common/check/formulas.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "common/problem/layout.h"
#include "common/problem/mask.h"
#include "common/problem/row_math.h"

namespace flash {
namespace {

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

}  // namespace

double largest_score(const Problem& p, const Inputs& in, const RowIndex& row) {
  double largest = -std::numeric_limits<double>::infinity();
  for (int j = 0; j < visible_keys(p, row.i); ++j)
    largest =
        std::max(largest, p.softmax_scale * dot(q_row(in.q.data(), p, row.b, row.h, row.i),
                                                kv_row(in.k.data(), p, row.b, kv_head_of(p, row.h), j), p.head_dim));
  return largest;
}

std::string explain_by_formula(const Problem& p, const Inputs& in, const Outputs& out, const CheckedRows& t,
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

}  // namespace flash
