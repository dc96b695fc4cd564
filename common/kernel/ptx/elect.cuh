// elect.sync: true in one lane of the warp, false in the others. The compiler knows that it is one lane, which it
// doesn't of `lane == 0`. The 32 lanes of a warp call it together.
#pragma once

#include "common/kernel/ptx/sm90.cuh"

#ifndef __CUDACC__
#include "common/emu/instructions/elect.h"
#else
namespace {

__device__ __forceinline__ bool elect_one() {
  uint32_t elected = 0;
  PTX_SM90(asm volatile("{.reg .pred p; elect.sync _|p, 0xffffffff; selp.u32 %0, 1, 0, p;}" : "=r"(elected)));
  return elected != 0;
}

}  // namespace
#endif
