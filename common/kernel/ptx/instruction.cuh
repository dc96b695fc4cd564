// ptx/ has one function a PTX instruction, one file a family. Under nvcc each is that instruction; on the CPU back end it
// calls the file of the same name in common/emu/instructions/, which moves the same values between the same lanes. Here
// is what the files share.
//
// Words. A *fragment* is a lane's share of a small matrix: a few 32-bit registers, each holding two 16-bit elements
// (the one with the lower index in the lower half) or one fp32. Whose share is what is the *lane map*; in the drawings
// "T5" is lane 5 and (row, column) names an element. lane / 4 is the lane's *group*, lane % 4 its place in it, *t*.
#pragma once
#include <cstdint>

#include "common/kernel/cuda.cuh"

// Needs compute capability 8.0; below that it traps (steps that use it refuse such a card).
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define PTX_SM80(instruction) __trap()
#else
#define PTX_SM80(instruction) instruction
#endif

#ifdef __CUDACC__
namespace {

// Where `p` points to in shared memory, as the instructions name it.
__device__ __forceinline__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

}  // namespace
#endif
