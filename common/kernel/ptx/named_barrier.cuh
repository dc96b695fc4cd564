// bar.sync and bar.arrive: barriers 1 to 15 of a block (0 is __syncthreads()), each for as many threads as is said, a
// multiple of 32. sync waits until so many have arrived, itself included; arrive goes on at once. All who use a barrier
// name the same number, and whole warps call it.
//
//   warps 0..3   fill a buffer   named_arrive(1, 256)   go on
//   warps 4..7   other work      named_sync(1, 256)     read the buffer
#pragma once

#include "common/kernel/ptx/sm90.cuh"

#ifndef __CUDACC__
#include "common/emu/instructions/named_barrier.h"
#else
namespace {

__device__ __forceinline__ void named_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

}  // namespace
#endif
