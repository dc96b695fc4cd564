// The instructions of common/kernel/ptx.cuh on the CPU back end: the same functions, the same lanes, the same bits. What each
// does is drawn in ptx.cuh. Included by kernel files, through ptx.cuh; operands go to the emulation by value, so that a
// kernel's fragments stay locals which the watcher doesn't see.
#pragma once
#include <cstdint>
#include <type_traits>

#include "common/emu/instructions/cuda_emu.h"

namespace flash::emu {

struct Registers {
  uint32_t r[4];
};
struct Accumulators {
  float c[4];
};
struct MmaOperands {
  uint32_t a[4], b[2];
};

// `bf16`: the elements' type; else fp16.
Accumulators mma_m16n8k16(bool bf16, Accumulators c, MmaOperands operands, const char* file, int line);
Registers ldmatrix(int matrices, bool transposed, const void* row, const char* file, int line);
// Until the thread's wait that covers it a copy has not landed: the destination keeps its old bytes. With EMU_SEED set
// some land at once, some when their group is committed, some at the wait.
void cp_async(void* shared, const void* global, int bytes, int source_bytes, const char* file, int line);
void cp_async_commit();
void cp_async_wait(int groups_in_flight);
uint32_t pack_pair(bool bf16, float low, float high);
float unpack_one(bool bf16, uint32_t packed, int which);

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

template <int kBytes>
EMU_INLINE void cp_async(void* shared, const void* global, bool valid = true, const char* file = __builtin_FILE(),
                         int line = __builtin_LINE()) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
  flash::emu::cp_async(shared, global, kBytes, valid ? kBytes : 0, file, line);
}
EMU_INLINE void cp_async_commit() { flash::emu::cp_async_commit(); }
template <int kGroupsInFlight>
EMU_INLINE void cp_async_wait() {
  flash::emu::cp_async_wait(kGroupsInFlight);
}

template <class Element>
EMU_INLINE uint32_t pack(float low, float high) {
  return flash::emu::pack_pair(std::is_same<Element, __nv_bfloat16>::value, low, high);
}

template <class Element>
EMU_INLINE float2 unpack(uint32_t packed) {
  constexpr bool bf16 = std::is_same<Element, __nv_bfloat16>::value;
  return make_float2(flash::emu::unpack_one(bf16, packed, 0), flash::emu::unpack_one(bf16, packed, 1));
}

EMU_INLINE float ex2(float x, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return flash::emu::counted_exp2f(x, file, line);
}

}  // namespace
