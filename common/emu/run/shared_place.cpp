#include "common/emu/run/shared_place.h"

namespace flash::emu {

bool in_shared_memory(const Block& block, const void* address, size_t bytes) {
  const auto* const p = static_cast<const unsigned char*>(address);
  const auto holds = [&](const unsigned char* begin, const unsigned char* end) {
    return p >= begin && p <= end && bytes <= size_t(end - p);
  };
  if (holds(block.dynamic_begin, block.dynamic_end)) return true;
  for (const StaticShared& array : *block.statics) {
    if (holds(array.base, array.base + array.bytes)) return true;
  }
  // A stripped executable names no arrays.
  return block.statics->empty() && holds(block.tls_begin, block.tls_end);
}

std::string shared_name(const Block& block, const void* address, size_t element_bytes) {
  const auto* const p = static_cast<const unsigned char*>(address);
  for (const StaticShared& array : *block.statics) {
    if (p < array.base || p >= array.base + array.bytes) continue;
    const size_t index = size_t(p - array.base) / element_bytes;
    return array.bytes <= element_bytes ? array.name : array.name + "[" + std::to_string(index) + "]";
  }
  return "byte " + std::to_string(p - block.dynamic_begin) + " of the dynamic shared memory";
}

}  // namespace flash::emu
