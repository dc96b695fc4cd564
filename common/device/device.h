// The device a program runs on, as the harness sees it: the GPU (device_cuda.cu) or the CPU back end
// (emu/device_emu.cpp); a program is linked with one of the two. Errors throw flash::Error(kDeviceError).
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "common/problem/problem.h"

namespace flash {

const char* backend_name();  // "cuda" or "emu"
Device query_device();       // of the current device; throws kNotSupported when there is none

// Device memory, 256-byte aligned, filled with 0xFF bytes (NaN in every float type). `label` names the array in reports.
// Every allocation is entered in the ledger below until the buffer is destroyed.
class DeviceBuffer {
 public:
  DeviceBuffer(const std::string& label, size_t bytes);
  ~DeviceBuffer();
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  void copy_from_host(const void* source);  // bytes() bytes
  void copy_to_host(void* target) const;    // bytes() bytes; waits for the device
  void fill_with_nan();

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
  std::string label_;
};

struct LedgerEntry {
  std::string label;
  size_t bytes;
};
std::vector<LedgerEntry> device_ledger();  // the live allocations, oldest first
size_t device_ledger_peak_bytes();         // the most that was ever live at once in this process

void synchronize();  // waits for the device; throws what a kernel did wrong

// Median, least and greatest time of `work` in milliseconds by CUDA events, `iterations` calls after `warmup`.
// On the CPU back end wall-clock times, which say nothing of a GPU's.
struct Times {
  double median = 0, min = 0, max = 0;
};
Times time_ms(const std::function<void()>& work, int iterations, int warmup = 3);

}  // namespace flash
