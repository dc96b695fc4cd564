// setmaxnreg: the warps of a warpgroup give registers back, or take some of those given back, down or up to kRegisters a
// thread. Stand-in until the real one comes.
#pragma once

#include "common/kernel/ptx/sm90.cuh"

namespace {

#ifdef __CUDACC__
template <int kRegisters>
__device__ __forceinline__ void registers_give() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}
template <int kRegisters>
__device__ __forceinline__ void registers_take() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}
#else
template <int kRegisters>
EMU_INLINE void registers_give() {}
template <int kRegisters>
EMU_INLINE void registers_take() {}
#endif

}  // namespace
