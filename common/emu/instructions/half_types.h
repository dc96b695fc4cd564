// CUDA's 16-bit floats: __half (1 sign, 5 exponent, 10 fraction bits) and __nv_bfloat16 (1, 8, 7). Conversions round to
// nearest even; arithmetic is done in float and rounded once, which for + - * / is what the hardware's gives.
#pragma once
#include "common/emu/instructions/vector_types.h"

namespace flash::emu {

EMU_INLINE unsigned float_bits(float value) {
  unsigned bits;
  __builtin_memcpy(&bits, &value, 4);
  return bits;
}

EMU_INLINE float bits_float(unsigned bits) {
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

EMU_INLINE unsigned short bf16_bits(float value) {
  const unsigned bits = float_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;                          // CUDA's NaN
  return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);  // a carry may reach infinity: right
}

EMU_INLINE float bf16_float(unsigned short bits) { return bits_float(unsigned(bits) << 16); }

EMU_INLINE unsigned short half_bits(float value) {
  const unsigned bits = float_bits(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  unsigned result;
  if (magnitude > 0x7f800000u) return 0x7fff;  // CUDA's NaN
  if (magnitude >= 0x477ff000u) {              // 65520 and more rounds to infinity
    result = 0x7c00;
  } else if (magnitude < 0x38800000u) {
    // Below 2^-14, a subnormal: a multiple of 2^-24, which is the last place of 0.5f, so the sum rounds it.
    result = float_bits(bits_float(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    result = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1)) >> 13;
  }
  return static_cast<unsigned short>(sign | result);
}

EMU_INLINE float half_float(unsigned short bits) {
  const unsigned sign = (bits & 0x8000u) << 16, magnitude = (bits & 0x7fffu) << 13;
  if ((bits & 0x7c00u) == 0x7c00u) return bits_float(sign | magnitude | 0x7f800000u);
  // The exponent's bias is 15 there and 127 here; the product is exact for subnormals too.
  return bits_float(sign | float_bits(bits_float(magnitude) * 0x1p112f));
}

}  // namespace flash::emu

struct __half {
  unsigned short bits;
  EMU_INLINE constexpr __half() : bits() {}
  EMU_INLINE __half(float value) : bits(flash::emu::half_bits(value)) {}
  EMU_INLINE operator float() const { return flash::emu::half_float(bits); }
};

struct __nv_bfloat16 {
  unsigned short bits;
  EMU_INLINE constexpr __nv_bfloat16() : bits() {}
  EMU_INLINE __nv_bfloat16(float value) : bits(flash::emu::bf16_bits(value)) {}
  EMU_INLINE operator float() const { return flash::emu::bf16_float(bits); }
};

EMU_VECTOR2(__half2, __half, flash::emu::Word4)
EMU_VECTOR2(__nv_bfloat162, __nv_bfloat16, flash::emu::Word4)

using half = __half;
using half2 = __half2;
using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;

EMU_INLINE __half2 make_half2(__half x, __half y) { return __half2(x, y); }
EMU_INLINE __nv_bfloat162 make_bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return __nv_bfloat162(x, y); }

