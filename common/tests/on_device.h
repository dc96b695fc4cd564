// An array of a kernel's values on the device.
#pragma once
#include <cstddef>
#include <vector>

#include "common/device/memory.h"

namespace {

template <class T>
struct OnDevice {
  explicit OnDevice(const std::vector<T>& values) : buffer("values", values.size() * sizeof(T)) {
    buffer.copy_from_host(values.data());
  }
  explicit OnDevice(size_t count) : buffer("results", count * sizeof(T)) {}
  T* data() const { return static_cast<T*>(buffer.data()); }
  std::vector<T> values() const {
    std::vector<T> result(buffer.bytes() / sizeof(T));
    buffer.copy_to_host(result.data());
    return result;
  }
  flash::DeviceBuffer buffer;
};

}  // namespace
