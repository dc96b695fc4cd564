// ptx/wgmma.cuh on the CPU back end.
#pragma once
#include <type_traits>

#include "common/emu/instructions/cuda_emu.h"

namespace flash::emu {

// `a`: four registers, or nullptr where A is in shared memory too.
void wgmma(int n, bool bf16, bool trans_a, bool trans_b, float* d, const uint32_t* a, uint64_t a_descriptor,
           uint64_t b_descriptor, bool accumulate, const char* file, int line);
void wgmma_fence(const char* file, int line);
void wgmma_commit(const char* file, int line);
void wgmma_wait(int groups_open, const char* file, int line);
uint32_t shared_address(const void*);

}  // namespace flash::emu

namespace {

template <int N, class Element>
struct Wgmma {
  static constexpr bool kBf16 = std::is_same<Element, __nv_bfloat16>::value;
  template <int kTransA, int kTransB>
  static EMU_INLINE void ss(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate, EMU_CALL_SITE) {
    flash::emu::wgmma(N, kBf16, kTransA, kTransB, d, nullptr, a, b, accumulate != 0, file, line);
  }
  template <int kTransB>
  static EMU_INLINE void rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int accumulate, EMU_CALL_SITE) {
    flash::emu::wgmma(N, kBf16, false, kTransB, d, a, 0, b, accumulate != 0, file, line);
  }
};

EMU_INLINE void wgmma_fence(EMU_CALL_SITE) { flash::emu::wgmma_fence(file, line); }
EMU_INLINE void wgmma_commit(EMU_CALL_SITE) { flash::emu::wgmma_commit(file, line); }
template <int kGroupsOpen>
EMU_INLINE void wgmma_wait(EMU_CALL_SITE) {
  flash::emu::wgmma_wait(kGroupsOpen, file, line);
}
template <int kCount>
EMU_INLINE void pin(float (&)[kCount]) {}

// Matrix descriptors name dynamic shared memory alone.
EMU_INLINE uint32_t shared_address(const void* p) { return flash::emu::shared_address(p); }

}  // namespace
