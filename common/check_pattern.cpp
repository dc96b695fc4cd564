#include "common/check_pattern.h"

namespace flash {

std::string find_pattern(const Problem&, const Inputs&, const CheckedRows&) { return ""; }

}  // namespace flash
