// Is a problem too large for the machine? Asked before anything is allocated.
#pragma once
#include <cstddef>

#include "common/device/device.h"
#include "common/kernel/step.h"
#include "common/problem/problem.h"

namespace flash {

size_t available_host_bytes();  // what Linux says can be had without swapping, in this container; SIZE_MAX if unknown

// The most memory ./run has in use at once on the host: inputs, outputs and their packed copies.
size_t host_bytes(const Problem&, Direction);

// Device bytes the execution of a step takes: inputs, outputs, workspace.
size_t device_bytes(const StepInfo&, const Problem&, const Device&);

// Throws Error(kUsage) when the number of elements of a tensor doesn't fit size_t.
void require_countable(const Problem&);
// Throws Error(kNotSupported), naming the bytes, when the host or the device has too little free memory.
void require_memory(const StepInfo&, const Problem&, const Device&);

}  // namespace flash
