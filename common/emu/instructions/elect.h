// ptx/elect.cuh on the CPU back end: the lowest lane that hasn't returned.
#pragma once

#include "common/emu/instructions/cuda_emu.h"

namespace flash::emu {

bool elect_one(const char* file, int line);

}  // namespace flash::emu

namespace {

EMU_INLINE bool elect_one(EMU_CALL_SITE) { return flash::emu::elect_one(file, line); }

}  // namespace
