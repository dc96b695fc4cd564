// The rule that tells right from wrong.
#pragma once
#include <vector>

#include "common/check/result.h"
#include "common/check/rows.h"

namespace flash {

// Fills the rows' scale, bound and wrong; the answer lacks only the pattern. `reference` is what the yardstick's errors
// are measured from: the same as rows->expected, unless that came from a file, whose values were rounded as well
// (extra_ulps).
TensorCheck judge(CheckedRows* rows, const std::vector<double>& reference, int extra_ulps = 0);

}  // namespace flash
