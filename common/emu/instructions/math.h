// CUDA's device maths for kernels on the CPU back end. The approximate functions (__expf, __fdividef, ...) are the exact
// ones here: a kernel's error on a GPU can be a little larger. Calls of exp are counted in the watched build.
// Not those of std::exp, which <cmath> owns.
// fmaf is a call into libm on a CPU without the instruction: kernels that accumulate write sum += a * b.
#pragma once
#include <cmath>
#include <cstring>
#include <type_traits>

#include "common/emu/instructions/vector_types.h"

#ifndef FLASH_WATCH
#define FLASH_WATCH 0
#endif

namespace flash::emu {

// Tells the watcher of one call of exp by the current thread.
void count_exp(const char* file, int line);

EMU_INLINE float counted_expf(float x, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (FLASH_WATCH) count_exp(file, line);
  return ::expf(x);
}
EMU_INLINE float counted_exp2f(float x, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (FLASH_WATCH) count_exp(file, line);
  return ::exp2f(x);
}
EMU_INLINE double counted_exp(double x, const char* file, int line) {
  if (FLASH_WATCH) count_exp(file, line);
  return ::exp(x);
}
EMU_INLINE double counted_exp2(double x, const char* file, int line) {
  if (FLASH_WATCH) count_exp(file, line);
  return ::exp2(x);
}
EMU_INLINE float inline_fmaxf(float a, float b) { return a > b || b != b ? a : b; }
EMU_INLINE float inline_fminf(float a, float b) { return a < b || b != b ? a : b; }

template <class To, class From>
EMU_INLINE To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "the types have one size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace flash::emu

// Function-like macros, since <cmath> owns these names: the maximum would be a call into libm, and an exp uncounted.
#define expf(x) flash::emu::counted_expf(x)
#define exp2f(x) flash::emu::counted_exp2f(x)
#define fmaxf(a, b) flash::emu::inline_fmaxf(a, b)
#define fminf(a, b) flash::emu::inline_fminf(a, b)
#define __expf(x) flash::emu::counted_expf(x)

// exp and exp2 of any number, as CUDA has them: float for a float, else double. No macros, for headers that are included
// later say std::exp. In the unnamed namespace, where kernels stand as well, these hide the C library's; they are
// templates so that elsewhere a call with a double is not ambiguous (but goes to the library, and isn't counted).
namespace {
template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>>
EMU_INLINE auto exp(T x, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if constexpr (std::is_same_v<T, float>)
    return flash::emu::counted_expf(x, file, line);
  else
    return flash::emu::counted_exp(double(x), file, line);
}
template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>>
EMU_INLINE auto exp2(T x, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if constexpr (std::is_same_v<T, float>)
    return flash::emu::counted_exp2f(x, file, line);
  else
    return flash::emu::counted_exp2(double(x), file, line);
}
}  // namespace

EMU_INLINE float __exp10f(float x) { return ::powf(10.0f, x); }
EMU_INLINE float __logf(float x) { return ::logf(x); }
EMU_INLINE float __log2f(float x) { return ::log2f(x); }
EMU_INLINE float __log10f(float x) { return ::log10f(x); }
EMU_INLINE float __powf(float x, float y) { return ::powf(x, y); }
EMU_INLINE float __sinf(float x) { return ::sinf(x); }
EMU_INLINE float __cosf(float x) { return ::cosf(x); }
EMU_INLINE float rsqrtf(float x) { return 1.0f / ::sqrtf(x); }
EMU_INLINE float __frsqrt_rn(float x) { return 1.0f / ::sqrtf(x); }
EMU_INLINE float __fsqrt_rn(float x) { return ::sqrtf(x); }
EMU_INLINE float __frcp_rn(float x) { return 1.0f / x; }
EMU_INLINE float __fdiv_rn(float a, float b) { return a / b; }
EMU_INLINE float __fdividef(float a, float b) { return a / b; }
EMU_INLINE float __fadd_rn(float a, float b) { return a + b; }
EMU_INLINE float __fsub_rn(float a, float b) { return a - b; }
EMU_INLINE float __fmul_rn(float a, float b) { return a * b; }
EMU_INLINE float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
EMU_INLINE float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

EMU_INLINE int __float_as_int(float x) { return flash::emu::same_bits<int>(x); }
EMU_INLINE unsigned __float_as_uint(float x) { return flash::emu::same_bits<unsigned>(x); }
EMU_INLINE float __int_as_float(int x) { return flash::emu::same_bits<float>(x); }
EMU_INLINE float __uint_as_float(unsigned x) { return flash::emu::same_bits<float>(x); }
EMU_INLINE long long __double_as_longlong(double x) { return flash::emu::same_bits<long long>(x); }
EMU_INLINE double __longlong_as_double(long long x) { return flash::emu::same_bits<double>(x); }
EMU_INLINE int __float2int_rn(float x) { return int(::nearbyintf(x)); }
EMU_INLINE int __float2int_rz(float x) { return int(x); }
EMU_INLINE int __float2int_rd(float x) { return int(::floorf(x)); }
EMU_INLINE int __float2int_ru(float x) { return int(::ceilf(x)); }
EMU_INLINE float __int2float_rn(int x) { return float(x); }

EMU_INLINE int __popc(unsigned x) { return __builtin_popcount(x); }
EMU_INLINE int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
EMU_INLINE int __ffs(int x) { return __builtin_ffs(x); }
EMU_INLINE int __ffsll(long long x) { return __builtin_ffsll(x); }
EMU_INLINE int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
EMU_INLINE int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll((unsigned long long)x); }
EMU_INLINE unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1) << (31 - bit);
  return reversed;
}
EMU_INLINE int __mul24(int a, int b) { return a * b; }
EMU_INLINE int __mulhi(int a, int b) { return int((long long)a * b >> 32); }
EMU_INLINE unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }

