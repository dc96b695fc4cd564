// What a kernel file includes. The same file compiles with nvcc for a GPU and with g++ for the CPU back end
// (common/emu), so a kernel
//   - is started by launch(kernel, grid, block, shared_bytes, stream, args...),
//   - takes dynamic shared memory from dynamic_shared<T>(),
//   - aligns shared arrays with __align__(16) and copies vector types by value (float4 v = p[i]),
//   - holds no raw asm: instructions live in common/kernel/ptx.
// Only kernel files include this header: everything in it has internal linkage, so that a watched and an unwatched
// build of one inline function never meet in a link.
#pragma once

#include <string>

#include "common/base/error.h"
#include "common/device/device.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#else
#include "common/emu/instructions/cuda_emu.h"
#endif

namespace {

constexpr int kWarpSize = 32;

__host__ __device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

#ifdef __CUDACC__

// Every CUDA call goes through this: what failed, where, and what CUDA says about it.
#define CUDA_CHECK(call)                                                                                          \
  do {                                                                                                            \
    const cudaError_t status_ = (call);                                                                           \
    if (status_ != cudaSuccess) {                                                                                 \
      throw flash::Error(flash::kDeviceError, std::string(#call) + " failed at " + __FILE__ + ":" +               \
                                                  std::to_string(__LINE__) + ": " + cudaGetErrorString(status_)); \
    }                                                                                                             \
  } while (0)

// Start `kernel` on `stream` with `grid` blocks of `block` threads and `shared_bytes` of dynamic shared memory.
// The arguments are converted to the kernel's parameter types, the kernel's shared-memory limit is raised to what is
// asked for, and a refused launch throws.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, flash::Stream stream,
            Arguments... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments), "one argument for each parameter of the kernel");
  if (shared_bytes > 0) {  // 48 KB are free for the asking, but a kernel's static arrays count against them
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)));
  }
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
  CUDA_CHECK(cudaGetLastError());
}

// The block's dynamic shared memory, 1024-byte aligned, `shared_bytes` of launch() long.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char dynamic_shared_memory[];
  return reinterpret_cast<T*>(dynamic_shared_memory);
}

#endif

}  // namespace
