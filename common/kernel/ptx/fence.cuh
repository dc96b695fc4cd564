// Fences between the two ways to memory. Ordinary loads and stores (and ldmatrix, stmatrix, cp.async) go one way, the
// "generic proxy"; the copy engine (tma.cuh) and wgmma's operands in shared memory go another, the "async proxy". What
// went the one way needn't be seen by who comes the other, however well the threads are synchronised:
//
//   tile[i] = x;  fence_async();  __syncthreads();  if (t == 0) tma_store(&map, tile, ...);
//
// Each thread that wrote fences; then the threads synchronise; then one of them starts the copy. The other direction
// needs none: who waited for a copy's mbarrier sees what it brought.
//
// Each thread calls these for itself.
#pragma once

#include "common/kernel/ptx/sm90.cuh"

#ifndef __CUDACC__
#include "common/emu/instructions/fence.h"
#else
namespace {

// For shared memory.
__device__ __forceinline__ void fence_async() { PTX_SM90(asm volatile("fence.proxy.async.shared::cta;" ::: "memory")); }
// For global memory: what this kernel wrote and the engine will read.
__device__ __forceinline__ void fence_async_global() {
  PTX_SM90(asm volatile("fence.proxy.async.global;" ::: "memory"));
}
// The mbarriers that this thread has initialised, for the copies that will count their bytes there.
__device__ __forceinline__ void mbarrier_init_fence() {
  PTX_SM90(asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"));
}

}  // namespace
#endif