// Loads that go through another cache on a GPU.
template <class T>
EMU_INLINE T __ldg(const T* p) {
  return *p;
}
template <class T>
EMU_INLINE T __ldcg(const T* p) {
  return *p;
}
template <class T>
EMU_INLINE T __ldcs(const T* p) {
  return *p;
}
template <class T>
EMU_INLINE void __stcs(T* p, T value) {
  *p = value;
}

// min and max of every pair of arithmetic types that CUDA has; a mixed pair is compared as C++ would convert it.
#define EMU_MIN_MAX(A, B, R)                                     \
  EMU_INLINE constexpr R min(A left, B right) {                  \
    const R a = static_cast<R>(left), b = static_cast<R>(right); \
    return a < b ? a : b;                                        \
  }                                                              \
  EMU_INLINE constexpr R max(A left, B right) {                  \
    const R a = static_cast<R>(left), b = static_cast<R>(right); \
    return a > b ? a : b;                                        \
  }
EMU_MIN_MAX(int, int, int)
EMU_MIN_MAX(unsigned, unsigned, unsigned)
EMU_MIN_MAX(int, unsigned, unsigned)
EMU_MIN_MAX(unsigned, int, unsigned)
EMU_MIN_MAX(long, long, long)
EMU_MIN_MAX(unsigned long, unsigned long, unsigned long)
EMU_MIN_MAX(long, unsigned long, unsigned long)
EMU_MIN_MAX(unsigned long, long, unsigned long)
EMU_MIN_MAX(long long, long long, long long)
EMU_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
EMU_INLINE float min(float a, float b) { return fminf(a, b); }
EMU_INLINE float max(float a, float b) { return fmaxf(a, b); }
EMU_INLINE double min(double a, double b) { return a < b || b != b ? a : b; }
EMU_INLINE double max(double a, double b) { return a > b || b != b ? a : b; }
EMU_INLINE double min(float a, double b) { return min(double(a), b); }
EMU_INLINE double max(float a, double b) { return max(double(a), b); }
EMU_INLINE double min(double a, float b) { return min(a, double(b)); }
EMU_INLINE double max(double a, float b) { return max(a, double(b)); }
