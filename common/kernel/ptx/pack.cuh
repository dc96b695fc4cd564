// Two floats to two 16-bit elements in one register, rounded to nearest even: `low` in bits 0..15, `high` in 16..31.
// unpack() goes back, exactly: x is the element in bits 0..15, y the one in 16..31.
#pragma once

#include "common/kernel/ptx/instruction.cuh"

#ifndef __CUDACC__
#include "common/emu/instructions/pack.h"
#else
namespace {

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

}  // namespace
#endif
