// stmatrix.sync.aligned: ldmatrix (drawn in ldmatrix.cuh) the other way round. Stores one, two or four 8 x 8 matrices of
// 16-bit elements from fragments: `row` is this lane's address of ONE matrix row, 16 bytes, 16-byte aligned; lanes 8 i to
// 8 i + 7 name the rows of matrix i, whose elements are in the i-th register of every lane. _trans stores them transposed.
// The 32 lanes of a warp call it together.
#pragma once

#include "common/kernel/ptx/sm90.cuh"

#ifndef __CUDACC__
#include "common/emu/instructions/stmatrix.h"
#else
namespace {

#define PTX_STMATRIX(name, trans)                                                                                     \
  __device__ __forceinline__ void stmatrix_x1##name(void* row, uint32_t r0) {                                         \
    PTX_SM90(asm volatile("stmatrix.sync.aligned.m8n8.x1" trans ".shared.b16 [%0], {%1};" ::"r"(shared_address(row)), \
                          "r"(r0)                                                                                     \
                          : "memory"));                                                                               \
  }                                                                                                                   \
  __device__ __forceinline__ void stmatrix_x2##name(void* row, uint32_t r0, uint32_t r1) {                            \
    PTX_SM90(asm volatile("stmatrix.sync.aligned.m8n8.x2" trans                                                       \
                          ".shared.b16 [%0], {%1, %2};" ::"r"(shared_address(row)),                                   \
                          "r"(r0), "r"(r1)                                                                            \
                          : "memory"));                                                                               \
  }                                                                                                                   \
  __device__ __forceinline__ void stmatrix_x4##name(void* row, uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3) {  \
    PTX_SM90(asm volatile("stmatrix.sync.aligned.m8n8.x4" trans                                                       \
                          ".shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(row)),                           \
                          "r"(r0), "r"(r1), "r"(r2), "r"(r3)                                                          \
                          : "memory"));                                                                               \
  }
PTX_STMATRIX(, "")
PTX_STMATRIX(_trans, ".trans")
#undef PTX_STMATRIX

}  // namespace
#endif
