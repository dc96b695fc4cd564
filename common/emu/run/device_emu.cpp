// The device of the CPU back end (common/device/device.h): its memory is the host's, each allocation with an inaccessible page
// behind it, and its limits are those of the GPU that EMU_DEVICE names.
#include <unistd.h>
#include <cstdint>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>

#include "common/base/error.h"
#include "common/device/device.h"
#include "common/device/memory.h"
#include "common/device/timing.h"
#include "common/emu/run/fiber.h"
#include "common/emu/run/runtime.h"

namespace flash {
namespace {

constexpr size_t kAlignment = 256;

struct VirtualDevice {
  const char* name;
  int compute_capability;
  int sm_count;
  size_t shared_bytes_per_block;  // CUDA C++ Programming Guide, technical specifications per compute capability
};
constexpr VirtualDevice kDevices[] = {
    {"sm_75", 75, 40, 64 * 1024},    // T4
    {"sm_80", 80, 108, 163 * 1024},  // A100
    {"sm_86", 86, 84, 99 * 1024},    // RTX 3090, A10, A40
    {"sm_89", 89, 128, 99 * 1024},   // RTX 4090, L4, L40
    {"sm_90", 90, 132, 227 * 1024},  // H100, H200
};

struct Memory {
  emu::Allocation allocation;
  emu::GuardedMemory pages;
};

// By base address.
std::map<const unsigned char*, std::unique_ptr<Memory>>& memories() {
  static std::map<const unsigned char*, std::unique_ptr<Memory>> map;
  return map;
}

uint64_t allocations = 0;
size_t live_bytes = 0, peak_bytes = 0;

Memory* memory_of(const void* data) {
  const auto found = memories().find(static_cast<const unsigned char*>(data));
  return found == memories().end() ? nullptr : found->second.get();
}

// What the host can still give without swapping, bytes.
size_t available_bytes() {
  std::ifstream info("/proc/meminfo");
  std::string key;
  for (size_t kilobytes; info >> key >> kilobytes; info.ignore(80, '\n')) {
    if (key == "MemAvailable:") return kilobytes * 1024;
  }
  return size_t(sysconf(_SC_PHYS_PAGES)) * size_t(sysconf(_SC_PAGESIZE));
}

}  // namespace

const char* backend_name() { return "emu"; }

Device query_device() {
  const char* const wanted = std::getenv("EMU_DEVICE");
  const std::string name = wanted == nullptr || *wanted == 0 ? "sm_90" : wanted;
  for (const VirtualDevice& candidate : kDevices) {
    if (name != candidate.name) continue;
    Device device;
    device.name = "CPU back end (emulated " + name + ")";
    device.is_emulated = true;
    device.compute_capability = candidate.compute_capability;
    device.sm_count = candidate.sm_count;
    device.shared_bytes_per_block = candidate.shared_bytes_per_block;
    device.global_bytes = available_bytes();
    return device;
  }
  throw Error(kUsage, "EMU_DEVICE is '" + name + "'; it must be sm_75, sm_80, sm_86, sm_89 or sm_90");
}

DeviceBuffer::DeviceBuffer(const std::string& label, size_t bytes) : bytes_(bytes), label_(label) {
  if (bytes > SIZE_MAX - kAlignment) {
    throw Error(kDeviceError, "no memory for " + label + ": " + std::to_string(bytes) + " bytes");
  }
  // The end of the buffer stands at the end of its pages, as near as the alignment of its begin lets it.
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  auto memory = std::unique_ptr<Memory>(new Memory{{}, emu::GuardedMemory(std::max(rounded, kAlignment))});
  unsigned char* const base = memory->pages.end() - std::max(rounded, kAlignment);
  memory->allocation.label = label;
  memory->allocation.base = base;
  memory->allocation.bytes = bytes;
  memory->allocation.serial = ++allocations;
  data_ = base;
  memories()[base] = std::move(memory);
  live_bytes += bytes;
  peak_bytes = std::max(peak_bytes, live_bytes);
  fill_with_nan();
}

DeviceBuffer::~DeviceBuffer() {
  Memory* const memory = memory_of(data_);
  if (emu::get_watcher() != nullptr) emu::get_watcher()->allocation_freed(memory->allocation);
  live_bytes -= bytes_;
  memories().erase(static_cast<const unsigned char*>(data_));
}

void DeviceBuffer::copy_from_host(const void* source) {
  if (bytes_ > 0) std::memcpy(data_, source, bytes_);
  if (emu::get_watcher() != nullptr) emu::get_watcher()->allocation_written(memory_of(data_)->allocation);
}

void DeviceBuffer::copy_to_host(void* target) const {
  if (bytes_ > 0) std::memcpy(target, data_, bytes_);
}

void DeviceBuffer::fill_with_nan() {
  if (bytes_ > 0) std::memset(data_, 0xff, bytes_);
  if (emu::get_watcher() != nullptr) emu::get_watcher()->allocation_filled(memory_of(data_)->allocation);
}

std::vector<LedgerEntry> device_ledger() {
  std::vector<const emu::Allocation*> live = emu::all_allocations();
  std::sort(live.begin(), live.end(), [](auto* a, auto* b) { return a->serial < b->serial; });
  std::vector<LedgerEntry> ledger;
  for (const emu::Allocation* allocation : live) ledger.push_back({allocation->label, allocation->bytes});
  return ledger;
}

size_t device_ledger_peak_bytes() { return peak_bytes; }

void synchronize() {}  // launch() returns when the kernel is done, and throws what it did wrong

Times time_ms(const std::function<void()>& work, int iterations, int warmup) {
  for (int i = 0; i < warmup; ++i) work();
  std::vector<double> times;
  for (int i = 0; i < std::max(iterations, 1); ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
    times.push_back(elapsed.count());
  }
  std::sort(times.begin(), times.end());
  const size_t middle = times.size() / 2;
  const double median = times.size() % 2 ? times[middle] : 0.5 * (times[middle - 1] + times[middle]);
  return {median, times.front(), times.back()};
}

namespace emu {

const Allocation* find_allocation(const void* address) {
  const auto* const p = static_cast<const unsigned char*>(address);
  auto next = memories().upper_bound(p);
  if (next == memories().begin()) return nullptr;
  const Allocation& candidate = std::prev(next)->second->allocation;
  return p < candidate.base + candidate.bytes ? &candidate : nullptr;
}

const Allocation* nearest_allocation(const void* address, size_t distance) {
  const auto* const p = static_cast<const unsigned char*>(address);
  const Allocation* nearest = nullptr;
  const auto above = memories().upper_bound(p);
  if (above != memories().end() && size_t(above->first - p) <= distance) {
    nearest = &above->second->allocation;
    distance = size_t(above->first - p);
  }
  if (above != memories().begin()) {
    const Allocation& below = std::prev(above)->second->allocation;
    const unsigned char* const end = below.base + below.bytes;
    if (p < end || size_t(p - end) <= distance) nearest = &below;
  }
  return nearest;
}

std::vector<const Allocation*> all_allocations() {
  std::vector<const Allocation*> all;
  for (const auto& [base, memory] : memories()) all.push_back(&memory->allocation);
  return all;
}

std::string null_pointer_text(const void* address) {
  constexpr int64_t kNear = 64 << 20;  // a kernel adds a head's or a row's offset before it reads
  const int64_t offset = reinterpret_cast<intptr_t>(address);
  if (offset <= -kNear || offset >= kNear) return "";
  if (offset == 0) return "a null pointer";
  return "a null pointer " + std::string(offset < 0 ? "minus " : "plus ") + std::to_string(std::abs(offset)) +
         (std::abs(offset) == 1 ? " byte" : " bytes");
}

}  // namespace emu
}  // namespace flash
