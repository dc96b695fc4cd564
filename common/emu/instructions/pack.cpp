#include "common/emu/instructions/pack.h"

#include <cstdint>

namespace flash::emu {

uint32_t pack_pair(bool bf16, float low, float high) {
  return bf16 ? bf16_bits(low) | uint32_t(bf16_bits(high)) << 16 : half_bits(low) | uint32_t(half_bits(high)) << 16;
}

float unpack_one(bool bf16, uint32_t packed, int which) {
  const auto bits = static_cast<unsigned short>(packed >> 16 * which);
  return bf16 ? bf16_float(bits) : half_float(bits);
}

}  // namespace flash::emu
