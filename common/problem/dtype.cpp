#include "common/problem/dtype.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "common/base/error.h"
#include "common/base/parallel.h"

namespace flash {
namespace {

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// value / 2^shift, to nearest, ties to even.
uint32_t shift_right_to_nearest_even(uint32_t value, int shift) {
  const uint32_t half = 1u << (shift - 1);
  const uint32_t rest = value & ((1u << shift) - 1);
  uint32_t result = value >> shift;
  if (rest > half || (rest == half && (result & 1u))) ++result;
  return result;
}

}  // namespace

// bf16 is the upper half of a float. A carry out of the fraction raises the exponent, as it should.
uint16_t float_to_bf16(float value) {
  const uint32_t bits = bits_of(value);
  if (std::isnan(value)) return uint16_t((bits >> 16) | 0x0040u);  // quiet: a NaN never rounds to infinity
  return uint16_t(shift_right_to_nearest_even(bits, 16));
}

float bf16_to_float(uint16_t bits) { return float_of(uint32_t(bits) << 16); }

// fp16: 1 sign, 5 exponent (bias 15), 10 fraction bits. A float has 8 (bias 127) and 23.
uint16_t float_to_fp16(float value) {
  const uint32_t bits = bits_of(value);
  const uint16_t sign = uint16_t((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return uint16_t(sign | 0x7e00u);   // NaN
  if (magnitude >= 0x477ff000u) return uint16_t(sign | 0x7c00u);  // 65520 and above round to infinity
  const int exponent = int(magnitude >> 23) - 127;
  if (exponent >= -14) {  // normal: move the bias, drop 13 fraction bits
    const uint32_t rebiased = magnitude - (uint32_t(127 - 15) << 23);
    return uint16_t(sign | shift_right_to_nearest_even(rebiased, 13));
  }
  if (exponent < -25) return sign;                                       // below half the least subnormal, 2^-25
  const uint32_t significand = (magnitude & 0x007fffffu) | 0x00800000u;  // value = significand * 2^(exponent - 23)
  return uint16_t(sign | shift_right_to_nearest_even(significand, -exponent - 1));  // in units of 2^-24
}

float fp16_to_float(uint16_t bits) {
  const uint32_t sign = uint32_t(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t fraction = bits & 0x03ffu;
  if (exponent == 0x1f) return float_of(sign | 0x7f800000u | (fraction << 13));
  if (exponent != 0) return float_of(sign | ((exponent + 127 - 15) << 23) | (fraction << 13));
  const float magnitude = std::ldexp(float(fraction), -24);
  return sign ? -magnitude : magnitude;
}

float round_to(Dtype dtype, float value) {
  switch (dtype) {
    case Dtype::bf16: return bf16_to_float(float_to_bf16(value));
    case Dtype::fp16: return fp16_to_float(float_to_fp16(value));
    case Dtype::fp32: break;
  }
  return value;
}

double ulp_at(Dtype dtype, double magnitude) {
  const int fraction_bits = dtype == Dtype::fp32 ? 23 : dtype == Dtype::fp16 ? 10 : 7;
  const int least_exponent = dtype == Dtype::fp16 ? -14 : -126;  // of normal numbers; subnormals keep its spacing
  const int greatest_exponent = dtype == Dtype::fp16 ? 15 : 127;
  magnitude = std::fabs(magnitude);
  int exponent = least_exponent;
  if (magnitude > 0) exponent = std::isfinite(magnitude) ? std::ilogb(magnitude) : greatest_exponent;
  if (exponent < least_exponent) exponent = least_exponent;
  if (exponent > greatest_exponent) exponent = greatest_exponent;
  return std::ldexp(1.0, exponent - fraction_bits);
}

namespace {

// work(0) … work(count - 1), in pieces on all cores.
template <typename Work>
void for_each_index(size_t count, const Work& work) {
  constexpr size_t kPiece = 1 << 18;
  parallel_for((count + kPiece - 1) / kPiece, [&](size_t piece) {
    for (size_t i = piece * kPiece; i < std::min(count, (piece + 1) * kPiece); ++i) work(i);
  });
}

}  // namespace

std::vector<unsigned char> pack(Dtype dtype, const std::vector<float>& values) {
  std::vector<unsigned char> bytes(values.size() * dtype_bytes(dtype));
  if (dtype == Dtype::fp32) {
    if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  for_each_index(values.size(), [&](size_t i) {
    const uint16_t bits = dtype == Dtype::fp16 ? float_to_fp16(values[i]) : float_to_bf16(values[i]);
    std::memcpy(&bytes[2 * i], &bits, 2);
  });
  return bytes;
}

std::vector<float> unpack(Dtype dtype, const std::vector<unsigned char>& bytes) {
  const size_t size = dtype_bytes(dtype);
  if (bytes.size() % size != 0)
    throw Error(kUsage, "unpack: " + std::to_string(bytes.size()) + " bytes are no whole number of " +
                            dtype_name(dtype) + " values.");
  std::vector<float> values(bytes.size() / size);
  if (dtype == Dtype::fp32) {
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  for_each_index(values.size(), [&](size_t i) {
    uint16_t bits;
    std::memcpy(&bits, &bytes[2 * i], 2);
    values[i] = dtype == Dtype::fp16 ? fp16_to_float(bits) : bf16_to_float(bits);
  });
  return values;
}

}  // namespace flash
