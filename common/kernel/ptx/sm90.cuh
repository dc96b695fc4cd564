// What Hopper's instructions share: below compute capability 9.0 they trap (steps that use them refuse such a card).
#pragma once

#include "common/kernel/ptx/instruction.cuh"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define PTX_SM90(instruction) __trap()
#else
#define PTX_SM90(instruction) instruction
#endif

// Of sm_90a alone (wgmma, setmaxnreg): other targets don't even assemble it.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define PTX_SM90A(instruction) instruction
#else
#define PTX_SM90A(instruction) __trap()
#endif
