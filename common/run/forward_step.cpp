#include "common/run/forward_step.h"

#include "common/base/error.h"

namespace flash {

const StepInfo& forward_for(const StepInfo& backward, const Problem& p, const Device& device) {
  const StepInfo* found = nullptr;
  for (const StepInfo& candidate : linked_steps()) {
    if (candidate.direction != Direction::forward) continue;
    if (plan_for(candidate, p, device).refusal.empty()) found = &candidate;
  }
  if (!found) {
    throw Error(kNotSupported, backward.name +
                                   " needs O and the LSE from a forward step, and no forward step it is linked "
                                   "with takes " +
                                   dtype_name(p.dtype) + " with head_dim " + std::to_string(p.head_dim) + " here");
  }
  return *found;
}

}  // namespace flash
