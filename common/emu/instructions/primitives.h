// What CUDA threads do together or at once, for kernels on the CPU back end: barriers, shuffles, votes, atomics. All of
// it lives in primitives.cpp, out of line and not instrumented. The last two arguments of each are the place of the
// call, for error messages and counts; kernels never write them.
#pragma once
#include <type_traits>

#include "common/emu/instructions/math.h"
#include "common/emu/instructions/vector_types.h"

#define EMU_CALL_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// Exited threads count as arrived, as on a GPU since sm_70; threads that wait at different __syncthreads are an error.
void __syncthreads(EMU_CALL_SITE);
int __syncthreads_count(int predicate, EMU_CALL_SITE);
int __syncthreads_and(int predicate, EMU_CALL_SITE);
int __syncthreads_or(int predicate, EMU_CALL_SITE);
void __syncwarp(unsigned mask = 0xffffffffu, EMU_CALL_SITE);

void __threadfence();
EMU_INLINE void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
EMU_INLINE void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// The lanes of the warp that haven't returned. (On a GPU any subset that has the caller is a legal answer.)
unsigned __activemask();
unsigned __ballot_sync(unsigned mask, int predicate, EMU_CALL_SITE);
int __any_sync(unsigned mask, int predicate, EMU_CALL_SITE);
int __all_sync(unsigned mask, int predicate, EMU_CALL_SITE);
unsigned __reduce_add_sync(unsigned mask, unsigned value, EMU_CALL_SITE);
unsigned __reduce_min_sync(unsigned mask, unsigned value, EMU_CALL_SITE);
unsigned __reduce_max_sync(unsigned mask, unsigned value, EMU_CALL_SITE);
int __reduce_add_sync(unsigned mask, int value, EMU_CALL_SITE);
int __reduce_min_sync(unsigned mask, int value, EMU_CALL_SITE);
int __reduce_max_sync(unsigned mask, int value, EMU_CALL_SITE);
unsigned __reduce_and_sync(unsigned mask, unsigned value, EMU_CALL_SITE);
unsigned __reduce_or_sync(unsigned mask, unsigned value, EMU_CALL_SITE);
unsigned __reduce_xor_sync(unsigned mask, unsigned value, EMU_CALL_SITE);

namespace flash::emu {

enum class Shuffle { idx, up, down, xor_ };
// `lane` is the source lane, the distance, or the xor mask.
unsigned long long shuffle(Shuffle, unsigned mask, unsigned long long bits, unsigned lane, int width, const char* file,
                           int line);

template <class T>
EMU_INLINE T shuffle_value(Shuffle kind, unsigned mask, T value, unsigned lane, int width, const char* file, int line) {
  static_assert(std::is_trivially_destructible_v<T> && sizeof(T) <= 8, "a shuffle moves 16, 32 or 64 bits");
  unsigned long long bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  bits = shuffle(kind, mask, bits, lane, width, file, line);
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace flash::emu

template <class T>
EMU_INLINE T __shfl_sync(unsigned mask, T value, int source_lane, int width = 32, EMU_CALL_SITE) {
  return flash::emu::shuffle_value(flash::emu::Shuffle::idx, mask, value, unsigned(source_lane), width, file, line);
}
template <class T>
EMU_INLINE T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_CALL_SITE) {
  return flash::emu::shuffle_value(flash::emu::Shuffle::up, mask, value, delta, width, file, line);
}
template <class T>
EMU_INLINE T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_CALL_SITE) {
  return flash::emu::shuffle_value(flash::emu::Shuffle::down, mask, value, delta, width, file, line);
}
template <class T>
EMU_INLINE T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, EMU_CALL_SITE) {
  return flash::emu::shuffle_value(flash::emu::Shuffle::xor_, mask, value, unsigned(lane_mask), width, file, line);
}

// Atomics return the old value.
#define EMU_ATOMIC(T)                               \
  T atomicAdd(T* address, T value, EMU_CALL_SITE);  \
  T atomicExch(T* address, T value, EMU_CALL_SITE); \
  T atomicCAS(T* address, T compare, T value, EMU_CALL_SITE);
#define EMU_ATOMIC_INTEGER(T)                      \
  T atomicSub(T* address, T value, EMU_CALL_SITE); \
  T atomicMin(T* address, T value, EMU_CALL_SITE); \
  T atomicMax(T* address, T value, EMU_CALL_SITE); \
  T atomicAnd(T* address, T value, EMU_CALL_SITE); \
  T atomicOr(T* address, T value, EMU_CALL_SITE);  \
  T atomicXor(T* address, T value, EMU_CALL_SITE);
EMU_ATOMIC(int)
EMU_ATOMIC(unsigned)
EMU_ATOMIC(unsigned long long)
EMU_ATOMIC_INTEGER(int)
EMU_ATOMIC_INTEGER(unsigned)
EMU_ATOMIC_INTEGER(unsigned long long)
float atomicAdd(float* address, float value, EMU_CALL_SITE);
float atomicExch(float* address, float value, EMU_CALL_SITE);
double atomicAdd(double* address, double value, EMU_CALL_SITE);

// Ends the kernel with an error.
[[noreturn]] void __trap();
