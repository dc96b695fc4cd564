// Two kinds of words: *where* (rows past a tile, the last columns, one head, rows without a key) and *what* (a constant,
// a factor, the NaN of untouched memory, or what another formula gives: formulas.h).
#include "common/check/pattern.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <set>

#include "common/check/formulas.h"
#include "common/problem/dtype.h"
#include "common/problem/layout.h"
#include "common/problem/mask.h"

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
      return "only the rows that see no key are wrong (theirs must be O = 0, LSE = -inf, gradients 0)";
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

// exp() of fp32 overflows above 88.7 and underflows below -103.
const double kExpOverflows = 88.7, kExpUnderflows = -103;

// Memory holds bytes 0xFF before the kernel runs: a NaN, but not one that arithmetic makes. A CPU's arithmetic hands it
// on, so an output may also have it from shared memory that nobody wrote.
bool is_first_nan(const CheckedRows& t, float value) {
  const Dtype dtype = t.tensor == "LSE" ? Dtype::fp32 : t.dtype;
  const float before = unpack(dtype, std::vector<unsigned char>(dtype_bytes(dtype), 0xff))[0];
  return std::memcmp(&before, &value, sizeof value) == 0;
}

std::string what_not_finite(const Problem& p, const Inputs& in, const CheckedRows& t) {
  size_t nan = 0, infinite = 0, first_nan = 0, wrong = 0;
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
      first_nan += is_first_nan(t, t.got[e]);
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
  const std::string memory = "the NaN that memory starts with: never written, or computed from what nobody wrote";
  if (first_nan == nan && infinite == 0) return count(first_nan) + " hold " + memory;
  std::string text = nan ? "NaN in " + count(nan) : "";
  if (infinite) text += (text.empty() ? "" : " and ") + ("infinity in " + count(infinite));
  if (first_nan > 0) text += " (" + std::to_string(first_nan) + " of them " + memory + ")";
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

}  // namespace

std::string find_pattern(const Problem& p, const Inputs& in, const Outputs& out, const CheckedRows& t) {
  const std::vector<size_t> wrong = wrong_rows(t);
  if (wrong.empty()) return "";
  std::string what = what_not_finite(p, in, t);
  if (what.empty()) what = what_constant(t);
  if (what.empty()) what = explain_by_formula(p, in, out, t, wrong);
  if (what.empty()) what = what_factor(p, t, wrong);
  if (what.empty()) what = what_unrelated(t);
  std::string where = where_columns(t);
  const std::string rows = where_rows(p, t, wrong);
  if (!rows.empty()) where += (where.empty() ? "" : "; ") + rows;
  if (where.empty() || what.empty()) return where + what;
  return where + "; " + what;
}

}  // namespace flash
