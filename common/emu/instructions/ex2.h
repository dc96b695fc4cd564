// ptx/ex2.cuh on the CPU back end.
#pragma once
#include "common/emu/instructions/cuda_emu.h"

namespace {

EMU_INLINE float ex2(float x, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return flash::emu::counted_exp2f(x, file, line);
}

}  // namespace
