// Ring: where one side, the producer or a consumer, is in a ring of buffers that have an mbarrier `full` and one `empty`
// each. ptx/mbarrier.cuh draws such a ring.
//
//   producer   Ring<2> ring(full, empty, 1)   wait_empty()   expect(bytes), a copy to it   next()
//   consumer   Ring<2> ring(full, empty, 0)   wait_full()    reads it            release()      next()
#pragma once

#include "common/kernel/ptx/mbarrier.cuh"

namespace {

template <int kCount>
struct Ring {
  uint64_t* const full_barriers;
  uint64_t* const empty_barriers;
  uint32_t parity;  // of the phase to wait for: flips when the ring has been round
  int buffer = 0;

  // first_parity: 1 for the producer, who finds empty buffers, 0 for consumers.
  __device__ __forceinline__ Ring(uint64_t (&full)[kCount], uint64_t (&empty)[kCount], uint32_t first_parity)
      : full_barriers(full), empty_barriers(empty), parity(first_parity) {}

  __device__ __forceinline__ uint64_t* full() { return &full_barriers[buffer]; }
  __device__ __forceinline__ void wait_empty() { mbarrier_wait(&empty_barriers[buffer], parity); }
  __device__ __forceinline__ void expect(uint32_t bytes) { mbarrier_arrive_expect(full(), bytes); }
  __device__ __forceinline__ void wait_full() { mbarrier_wait(full(), parity); }
  __device__ __forceinline__ void release() { mbarrier_arrive(&empty_barriers[buffer]); }
  __device__ __forceinline__ void next() {
    buffer = buffer + 1 == kCount ? 0 : buffer + 1;
    if (buffer == 0) parity ^= 1;
  }
};

// By one thread: a buffer is full when one thread has arrived and the bytes are there, empty after so many releases.
template <int kCount>
__device__ __forceinline__ void init_ring(uint64_t (&full)[kCount], uint64_t (&empty)[kCount], uint32_t releases) {
  for (int i = 0; i < kCount; ++i) {
    mbarrier_init(&full[i], 1);
    mbarrier_init(&empty[i], releases);
  }
}

}  // namespace
