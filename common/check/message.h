// What a check says to a person.
#pragma once
#include <string>
#include <vector>

#include "common/check/result.h"
#include "common/problem/problem.h"

namespace flash {

// One line if all tensors are right, else the story of each. `reference`: what they were checked against.
std::string check_message(const Problem&, const std::vector<TensorCheck>&, const std::string& reference);

}  // namespace flash
