// How a kernel file's launch() reaches the runtime, and how a thread asks who it is.
#pragma once
#include <cstddef>
#include <cstdint>

namespace flash::emu {

struct Configuration {
  const void* kernel = nullptr;  // the __global__ function, for its name
  struct {
    unsigned x, y, z;
  } grid = {}, block = {};
  size_t shared_bytes = 0;
  bool watched = false;
};

// Runs thread_body(argument) as every thread of the grid. Throws flash::Error: kDeviceError for a refused configuration
// and for what goes wrong in the kernel.
void run_grid(const Configuration&, void (*thread_body)(void*), void* argument);

// Of the running CUDA thread. Thread and block: x, y, z in 16, 16 and 32 bits; grid: in 32, 16 and 16.
__attribute__((const)) uint64_t packed_thread_idx() noexcept;
__attribute__((const)) uint64_t packed_block_dim() noexcept;
__attribute__((const)) uint64_t packed_block_idx() noexcept;
__attribute__((const)) uint64_t packed_grid_dim() noexcept;
__attribute__((const)) void* dynamic_shared_memory() noexcept;

}  // namespace flash::emu
