#include "common/device/tensor_layout.h"

namespace flash {
namespace {

size_t row_bytes(Swizzle swizzle) {
  switch (swizzle) {
    case Swizzle::bytes32: return 32;
    case Swizzle::bytes64: return 64;
    case Swizzle::bytes128: return 128;
    default: return 0;
  }
}

std::string number(uint64_t n) { return std::to_string(n); }

}  // namespace

size_t element_bytes(TensorElement element) {
  switch (element) {
    case TensorElement::fp32:
    case TensorElement::int32: return 4;
    case TensorElement::byte: return 1;
    default: return 2;
  }
}

size_t box_bytes(const TensorLayout& layout) {
  size_t bytes = element_bytes(layout.element);
  for (int i = 0; i < layout.rank; ++i) bytes *= layout.box[i];
  return bytes;
}

size_t pattern_bytes(Swizzle swizzle) { return swizzle == Swizzle::none ? 128 : 8 * row_bytes(swizzle); }

std::string broken_rule(const TensorLayout& layout) {
  if (layout.rank < 1 || layout.rank > kMaxTensorDims) {
    return "a tensor map has 1 to 5 dimensions, not " + std::to_string(layout.rank);
  }
  if (layout.data == nullptr) return "the tensor's address is null";
  if (reinterpret_cast<uintptr_t>(layout.data) % 16 != 0) return "the tensor's address must be a multiple of 16";
  for (int i = 0; i < layout.rank; ++i) {
    const std::string dimension = "dimension " + std::to_string(i);
    if (layout.dims[i] < 1 || layout.dims[i] > uint64_t(1) << 32) {
      return dimension + " has " + number(layout.dims[i]) + " elements; it must have 1 to 2^32";
    }
    if (i > 0 && (layout.stride[i] % 16 != 0 || layout.stride[i] >= uint64_t(1) << 40)) {
      return dimension + " has a stride of " + number(layout.stride[i]) +
             " bytes; it must be a multiple of 16 below 2^40";
    }
    if (layout.box[i] < 1 || layout.box[i] > 256) {
      return "the box has " + number(layout.box[i]) + " elements in " + dimension + "; it must have 1 to 256";
    }
  }
  const size_t inner = layout.box[0] * element_bytes(layout.element);
  if (inner % 16 != 0) {
    return "a row of the box has " + number(inner) + " bytes; it must be a multiple of 16";
  }
  // The driver takes shorter rows too, and the card lays them out otherwise than ptx/tma.cuh says.
  if (const size_t whole = row_bytes(layout.swizzle); whole != 0 && inner != whole) {
    return "a row of the box has " + number(inner) + " bytes; with a swizzle of " + number(whole) +
           " bytes it has exactly these (make the rest a dimension of its own)";
  }
  return "";
}

}  // namespace flash
