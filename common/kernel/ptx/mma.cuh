// mma.sync.aligned.m16n8k16: C += A B for A [16, 16], B [16, 8] of 16-bit elements and C [16, 8] of fp32.
//
//   A: 4 registers a lane, 2 elements each                        B: 2 registers a lane, 2 elements each
//
//            k 0..1  2..3  4..5  6..7 | 8..9 ..                        n  0     1     2   ..   7
//   row  0 |  T0    T1    T2    T3   | T0   ..                k 0..1 |  T0    T4    T8  ..  T28  \.
//   row  1 |  T4    T5    T6    T7   | T4   ..                k 2..3 |  T1    T5    T9  ..  T29   | b[0]
//    ..    |        a[0]             |   a[2]                 k 4..5 |  T2    T6    T10 ..  T30   |
//   row  7 |  T28   T29   T30   T31  | T28  ..                k 6..7 |  T3    T7    T11 ..  T31  /.
//   -------+-------------------------+----------              -------+---------------------------
//   row  8 |  T0    T1    T2    T3   | T0   ..                k 8..9 |  T0    T4    T8  ..  T28  \.
//    ..    |        a[1]             |   a[3]                  ..    |         ..                 | b[1]
//   row 15 |  T28   T29   T30   T31  | T28  ..                k 14,15|  T3    T7    T11 ..  T31  /.
//
//   C: 4 fp32 a lane.   c[0], c[1]: row = lane / 4,     columns 2 * (lane % 4), + 1     (a lane's place in a[0])
//                       c[2], c[3]: row = lane / 4 + 8, the same columns                (a lane's place in a[1])
//
// So two C tiles side by side (columns 0..7 and 8..15), rounded to 16 bits and packed in pairs, are an A fragment:
// a = {pack(c0[0], c0[1]), pack(c0[2], c0[3]), pack(c1[0], c1[1]), pack(c1[2], c1[3])}. No lane sends anything.
// The 32 lanes of a warp call it together.
#pragma once

#include "common/kernel/ptx/instruction.cuh"

#ifndef __CUDACC__
#include "common/emu/instructions/mma.h"
#else
namespace {

template <class Element>
__device__ __forceinline__ void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
template <>
__device__ __forceinline__ void mma_m16n8k16<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4],
                                                            const uint32_t (&b)[2]) {
  PTX_SM80(
      asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
          "{%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])));
}
template <>
__device__ __forceinline__ void mma_m16n8k16<__half>(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  PTX_SM80(
      asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
          "{%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])));
}

}  // namespace
#endif
