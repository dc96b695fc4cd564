// ptx/pack.cuh on the CPU back end.
#pragma once
#include <cstdint>
#include <type_traits>

#include "common/emu/instructions/cuda_emu.h"

namespace flash::emu {

uint32_t pack_pair(bool bf16, float low, float high);
float unpack_one(bool bf16, uint32_t packed, int which);

}  // namespace flash::emu

namespace {

template <class Element>
EMU_INLINE uint32_t pack(float low, float high) {
  return flash::emu::pack_pair(std::is_same<Element, __nv_bfloat16>::value, low, high);
}

template <class Element>
EMU_INLINE float2 unpack(uint32_t packed) {
  constexpr bool bf16 = std::is_same<Element, __nv_bfloat16>::value;
  return make_float2(flash::emu::unpack_one(bf16, packed, 0), flash::emu::unpack_one(bf16, packed, 1));
}

}  // namespace
