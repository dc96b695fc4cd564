// What a step wrote, and what the checker says of it.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace flash {

// What a step wrote, as floats; dq, dk, dv are empty after a forward step.
struct Outputs {
  std::vector<float> o, softmax_lse;
  std::vector<float> dq, dk, dv;
};

enum class Verdict { pass, fail, skip };
const char* verdict_name(Verdict);

struct TensorCheck {
  std::string tensor;  // "O", "LSE", "dQ", "dK", "dV"
  Verdict verdict = Verdict::pass;
  // Divided by the row's scale. max_*: of the element nearest to (or furthest past) its own bound.
  double max_error = 0, rms_error = 0;
  double max_bound = 0, rms_bound = 0;
  size_t rows_checked = 0, rows_total = 0;
  size_t wrong = 0;                           // elements that break the rule on their own
  std::vector<int> first_index, worst_index;  // [b, h, i, column] ([b, h, i] for LSE)
  double first_expected = 0, first_got = 0, worst_expected = 0, worst_got = 0;
  std::string pattern;  // "every row past 63 is wrong", "right up to a constant factor 2.000"; "" if none was seen
};

struct CheckResult {
  Verdict verdict = Verdict::skip;
  std::vector<TensorCheck> tensors;
  std::string message;  // for a person: one line when it passes, the whole story when it fails
};

}  // namespace flash