// The same functions for both types: arithmetic and comparison of scalars, arithmetic of pairs.
#define EMU_HALF_ARITHMETIC(Half, Half2)                                                                        \
  EMU_INLINE Half operator+(Half a, Half b) { return Half(float(a) + float(b)); }                               \
  EMU_INLINE Half operator-(Half a, Half b) { return Half(float(a) - float(b)); }                               \
  EMU_INLINE Half operator*(Half a, Half b) { return Half(float(a) * float(b)); }                               \
  EMU_INLINE Half operator/(Half a, Half b) { return Half(float(a) / float(b)); }                               \
  EMU_INLINE Half operator-(Half a) { return Half(-float(a)); }                                                 \
  EMU_INLINE Half& operator+=(Half& a, Half b) { return a = a + b; }                                            \
  EMU_INLINE Half& operator-=(Half& a, Half b) { return a = a - b; }                                            \
  EMU_INLINE Half& operator*=(Half& a, Half b) { return a = a * b; }                                            \
  EMU_INLINE Half& operator/=(Half& a, Half b) { return a = a / b; }                                            \
  EMU_INLINE bool operator==(Half a, Half b) { return float(a) == float(b); }                                   \
  EMU_INLINE bool operator!=(Half a, Half b) { return float(a) != float(b); }                                   \
  EMU_INLINE bool operator<(Half a, Half b) { return float(a) < float(b); }                                     \
  EMU_INLINE bool operator>(Half a, Half b) { return float(a) > float(b); }                                     \
  EMU_INLINE bool operator<=(Half a, Half b) { return float(a) <= float(b); }                                   \
  EMU_INLINE bool operator>=(Half a, Half b) { return float(a) >= float(b); }                                   \
  EMU_INLINE Half __hadd(Half a, Half b) { return a + b; }                                                      \
  EMU_INLINE Half __hsub(Half a, Half b) { return a - b; }                                                      \
  EMU_INLINE Half __hmul(Half a, Half b) { return a * b; }                                                      \
  EMU_INLINE Half __hdiv(Half a, Half b) { return a / b; }                                                      \
  EMU_INLINE Half __hneg(Half a) { return -a; }                                                                 \
  EMU_INLINE Half __hmax(Half a, Half b) { return Half(__builtin_fmaxf(float(a), float(b))); }                  \
  EMU_INLINE Half __hmin(Half a, Half b) { return Half(__builtin_fminf(float(a), float(b))); }                  \
  /* The product is exact in double and so is, nearly always, the sum: one rounding, as the instruction has. */ \
  EMU_INLINE Half __hfma(Half a, Half b, Half c) { return Half(__builtin_fmaf(float(a), float(b), float(c))); } \
  EMU_INLINE Half2 operator+(Half2 a, Half2 b) { return Half2(a.x + b.x, a.y + b.y); }                          \
  EMU_INLINE Half2 operator-(Half2 a, Half2 b) { return Half2(a.x - b.x, a.y - b.y); }                          \
  EMU_INLINE Half2 operator*(Half2 a, Half2 b) { return Half2(a.x * b.x, a.y * b.y); }                          \
  EMU_INLINE Half2 __hadd2(Half2 a, Half2 b) { return a + b; }                                                  \
  EMU_INLINE Half2 __hsub2(Half2 a, Half2 b) { return a - b; }                                                  \
  EMU_INLINE Half2 __hmul2(Half2 a, Half2 b) { return a * b; }                                                  \
  EMU_INLINE Half2 __hfma2(Half2 a, Half2 b, Half2 c) { return Half2(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)); }

EMU_HALF_ARITHMETIC(__half, __half2)
EMU_HALF_ARITHMETIC(__nv_bfloat16, __nv_bfloat162)

EMU_INLINE __half __float2half(float v) { return __half(v); }
EMU_INLINE __half __float2half_rn(float v) { return __half(v); }
EMU_INLINE float __half2float(__half v) { return float(v); }
EMU_INLINE __half2 __float2half2_rn(float v) { return __half2(v, v); }
EMU_INLINE __half2 __floats2half2_rn(float x, float y) { return __half2(x, y); }
EMU_INLINE __half2 __float22half2_rn(float2 v) { return __half2(v.x, v.y); }
EMU_INLINE __half2 __halves2half2(__half x, __half y) { return __half2(x, y); }
EMU_INLINE __half2 __half2half2(__half v) { return __half2(v, v); }
EMU_INLINE float2 __half22float2(__half2 v) { return float2(float(v.x), float(v.y)); }
EMU_INLINE __half __low2half(__half2 v) { return v.x; }
EMU_INLINE __half __high2half(__half2 v) { return v.y; }
EMU_INLINE float __low2float(__half2 v) { return float(v.x); }
EMU_INLINE float __high2float(__half2 v) { return float(v.y); }
EMU_INLINE unsigned short __half_as_ushort(__half v) { return v.bits; }
EMU_INLINE __half __ushort_as_half(unsigned short bits) {
  __half v;
  v.bits = bits;
  return v;
}

EMU_INLINE __nv_bfloat16 __float2bfloat16(float v) { return __nv_bfloat16(v); }
EMU_INLINE __nv_bfloat16 __float2bfloat16_rn(float v) { return __nv_bfloat16(v); }
EMU_INLINE float __bfloat162float(__nv_bfloat16 v) { return float(v); }
EMU_INLINE __nv_bfloat162 __float2bfloat162_rn(float v) { return __nv_bfloat162(v, v); }
EMU_INLINE __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return __nv_bfloat162(x, y); }
EMU_INLINE __nv_bfloat162 __float22bfloat162_rn(float2 v) { return __nv_bfloat162(v.x, v.y); }
EMU_INLINE __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return __nv_bfloat162(x, y); }
EMU_INLINE __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 v) { return __nv_bfloat162(v, v); }
EMU_INLINE float2 __bfloat1622float2(__nv_bfloat162 v) { return float2(float(v.x), float(v.y)); }
EMU_INLINE __nv_bfloat16 __low2bfloat16(__nv_bfloat162 v) { return v.x; }
EMU_INLINE __nv_bfloat16 __high2bfloat16(__nv_bfloat162 v) { return v.y; }
EMU_INLINE float __low2float(__nv_bfloat162 v) { return float(v.x); }
EMU_INLINE float __high2float(__nv_bfloat162 v) { return float(v.y); }
EMU_INLINE unsigned short __bfloat16_as_ushort(__nv_bfloat16 v) { return v.bits; }
EMU_INLINE __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  __nv_bfloat16 v;
  v.bits = bits;
  return v;
}
