// Places in the program: an instruction's address, or the file and line a primitive was called from. A site is a small
// number; its file and line are looked up when a report is made, by one addr2line (of g++'s binutils) that is started
// once and asked through pipes.
#pragma once
#include <cstdint>

#include "common/device/counts.h"
#include "common/emu/run/runtime.h"

namespace flash::emu {

constexpr uint32_t kSiteBits = 17;  // sites fit shadow memory's cells; later ones than 2^17 share the last number

uint32_t site_number(CallSite place);  // the same place gives the same number; 0 is "not known"

// File and line of a site, {"?", 0} if they can't be found. Of an instruction in an inlined function, the innermost
// caller outside common/emu and common/kernel: the line of the kernel, not of a vector type's copy.
// A file below the current directory is named from there.
Site resolve_site(uint32_t number);

// The instruction belongs to the copy of one of CUDA's vector types (vector_types.h, half_types.h).
bool is_vector_copy(uint32_t number);

}  // namespace flash::emu
