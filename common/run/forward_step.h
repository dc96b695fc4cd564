// Which forward step gives a backward one its O and LSE.
#pragma once
#include "common/kernel/step.h"

namespace flash {

// The last linked forward step that takes the problem on the device. Throws kNotSupported where none does.
const StepInfo& forward_for(const StepInfo& backward, const Problem&, const Device&);

}  // namespace flash
