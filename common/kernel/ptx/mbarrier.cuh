// mbarrier: a barrier that is 8 bytes of shared memory (a uint64_t, never read or written itself) and counts, phase for
// phase, arrivals of threads and bytes of copies. A phase ends when all arrivals that it was initialised for have come
// *and* as many bytes as were announced in it; the next begins at once.
//
//                  | phase 0, parity 0          | phase 1, parity 1          | phase 2, parity 0 ..
//   arrivals       | 1 of 1                     | 0 of 1   1 of 1            |
//   bytes          | 0 of 16384 .. 16384        |          0 .. 16384        |
//                                               ^ wait(parity 0) returns     ^ wait(parity 1) returns
//
// A wait names a parity, and returns once the phase of that parity has ended. Of a fresh mbarrier the phase of parity 1
// counts as ended: who waits for a buffer to be *empty* starts with parity 1 and goes straight through.
//
// A ring of two buffers, `full` and `empty` each an mbarrier a buffer (tile n in buffer n % 2):
//
//   producer   empty[0] 1   load 0   empty[1] 1   load 1   empty[0] 0   load 2   empty[1] 0   load 3   empty[0] 1 ..
//   (waits for)     passes                passes             ^ as 0 is released     ^ as 1 is released
//   consumer                 full[0] 0   use 0, release   full[1] 0   use 1, release   full[0] 1   use 2, release ..
//
// Both flip their parity when the buffer's number wraps to 0; the producer starts at 1, the consumer at 0.
//
// An arrival shows what its thread did, and what that thread knows of others, to all who wait for the phase. It doesn't
// speak for the other lanes of the warp: a __syncwarp() before one lane's arrival does.
//
// Each thread calls these for itself.
#pragma once

#include "common/kernel/ptx/sm90.cuh"

#ifndef __CUDACC__
#include "common/emu/instructions/mbarrier.h"
#else
namespace {

// By one thread, once. Then mbarrier_init_fence() (fence.cuh) and a __syncthreads(), before anybody uses it.
__device__ __forceinline__ void mbarrier_init(uint64_t* barrier, uint32_t arrivals) {
  PTX_SM90(asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals)
                        : "memory"));
}
// Its bytes may be used for something else.
__device__ __forceinline__ void mbarrier_inval(uint64_t* barrier) {
  PTX_SM90(asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(shared_address(barrier)) : "memory"));
}

__device__ __forceinline__ void mbarrier_arrive(uint64_t* barrier) {
  PTX_SM90(asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory"));
}
// This phase waits for `bytes` more bytes as well; and arrives.
__device__ __forceinline__ void mbarrier_arrive_expect(uint64_t* barrier, uint32_t bytes) {
  PTX_SM90(
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                   : "memory"));
}
// The same without the arrival.
__device__ __forceinline__ void mbarrier_expect(uint64_t* barrier, uint32_t bytes) {
  PTX_SM90(
      asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                   : "memory"));
}

// Has the phase of this parity ended? Waits a while before it says no.
__device__ __forceinline__ bool mbarrier_try_wait(uint64_t* barrier, uint32_t parity) {
  uint32_t ended = 0;
  PTX_SM90(asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                        : "=r"(ended)
                        : "r"(shared_address(barrier)), "r"(parity)
                        : "memory"));
  return ended != 0;
}
__device__ __forceinline__ void mbarrier_wait(uint64_t* barrier, uint32_t parity) {
  while (!mbarrier_try_wait(barrier, parity)) {
  }
}

}  // namespace
#endif
