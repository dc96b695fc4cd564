// cp.async: copy kBytes (4, 8 or 16; both addresses aligned to it) from global to shared memory without passing through
// registers and without waiting. Where `valid` is false nothing is read and the destination is filled with zeros: the
// source must still be an address in the array, not past its end. 16-byte copies go past L1 (.cg), smaller ones can't.
//
//   cp_async<16>(...); cp_async<16>(...);  cp_async_commit();      // group 0: the copies since the last commit
//   cp_async<16>(...);                     cp_async_commit();      // group 1
//   cp_async_wait<1>();                                            // all but this thread's newest 1 group have landed
//
// Groups and waits are a thread's own: a __syncthreads after the wait shows the landed bytes to the other threads.
#pragma once

#include "common/kernel/ptx/instruction.cuh"

#ifndef __CUDACC__
#include "common/emu/instructions/cp_async.h"
#else
namespace {

template <int kBytes>
__device__ __forceinline__ void cp_async(void* shared, const void* global, bool valid = true) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
  if constexpr (kBytes == 16) {
    PTX_SM80(asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                          "r"(valid ? kBytes : 0)
                          : "memory"));
  } else {
    PTX_SM80(asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)), "l"(global),
                          "n"(kBytes), "r"(valid ? kBytes : 0)
                          : "memory"));
  }
}
__device__ __forceinline__ void cp_async_commit() { PTX_SM80(asm volatile("cp.async.commit_group;" ::: "memory")); }
template <int kGroupsInFlight>
__device__ __forceinline__ void cp_async_wait() {
  PTX_SM80(asm volatile("cp.async.wait_group %0;" ::"n"(kGroupsInFlight) : "memory"));
}

}  // namespace
#endif
