// Is a result right? The rule (see rule.cpp for its reasons): errors are measured against those of a plain materialised
// computation in the same precision; the largest and the RMS over the rows must both be at most twice as large, plus one
// ulp of the output type at the row's scale. The scale of a row is the RMS of its reference.
#pragma once
#include <string>
#include <vector>

#include "common/problem/problem.h"
#include "common/problem/inputs.h"

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

// Forward: O and LSE. All rows of a small problem, sampled ones of a large (the sample depends on `seed` alone).
CheckResult check_forward(const Problem&, const Inputs&, const Outputs&, uint64_t seed = 0);
// Backward: O and LSE as the run under test had them, then dQ, dK and dV.
CheckResult check_backward(const Problem&, const Inputs&, const Outputs&, uint64_t seed = 0);
// O against values from a file (./run --expect), same shape: the rule above with `expected` for the reference.
CheckResult check_expected(const Problem&, const Inputs&, const Outputs&, const std::vector<float>& expected_o);

}  // namespace flash
