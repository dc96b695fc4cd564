// What a tensor map says: where a tensor lies and which box of it one TMA instruction moves; and the rules such a map
// must keep, in words. make_tensor_map() (kernel/ptx/tensor_map.cuh) checks them on both back ends: the driver would say
// "invalid argument" and no more.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace flash {

constexpr int kMaxTensorDims = 5;

enum class TensorElement : uint8_t { fp16, bf16, fp32, int32, byte };

// How the 16-byte chunks of a box's rows are exchanged in shared memory, so that a column of them falls into different
// banks (drawn in ptx/tma.cuh). bytesN: the pattern's rows have N bytes, and the box's rows as many.
enum class Swizzle : uint8_t { none, bytes32, bytes64, bytes128 };

// Dimension 0 is the innermost: its elements are neighbours. In `stride`, bytes from one index to the next.
struct TensorLayout {
  const void* data = nullptr;
  uint64_t dims[kMaxTensorDims] = {};
  uint64_t stride[kMaxTensorDims] = {};  // [0] is the element's size
  uint32_t box[kMaxTensorDims] = {};
  int32_t rank = 0;
  TensorElement element = TensorElement::fp16;
  Swizzle swizzle = Swizzle::none;
};

size_t element_bytes(TensorElement);
size_t box_bytes(const TensorLayout&);
// After how many bytes the pattern of the swizzle repeats: 1024, 512, 256; 128 without one, which TMA wants anyway.
size_t pattern_bytes(Swizzle);

// The first rule that the layout breaks, as a sentence; "" if it keeps all.
std::string broken_rule(const TensorLayout&);

}  // namespace flash
