// The device a program runs on: a GPU (device_cuda.cu) or the CPU back end (common/emu/run/device_emu.cpp); a program is
// linked with one of the two. The room has one face for both: facts (here), memory.h, timing.h, and what the CPU back
// end counts (counts.h). Errors throw flash::Error(kDeviceError).
#pragma once
#include <cstddef>
#include <string>

struct CUstream_st;  // cudaStream_t is a pointer to this; said here so that no CUDA header is needed

namespace flash {

using Stream = CUstream_st*;  // nullptr (the default stream) on the CPU back end

// What a step may ask of the device it is to run on. The CPU back end answers with a virtual device.
struct Device {
  std::string name;
  bool is_emulated = false;
  int compute_capability = 0;  // 75, 80, 86, 89, 90 …
  int sm_count = 0;
  size_t global_bytes = 0;            // free device memory
  size_t shared_bytes_per_block = 0;  // the most a block may ask for (opt-in limit), bytes
  double peak_fp32_tflops = 0;        // 0: not known
  double peak_tensor_tflops = 0;      // dense fp16/bf16 with fp32 accumulation; 0: not known
  double peak_gb_per_s = 0;           // device memory; 0: not known
};

const char* backend_name();  // "cuda" or "emu"
Device query_device();       // of the current device; throws kNotSupported when there is none

}  // namespace flash
