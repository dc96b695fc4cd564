// setmaxnreg: a warpgroup (four warps) gives registers away, or takes more. ptxas deals every thread of a kernel the same
// number; but threads that only start copies need few, and those that hold accumulators many. With
// __launch_bounds__(384, 1) an SM's 65536 registers are 168 a thread:
//
//                   at the launch                                                   afterwards
//   warpgroup 0     168 |#################|        registers_down_to<24>()           24 |##|
//   warpgroup 1     168 |#################|        registers_up_to<240>()           240 |########################|
//   warpgroup 2     168 |#################|        registers_up_to<240>()           240 |########################|
//   3 x 168 = 504                                                                   24 + 240 + 240 = 504
//
// What is given away goes to a pool of the block, and who takes waits until the pool has enough. There is no more than the
// block got at its launch: with 32 in the place of 24 the last one waits for ever.
//
// The numbers are multiples of 8 from 24 to 256. All four warps of the warpgroup call the same one. The kernel needs its
// __launch_bounds__: without, ptxas ignores these, and says so. New registers hold nothing yet. Needs sm_90a.
#pragma once

#include "common/kernel/ptx/sm90.cuh"

#ifndef __CUDACC__
#include "common/emu/instructions/setmaxnreg.h"
#else
namespace {

template <int kRegisters>
__device__ __forceinline__ void registers_down_to() {
  PTX_SM90A(asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters)));
}
template <int kRegisters>
__device__ __forceinline__ void registers_up_to() {
  PTX_SM90A(asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters)));
}

}  // namespace
#endif
