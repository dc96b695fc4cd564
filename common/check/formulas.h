// Wrong formulas that explain a wrong result: wrong rows are recomputed in double precision with one thing changed (a
// causal edge, a head's mapping, a scale, ...), and the change that explains them is named.
#pragma once
#include <string>
#include <vector>

#include "common/check/result.h"
#include "common/check/rows.h"
#include "common/problem/inputs.h"

namespace flash {

// "the wrong rows are what comes out if ..."; "" if no formula explains them. `wrong`: positions in t.rows.
std::string explain_by_formula(const Problem&, const Inputs&, const Outputs&, const CheckedRows& t,
                               const std::vector<size_t>& wrong);

// The largest score of row (b, h, i); -inf if it sees no key.
double largest_score(const Problem&, const Inputs&, const RowIndex& row);

}  // namespace flash
