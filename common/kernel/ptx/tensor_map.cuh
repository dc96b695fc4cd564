// make_tensor_map(): what the host tells TMA of a tensor. A kernel takes the map by value, as
// `const __grid_constant__ CUtensorMap map`, and hands its address to tma_load() and its kin (ptx/tma.cuh).
//
//   const CUtensorMap k_map = make_tensor_map(k, {64, seqlen, head_dim / 64, heads},              // elements
//                                             {2 * head_dim, 128, 2 * head_dim * seqlen},         // bytes
//                                             {64, 128, head_dim / 64, 1}, Swizzle::bytes128);    // elements
//
// Dimensions are named from the innermost on; the innermost has no stride, its elements are neighbours. Any order of
// strides will do: here head_dim is cut into slabs of 64 columns, and a slab is a dimension *outside* of the rows.
//
// Elements of the box outside of the tensor, before or behind it in any dimension, are read as zeros and never written.
// So a ragged last tile needs nothing: its box hangs over the edge.
#pragma once

#include <initializer_list>
#include <type_traits>

#include "common/device/tensor_layout.h"
#include "common/kernel/cuda.cuh"

#ifdef __CUDACC__
#include <cuda.h>  // the type alone: nothing of libcuda is linked
#else
#include "common/emu/instructions/tensor_map.h"
#endif

namespace flash {

// Throws flash::Error where the layout breaks a rule, or where the driver is too old to know tensor maps.
CUtensorMap encode_tensor_map(const TensorLayout&);

}  // namespace flash

namespace {

using flash::Swizzle;

template <class Element>
constexpr flash::TensorElement kTensorElement = flash::TensorElement::byte;
template <>
constexpr flash::TensorElement kTensorElement<__half> = flash::TensorElement::fp16;
template <>
constexpr flash::TensorElement kTensorElement<__nv_bfloat16> = flash::TensorElement::bf16;
template <>
constexpr flash::TensorElement kTensorElement<float> = flash::TensorElement::fp32;
template <>
constexpr flash::TensorElement kTensorElement<int> = flash::TensorElement::int32;

template <class Element>
CUtensorMap make_tensor_map(const Element* data, std::initializer_list<long long> dims,
                            std::initializer_list<long long> strides, std::initializer_list<long long> box,
                            Swizzle swizzle) {
  static_assert(sizeof(Element) == 1 || kTensorElement<Element> != flash::TensorElement::byte, "TMA can't move these");
  if (dims.size() > flash::kMaxTensorDims || strides.size() + 1 != dims.size() || box.size() != dims.size()) {
    throw flash::Error(flash::kDeviceError, "make_tensor_map: " + std::to_string(dims.size()) + " dimensions, " +
                                                std::to_string(strides.size()) + " strides and a box of " +
                                                std::to_string(box.size()) +
                                                "; 1 to 5 dimensions have one stride less and a box of as many");
  }
  flash::TensorLayout layout;
  layout.data = data;
  layout.rank = int(dims.size());
  layout.element = kTensorElement<Element>;
  layout.swizzle = swizzle;
  layout.stride[0] = sizeof(Element);
  for (int i = 0; i < layout.rank; ++i) {
    layout.dims[i] = uint64_t(dims.begin()[i]);
    layout.box[i] = box.begin()[i] < 0 ? 0 : uint32_t(box.begin()[i] > 0xffffffff ? 0xffffffff : box.begin()[i]);
    if (i > 0) layout.stride[i] = uint64_t(strides.begin()[i - 1]);
  }
  return flash::encode_tensor_map(layout);
}

}  // namespace
