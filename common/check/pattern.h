// Words about a wrong tensor, for the person who has to find the mistake.
#pragma once
#include <string>

#include "common/check/result.h"
#include "common/check/rows.h"
#include "common/problem/inputs.h"

namespace flash {

// Where the wrong elements are and what they look like, in one sentence or two; "" if nothing stands out.
std::string find_pattern(const Problem&, const Inputs&, const Outputs&, const CheckedRows&);

}  // namespace flash
