// Where the bytes of a TMA box are: in the tensor, and in shared memory.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "common/device/tensor_layout.h"

namespace flash::emu {

// A row of the box along the innermost dimension: `before` bytes in front of the tensor's edge, `inside`, `behind`.
struct BoxRow {
  size_t offset = 0;                // of the row in the box, as it lies in shared memory without a swizzle
  unsigned char* global = nullptr;  // the first byte inside; nullptr if there is none
  size_t before = 0, inside = 0, behind = 0;
};

template <class Visit>
void for_each_row(const TensorLayout& layout, const int* coordinates, Visit visit) {
  const size_t element = size_t(layout.stride[0]), row_bytes = layout.box[0] * element;
  const int64_t first = coordinates[0], last = first + int64_t(layout.box[0]), width = int64_t(layout.dims[0]);
  const int64_t begin = std::clamp<int64_t>(0, first, last), end = std::clamp<int64_t>(width, begin, last);
  BoxRow row;
  uint32_t index[kMaxTensorDims] = {};
  for (bool more = true; more; row.offset += row_bytes) {
    bool inside = begin < end;
    auto* at = static_cast<unsigned char*>(const_cast<void*>(layout.data)) + begin * int64_t(element);
    for (int i = 1; i < layout.rank; ++i) {
      const int64_t place = coordinates[i] + int64_t(index[i]);
      inside &= place >= 0 && place < int64_t(layout.dims[i]);
      at += place * int64_t(layout.stride[i]);
    }
    row.global = inside ? at : nullptr;
    row.before = inside ? size_t(begin - first) * element : row_bytes;
    row.inside = inside ? size_t(end - begin) * element : 0;
    row.behind = row_bytes - row.before - row.inside;
    visit(static_cast<const BoxRow&>(row));
    more = false;
    for (int i = 1; i < layout.rank && !more; ++i) {
      more = ++index[i] < layout.box[i];
      if (!more) index[i] = 0;
    }
  }
}

// Where the byte that belongs at `address` lies: the 16-byte chunks of a line change places with the line's number.
inline uintptr_t swizzled(Swizzle swizzle, uintptr_t address) {
  switch (swizzle) {
    case Swizzle::bytes32: return address ^ (address >> 7 & 1) << 4;
    case Swizzle::bytes64: return address ^ (address >> 7 & 3) << 4;
    case Swizzle::bytes128: return address ^ (address >> 7 & 7) << 4;
    default: return address;
  }
}

}  // namespace flash::emu
