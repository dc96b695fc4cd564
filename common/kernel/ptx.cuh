// The instructions of steps 05 and 06: one function a PTX instruction. Under nvcc each is that instruction; on the CPU
// back end it calls common/emu/instructions/ptx_emu.h, which moves the same values between the same lanes.
//
// Words. A *fragment* is a lane's share of a small matrix: a few 32-bit registers, each holding two 16-bit elements
// (the one with the lower index in the lower half) or one fp32. Whose share is what is the *lane map*; in the drawings
// below "T5" is lane 5 and (row, column) names an element. lane / 4 is the lane's *group*, lane % 4 its *quad lane*.
//
// All of them are warp-wide: the 32 lanes of a warp call them together, except cp_async*, which each thread calls for
// itself. mma and cp.async need compute capability 8.0; below that they trap (steps that use them refuse such a card).
#pragma once

#include "common/kernel/cuda.cuh"

#ifndef __CUDACC__
#include "common/emu/instructions/ptx_emu.h"
#endif

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define PTX_SM80(instruction) __trap()
#else
#define PTX_SM80(instruction) instruction
#endif

namespace {

// ---------------------------------------------------------------------------------------------------------------------
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
#ifdef __CUDACC__
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
#endif

// ---------------------------------------------------------------------------------------------------------------------
// ldmatrix.sync.aligned: load one, two or four 8 x 8 matrices of 16-bit elements from shared memory, straight into
// fragment order. `row` is this lane's address of ONE matrix row, 16 bytes, 16-byte aligned:
//
//   lane  0..7    names rows 0..7 of matrix 0  ->  r[0] of every lane        x1 uses the addresses of lanes 0..7,
//   lane  8..15   names rows 0..7 of matrix 1  ->  r[1] of every lane        x2 of lanes 0..15, x4 of all; the other
//   lane 16..23   names rows 0..7 of matrix 2  ->  r[2] of every lane        lanes' addresses are ignored.
//   lane 24..31   names rows 0..7 of matrix 3  ->  r[3] of every lane
//
//   as stored:       what a lane gets:       without .trans                          with .trans
//   8 rows           column    0..1   2..3   4..5   6..7         column     0     1     2   ..   7
//   of 8        row 0 |        T0     T1     T2     T3           row 0..1   T0    T4    T8  ..   T28
//   elements    row 1 |        T4     T5     T6     T7           row 2..3   T1    T5    T9  ..   T29
//                ..   |                                          row 4..5   T2    T6    T10 ..   T30
//               row 7 |        T28    T29    T30    T31          row 6..7   T3    T7    T11 ..   T31
//
// Without .trans a lane's pair lies along a row of memory, with .trans down a column: .trans reads a row-major V as
// the B operand, whose pairs run along k (the keys), the rows of V. The eight 16-byte rows of one matrix are fetched
// together: they are free of bank conflicts if they fall into eight different 16-byte columns of the 128-byte line.
//
// In ldmatrix_x4 the four are taken for one A fragment, a[4] (16 x 16), or two neighbouring B fragments, b[2][2].
#ifdef __CUDACC__
__device__ __forceinline__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

__device__ __forceinline__ void ldmatrix_x1(uint32_t& r0, const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r0) : "r"(shared_address(row)));
}
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row)));
}
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&a)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
               : "r"(shared_address(row)));
}
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&b)[2][2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(b[0][0]), "=r"(b[0][1]), "=r"(b[1][0]), "=r"(b[1][1])
               : "r"(shared_address(row)));
}

__device__ __forceinline__ void ldmatrix_x1_trans(uint32_t& r0, const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(r0) : "r"(shared_address(row)));
}
__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row)));
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&a)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
               : "r"(shared_address(row)));
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&b)[2][2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(b[0][0]), "=r"(b[0][1]), "=r"(b[1][0]), "=r"(b[1][1])
               : "r"(shared_address(row)));
}
#endif

// ---------------------------------------------------------------------------------------------------------------------
// cp.async: copy kBytes (4, 8 or 16; both addresses aligned to it) from global to shared memory without passing through
// registers and without waiting. Where `valid` is false nothing is read and the destination is filled with zeros: the
// source must still be an address in the array, not past its end. 16-byte copies go past L1 (.cg), smaller ones can't.
//
//   cp_async<16>(...); cp_async<16>(...);  cp_async_commit();      // group 0: the copies since the last commit
//   cp_async<16>(...);                     cp_async_commit();      // group 1
//   cp_async_wait<1>();                                            // all but this thread's newest 1 group have landed
//
// Groups and waits are a thread's own: a __syncthreads after the wait shows the landed bytes to the other threads.
#ifdef __CUDACC__
template <int kBytes>
__device__ __forceinline__ void cp_async(void* shared, const void* global, bool valid = true) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
  if constexpr (kBytes == 16) {
    PTX_SM80(asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                          "r"(valid ? kBytes : 0)
                          : "memory"));
  } else {
    PTX_SM80(asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)), "l"(global),
                          "n"(kBytes), "r"(valid ? kBytes : 0)
                          : "memory"));
  }
}
__device__ __forceinline__ void cp_async_commit() { PTX_SM80(asm volatile("cp.async.commit_group;" ::: "memory")); }
template <int kGroupsInFlight>
__device__ __forceinline__ void cp_async_wait() {
  PTX_SM80(asm volatile("cp.async.wait_group %0;" ::"n"(kGroupsInFlight) : "memory"));
}
#endif

// ---------------------------------------------------------------------------------------------------------------------
// Two floats to two 16-bit elements in one register, rounded to nearest even: `low` in bits 0..15, `high` in 16..31.
// unpack() goes back, exactly: x is the element in bits 0..15, y the one in 16..31.
#ifdef __CUDACC__
template <class Element>
__device__ __forceinline__ uint32_t pack(float low, float high);
template <class Element>
__device__ __forceinline__ float2 unpack(uint32_t packed);

template <>
__device__ __forceinline__ uint32_t pack<__nv_bfloat16>(float low, float high) {
  uint32_t packed = 0;
  PTX_SM80(asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low)));
  return packed;
}
template <>
__device__ __forceinline__ uint32_t pack<__half>(float low, float high) {
  uint32_t packed = 0;
  PTX_SM80(asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low)));
  return packed;
}

template <>
__device__ __forceinline__ float2 unpack<__nv_bfloat16>(uint32_t packed) {
  return make_float2(__uint_as_float(packed << 16), __uint_as_float(packed & 0xffff0000u));
}
template <>
__device__ __forceinline__ float2 unpack<__half>(uint32_t packed) {
  float2 x;
  asm("{.reg .b16 low, high; mov.b32 {low, high}, %2; cvt.f32.f16 %0, low; cvt.f32.f16 %1, high;}"
      : "=f"(x.x), "=f"(x.y)
      : "r"(packed));
  return x;
}

// ex2.approx.ftz.f32: 2^x with two ulp of error, one instruction of the special function unit (16 a clock and SM).
// ex2(-inf) is 0.
__device__ __forceinline__ float ex2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#endif

}  // namespace

#undef PTX_SM80
