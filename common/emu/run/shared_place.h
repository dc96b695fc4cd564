// Addresses in a block's shared memory.
#pragma once
#include <string>

#include "common/emu/run/runtime.h"

namespace flash::emu {

// Do all of the bytes lie in the block's dynamic shared memory or in one of its __shared__ arrays?
bool in_shared_memory(const Block&, const void* address, size_t bytes);

// "full[1]" for an element of a __shared__ array, "byte 24 of the dynamic shared memory" for others.
std::string shared_name(const Block&, const void* address, size_t element_bytes);

}  // namespace flash::emu
