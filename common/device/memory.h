// Memory of the device, and a ledger of what is allocated. Errors throw flash::Error(kDeviceError).
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace flash {

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

}  // namespace flash
