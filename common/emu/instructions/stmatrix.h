// ptx/stmatrix.cuh on the CPU back end.
#pragma once

#include "common/emu/instructions/cuda_emu.h"

namespace flash::emu {

void stmatrix(int matrices, bool transposed, void* row, uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3,
              const char* file, int line);

}  // namespace flash::emu

namespace {

#define EMU_STMATRIX(name, transposed)                                                                              \
  EMU_INLINE void stmatrix_x1##name(void* row, uint32_t r0, EMU_CALL_SITE) {                                        \
    flash::emu::stmatrix(1, transposed, row, r0, 0, 0, 0, file, line);                                              \
  }                                                                                                                 \
  EMU_INLINE void stmatrix_x2##name(void* row, uint32_t r0, uint32_t r1, EMU_CALL_SITE) {                           \
    flash::emu::stmatrix(2, transposed, row, r0, r1, 0, 0, file, line);                                             \
  }                                                                                                                 \
  EMU_INLINE void stmatrix_x4##name(void* row, uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3, EMU_CALL_SITE) { \
    flash::emu::stmatrix(4, transposed, row, r0, r1, r2, r3, file, line);                                           \
  }
EMU_STMATRIX(, false)
EMU_STMATRIX(_trans, true)
#undef EMU_STMATRIX

}  // namespace
