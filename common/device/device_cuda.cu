// device.h on a GPU, through the CUDA runtime.
#include "common/device/device.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "common/base/error.h"
#include "common/device/counts.h"
#include "common/device/memory.h"
#include "common/device/progress.h"
#include "common/device/timing.h"

namespace flash {

namespace {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw Error(kDeviceError, std::string(what) + " failed: " + cudaGetErrorString(status));
}
#define CHECK(call) check((call), #call)

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  CHECK(cudaDeviceGetAttribute(&value, which, device));
  return value;
}

// fp32 multiply-adds a clock an SM can start: "Arithmetic instructions" in the CUDA C++ programming guide.
int fp32_fmas_per_clock(int compute_capability) {
  switch (compute_capability) {
    case 75:
    case 80: return 64;
    default: return 128;
  }
}

// Dense fp16 multiply-adds with fp32 accumulation a clock on an SM's tensor cores, from the architecture whitepapers;
// 0: not known. GeForce cards of the same compute capability may run at half of it.
int tensor_fmas_per_clock(int compute_capability) {
  switch (compute_capability) {
    case 75: return 512;
    case 80: return 1024;
    case 86:
    case 87:
    case 89: return 512;
    case 90: return 2048;
    default: return 0;
  }
}

std::vector<LedgerEntry>& ledger() {
  static std::vector<LedgerEntry> entries;
  return entries;
}
size_t live_bytes = 0, peak_bytes = 0;

}  // namespace

const char* backend_name() { return "cuda"; }

Device query_device() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    throw Error(kNotSupported, std::string("no CUDA device can be used here (") +
                                   (status == cudaSuccess ? "none found" : cudaGetErrorString(status)) +
                                   "); `make step N BACKEND=emu` builds for the CPU back end");
  }
  int id = 0;
  CHECK(cudaGetDevice(&id));
  static Device device;
  static int device_id = -1;
  if (device_id != id) {  // properties are asked for once, free memory every time
    cudaDeviceProp properties;
    CHECK(cudaGetDeviceProperties(&properties, id));
    device = Device();
    device.name = properties.name;
    device.compute_capability = properties.major * 10 + properties.minor;
    device.sm_count = properties.multiProcessorCount;
    device.shared_bytes_per_block = properties.sharedMemPerBlockOptin;
    const double clock_hz = 1e3 * attribute(cudaDevAttrClockRate, id);
    const double flops_per_fma = 2 * clock_hz * device.sm_count * 1e-12;
    device.peak_fp32_tflops = fp32_fmas_per_clock(device.compute_capability) * flops_per_fma;
    device.peak_tensor_tflops = tensor_fmas_per_clock(device.compute_capability) * flops_per_fma;
    // Two transfers a memory clock, bus width in bits.
    device.peak_gb_per_s =
        2e3 * attribute(cudaDevAttrMemoryClockRate, id) * (attribute(cudaDevAttrGlobalMemoryBusWidth, id) / 8) * 1e-9;
    device_id = id;
  }
  size_t free_bytes = 0, total_bytes = 0;
  CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
  device.global_bytes = free_bytes;
  return device;
}

DeviceBuffer::DeviceBuffer(const std::string& label, size_t bytes) : bytes_(bytes), label_(label) {
  const cudaError_t status = cudaMalloc(&data_, std::max<size_t>(bytes, 1));
  if (status != cudaSuccess) {
    cudaGetLastError();
    throw Error(kDeviceError, "allocating " + std::to_string(bytes) + " bytes for " + label +
                                  " failed: " + cudaGetErrorString(status));
  }
  ledger().push_back({label, bytes});
  live_bytes += bytes;
  peak_bytes = std::max(peak_bytes, live_bytes);
  fill_with_nan();
}

DeviceBuffer::~DeviceBuffer() {
  cudaFree(data_);  // a destructor can't throw; what a kernel did wrong has been reported by synchronize()
  auto entry = std::find_if(ledger().begin(), ledger().end(),
                            [this](const LedgerEntry& e) { return e.label == label_ && e.bytes == bytes_; });
  if (entry != ledger().end()) ledger().erase(entry);
  live_bytes -= bytes_;
}

void DeviceBuffer::copy_from_host(const void* source) {
  CHECK(cudaMemcpy(data_, source, bytes_, cudaMemcpyHostToDevice));
}
void DeviceBuffer::copy_to_host(void* target) const {
  CHECK(cudaMemcpy(target, data_, bytes_, cudaMemcpyDeviceToHost));
}
void DeviceBuffer::fill_with_nan() { CHECK(cudaMemset(data_, 0xFF, bytes_)); }

std::vector<LedgerEntry> device_ledger() { return ledger(); }
size_t device_ledger_peak_bytes() { return peak_bytes; }

void synchronize() { CHECK(cudaDeviceSynchronize()); }

Times time_ms(const std::function<void()>& work, int iterations, int warmup) {
  struct Events {
    cudaEvent_t begin = nullptr, end = nullptr;
    ~Events() {
      if (begin) cudaEventDestroy(begin);
      if (end) cudaEventDestroy(end);
    }
  } events;
  CHECK(cudaEventCreate(&events.begin));
  CHECK(cudaEventCreate(&events.end));
  for (int i = 0; i < warmup; ++i) work();
  std::vector<float> times(std::max(iterations, 1));
  for (float& ms : times) {
    CHECK(cudaEventRecord(events.begin));
    work();
    CHECK(cudaEventRecord(events.end));
    CHECK(cudaEventSynchronize(events.end));
    CHECK(cudaEventElapsedTime(&ms, events.begin, events.end));
  }
  CHECK(cudaDeviceSynchronize());
  std::sort(times.begin(), times.end());
  const size_t n = times.size();
  return {(times[(n - 1) / 2] + times[n / 2]) / 2, times.front(), times.back()};
}

// Nothing is watched on a GPU, nor does a kernel say how far it is.
void reset_watch_report() {}
WatchReport take_watch_report() { return WatchReport(); }
void set_progress(Progress) {}

}  // namespace flash
