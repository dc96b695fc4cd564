// ptx/ldmatrix.cuh on the CPU back end: the same lanes, the same bits. Operands go by value, so that a
// kernel's fragments stay locals which the watcher doesn't see.
#pragma once
#include <cstdint>

#include "common/emu/instructions/cuda_emu.h"

namespace flash::emu {

struct Registers {
  uint32_t r[4];
};
Registers ldmatrix(int matrices, bool transposed, const void* row, const char* file, int line);

}  // namespace flash::emu

namespace {

#define EMU_LDMATRIX(name, transposed)                                                                        \
  EMU_INLINE void ldmatrix_x1##name(uint32_t& r0, const void* row, const char* file = __builtin_FILE(),       \
                                    int line = __builtin_LINE()) {                                            \
    r0 = flash::emu::ldmatrix(1, transposed, row, file, line).r[0];                                           \
  }                                                                                                           \
  EMU_INLINE void ldmatrix_x2##name(uint32_t(&r)[2], const void* row, const char* file = __builtin_FILE(),    \
                                    int line = __builtin_LINE()) {                                            \
    const flash::emu::Registers loaded = flash::emu::ldmatrix(2, transposed, row, file, line);                \
    r[0] = loaded.r[0], r[1] = loaded.r[1];                                                                   \
  }                                                                                                           \
  EMU_INLINE void ldmatrix_x4##name(uint32_t(&a)[4], const void* row, const char* file = __builtin_FILE(),    \
                                    int line = __builtin_LINE()) {                                            \
    const flash::emu::Registers loaded = flash::emu::ldmatrix(4, transposed, row, file, line);                \
    a[0] = loaded.r[0], a[1] = loaded.r[1], a[2] = loaded.r[2], a[3] = loaded.r[3];                           \
  }                                                                                                           \
  EMU_INLINE void ldmatrix_x4##name(uint32_t(&b)[2][2], const void* row, const char* file = __builtin_FILE(), \
                                    int line = __builtin_LINE()) {                                            \
    const flash::emu::Registers loaded = flash::emu::ldmatrix(4, transposed, row, file, line);                \
    b[0][0] = loaded.r[0], b[0][1] = loaded.r[1], b[1][0] = loaded.r[2], b[1][1] = loaded.r[3];               \
  }
EMU_LDMATRIX(, false)
EMU_LDMATRIX(_trans, true)
#undef EMU_LDMATRIX

}  // namespace
