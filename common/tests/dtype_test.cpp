#include "common/problem/dtype.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "common/base/error.h"
#include "common/tests/catch.h"

using namespace flash;

namespace {

const float kInfinity = std::numeric_limits<float>::infinity();
const float kNaN = std::numeric_limits<float>::quiet_NaN();

// Another way to round: the nearest of all finite values of the type, the even one of two equally near.
template <typename ToFloat>
uint16_t nearest_by_search(float value, ToFloat to_float, uint16_t infinity_bits) {
  if (value < 0 || (value == 0 && std::signbit(value)))
    return uint16_t(0x8000u | nearest_by_search(-value, to_float, infinity_bits));
  uint32_t low = 0, high = infinity_bits;  // bit patterns of positive values ascend with the values
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    (double(to_float(uint16_t(middle))) <= double(value) ? low : high) = middle;
  }
  const double below = to_float(uint16_t(low));
  // Infinity stands where the next value would be if the exponent went on.
  const double above =
      high == infinity_bits ? below + (below - to_float(uint16_t(low - 1))) : double(to_float(uint16_t(high)));
  const double to_low = double(value) - below, to_high = above - double(value);
  if (to_low < to_high) return uint16_t(low);
  if (to_high < to_low) return uint16_t(high);
  return uint16_t(low % 2 == 0 ? low : high);
}

float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace

TEST_CASE("16-bit values survive the way to float and back") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float bf16 = bf16_to_float(uint16_t(bits)), fp16 = fp16_to_float(uint16_t(bits));
    if (std::isnan(bf16))
      REQUIRE(std::isnan(bf16_to_float(float_to_bf16(bf16))));
    else
      REQUIRE(float_to_bf16(bf16) == bits);
    if (std::isnan(fp16))
      REQUIRE(std::isnan(fp16_to_float(float_to_fp16(fp16))));
    else
      REQUIRE(float_to_fp16(fp16) == bits);
  }
}

TEST_CASE("rounding is to nearest, ties to even") {
  // Every exponent, with fractions at, just below and just above the ties of both types.
  size_t wrong = 0;
  for (uint32_t exponent = 0; exponent < 255; ++exponent) {
    for (uint32_t upper = 0; upper < 0x80; upper += 3) {
      for (uint32_t lower : {0x0000u, 0x0001u, 0x0fffu, 0x1000u, 0x1001u, 0x2fffu, 0x3000u, 0x3001u, 0x7fffu, 0x8000u,
                             0x8001u, 0xffffu}) {
        for (uint32_t sign : {0u, 1u}) {
          const float value = float_of(sign << 31 | exponent << 23 | upper << 16 | lower);
          wrong += float_to_bf16(value) != nearest_by_search(value, bf16_to_float, 0x7f80);
          wrong += float_to_fp16(value) != nearest_by_search(value, fp16_to_float, 0x7c00);
        }
      }
    }
  }
  REQUIRE(wrong == 0);
}

TEST_CASE("rounding at the ends of the range") {
  CHECK(float_to_fp16(65504.0f) == 0x7bff);
  CHECK(float_to_fp16(65519.996f) == 0x7bff);
  CHECK(float_to_fp16(65520.0f) == 0x7c00);
  CHECK(float_to_fp16(-1e30f) == 0xfc00);
  CHECK(float_to_fp16(std::ldexp(1.0f, -24)) == 0x0001);
  CHECK(float_to_fp16(std::ldexp(1.0f, -25)) == 0x0000);  // a tie: even is zero
  CHECK(float_to_fp16(std::ldexp(1.5f, -25)) == 0x0001);
  CHECK(float_to_fp16(-0.0f) == 0x8000);
  CHECK(float_to_bf16(3.4e38f) == 0x7f80);
  CHECK(float_to_bf16(kInfinity) == 0x7f80);
  CHECK(std::isnan(bf16_to_float(float_to_bf16(float_of(0x7f800001u)))));  // a NaN whose upper half alone is infinity
  CHECK(std::isnan(fp16_to_float(float_to_fp16(kNaN))));
  CHECK(std::isnan(fp16_to_float(float_to_fp16(float_of(0x7f800001u)))));
  CHECK(round_to(Dtype::fp32, 0.1f) == 0.1f);
  CHECK(round_to(Dtype::bf16, 1.00390625f) == 1.0f);  // 1 + 2^-8: a tie
  CHECK(round_to(Dtype::fp16, 0.1f) == Approx(0.0999756f).epsilon(1e-6));
}

TEST_CASE("ulp_at is the distance to the next value") {
  CHECK(ulp_at(Dtype::fp32, 1.0) == std::ldexp(1.0, -23));
  CHECK(ulp_at(Dtype::fp32, 1.99) == std::ldexp(1.0, -23));
  CHECK(ulp_at(Dtype::fp32, -2.0) == std::ldexp(1.0, -22));
  CHECK(ulp_at(Dtype::fp16, 1.0) == std::ldexp(1.0, -10));
  CHECK(ulp_at(Dtype::bf16, 1.0) == std::ldexp(1.0, -7));
  CHECK(ulp_at(Dtype::fp16, 0) == std::ldexp(1.0, -24));
  CHECK(ulp_at(Dtype::fp16, 1e9) == 32.0);
  CHECK(ulp_at(Dtype::fp32, 0) == std::ldexp(1.0, -149));
  CHECK(ulp_at(Dtype::bf16, kInfinity) == std::ldexp(1.0, 120));
}

TEST_CASE("pack and unpack") {
  const std::vector<float> values = {0.0f, -1.5f, 0.1f, 1024.0f, -3.0e-5f};
  for (Dtype dtype : {Dtype::fp32, Dtype::fp16, Dtype::bf16}) {
    const std::vector<unsigned char> bytes = pack(dtype, values);
    REQUIRE(bytes.size() == values.size() * dtype_bytes(dtype));
    const std::vector<float> back = unpack(dtype, bytes);
    REQUIRE(back.size() == values.size());
    for (size_t i = 0; i < values.size(); ++i) CHECK(back[i] == round_to(dtype, values[i]));
  }
  CHECK(pack(Dtype::fp16, {1.0f}) == std::vector<unsigned char>{0x00, 0x3c});  // little-endian
  CHECK(pack(Dtype::fp32, {}).empty());
  CHECK_THROWS_AS(unpack(Dtype::fp32, std::vector<unsigned char>(6)), Error);
}
