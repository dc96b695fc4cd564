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
// The 32 lanes of a warp call it together.
#pragma once

#include "common/kernel/ptx/instruction.cuh"

#ifndef __CUDACC__
#include "common/emu/instructions/ldmatrix.h"
#else
namespace {

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

}  // namespace
#endif
