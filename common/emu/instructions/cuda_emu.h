// emu/instructions/ has what a kernel calls: CUDA's own names (this header and those it includes) and, one file a family, the
// PTX instructions of common/kernel/ptx/.
//
// CUDA C++ for g++: what common/kernel/cuda.cuh includes where nvcc isn't the compiler. Kernel files alone include it. Functions
// here are always inlined or live elsewhere: a watched and an unwatched copy of one function never meet in a link.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "common/device/device.h"
#include "common/emu/instructions/half_types.h"
#include "common/emu/instructions/math.h"
#include "common/emu/instructions/primitives.h"
#include "common/emu/instructions/vector_types.h"
#include "common/emu/run/launch.h"

#pragma GCC diagnostic ignored "-Wunknown-pragmas"  // #pragma unroll

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__  // empty: standard headers that are included later say __attribute__((__noinline__))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))
// One copy an OS thread, which runs one block at a time; filled with NaN for each block (symbols.h finds it).
#define __shared__ static thread_local
#ifndef __restrict__
#define __restrict__ __restrict
#endif

// The value can't change while a thread runs, so g++ may call once and keep it.
#define threadIdx (flash::emu::unpack_block(flash::emu::packed_thread_idx()))
#define blockDim (flash::emu::unpack_block(flash::emu::packed_block_dim()))
#define blockIdx (flash::emu::unpack_grid(flash::emu::packed_block_idx()))
#define gridDim (flash::emu::unpack_grid(flash::emu::packed_grid_dim()))

namespace flash::emu {

EMU_INLINE uint3 unpack_block(uint64_t packed) {
  return uint3{unsigned(packed & 0xffff), unsigned(packed >> 16 & 0xffff), unsigned(packed >> 32)};
}
EMU_INLINE uint3 unpack_grid(uint64_t packed) {
  return uint3{unsigned(packed & 0xffffffff), unsigned(packed >> 32 & 0xffff), unsigned(packed >> 48)};
}

}  // namespace flash::emu

namespace {

constexpr int warpSize = 32;

// See the CUDA launch() in common/cuda.cuh. Runs the kernel to its end; what it did wrong is thrown from here.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, flash::Stream /*stream*/,
            Arguments... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments), "one argument for each parameter of the kernel");
  // Not instrumented: reading the arguments isn't the kernel's doing.
  auto call = [&]() __attribute__((no_sanitize("thread"))) { kernel(static_cast<Parameters>(arguments)...); };
  flash::emu::Configuration configuration;
  configuration.kernel = reinterpret_cast<const void*>(kernel);
  configuration.grid = {grid.x, grid.y, grid.z};
  configuration.block = {block.x, block.y, block.z};
  configuration.shared_bytes = shared_bytes;
  configuration.watched = FLASH_WATCH != 0;
  auto thread_body = [](void* argument) __attribute__((no_sanitize("thread"))) {
    (*static_cast<decltype(call)*>(argument))();
  };
  flash::emu::run_grid(configuration, thread_body, &call);
}

template <class T>
EMU_INLINE T* dynamic_shared() {
  return static_cast<T*>(__builtin_assume_aligned(flash::emu::dynamic_shared_memory(), 1024));
}

}  // namespace
