// ptx/mma.cuh on the CPU back end: the same lanes, the same bits. Operands go by value, so that a
// kernel's fragments stay locals which the watcher doesn't see.
#pragma once
#include <cstdint>
#include <type_traits>

#include "common/emu/instructions/cuda_emu.h"

namespace flash::emu {

struct Accumulators {
  float c[4];
};
struct MmaOperands {
  uint32_t a[4], b[2];
};
// `bf16`: the elements' type; else fp16.
Accumulators mma_m16n8k16(bool bf16, Accumulators c, MmaOperands operands, const char* file, int line);

}  // namespace flash::emu

namespace {

template <class Element>
EMU_INLINE void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                             const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  const flash::emu::Accumulators d =
      flash::emu::mma_m16n8k16(std::is_same<Element, __nv_bfloat16>::value, {{c[0], c[1], c[2], c[3]}},
                               {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, file, line);
  c[0] = d.c[0], c[1] = d.c[1], c[2] = d.c[2], c[3] = d.c[3];
}

}  // namespace
