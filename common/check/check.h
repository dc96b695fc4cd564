// check/ answers one question: is a result right, and if not, why? rule.cpp judges, sample.cpp chooses rows, expected.cpp
// and materialised.cpp say what should have come out, pattern.cpp, formulas.cpp and message.cpp find the words.
//
// Is a result right? The rule (see rule.cpp for its reasons): errors are measured against those of a plain materialised
// computation in the same precision; the largest and the RMS over the rows must both be at most twice as large, plus one
// ulp of the output type at the row's scale. The scale of a row is the RMS of its reference.
#pragma once
#include <cstdint>
#include <vector>

#include "common/check/result.h"
#include "common/problem/inputs.h"
#include "common/problem/problem.h"

namespace flash {

// Forward: O and LSE. All rows of a small problem, sampled ones of a large (the sample depends on `seed` alone).
CheckResult check_forward(const Problem&, const Inputs&, const Outputs&, uint64_t seed = 0);
// Backward: O and LSE as the run under test had them, then dQ, dK and dV.
CheckResult check_backward(const Problem&, const Inputs&, const Outputs&, uint64_t seed = 0);
// O against values from a file (./run --expect), same shape: the rule above with `expected` for the reference.
CheckResult check_expected(const Problem&, const Inputs&, const Outputs&, const std::vector<float>& expected_o);

}  // namespace flash
