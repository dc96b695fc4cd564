// ex2.approx.ftz.f32: 2^x with two ulp of error, one instruction of the special function unit (16 a clock and SM).
// ex2(-inf) is 0.
#pragma once

#include "common/kernel/ptx/instruction.cuh"

#ifndef __CUDACC__
#include "common/emu/instructions/ex2.h"
#else
namespace {

__device__ __forceinline__ float ex2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace
#endif
