// ptx/mbarrier.cuh on the CPU back end.
#pragma once

#include "common/emu/instructions/cuda_emu.h"

namespace flash::emu {

void mbarrier_init(const void* barrier, unsigned arrivals, const char* file, int line);
void mbarrier_inval(const void* barrier, const char* file, int line);
// `expects`: announces bytes first, 0 as well.
void mbarrier_arrive(const void* barrier, bool expects, unsigned bytes, bool arrives, const char* file, int line);
bool mbarrier_wait(const void* barrier, unsigned parity, bool polls, const char* file, int line);

}  // namespace flash::emu

namespace {

EMU_INLINE void mbarrier_init(uint64_t* barrier, uint32_t arrivals, EMU_CALL_SITE) {
  flash::emu::mbarrier_init(barrier, arrivals, file, line);
}
EMU_INLINE void mbarrier_inval(uint64_t* barrier, EMU_CALL_SITE) { flash::emu::mbarrier_inval(barrier, file, line); }
EMU_INLINE void mbarrier_arrive(uint64_t* barrier, EMU_CALL_SITE) {
  flash::emu::mbarrier_arrive(barrier, false, 0, true, file, line);
}
EMU_INLINE void mbarrier_arrive_expect(uint64_t* barrier, uint32_t bytes, EMU_CALL_SITE) {
  flash::emu::mbarrier_arrive(barrier, true, bytes, true, file, line);
}
EMU_INLINE void mbarrier_expect(uint64_t* barrier, uint32_t bytes, EMU_CALL_SITE) {
  flash::emu::mbarrier_arrive(barrier, true, bytes, false, file, line);
}
EMU_INLINE bool mbarrier_try_wait(uint64_t* barrier, uint32_t parity, EMU_CALL_SITE) {
  return flash::emu::mbarrier_wait(barrier, parity, true, file, line);
}
EMU_INLINE void mbarrier_wait(uint64_t* barrier, uint32_t parity, EMU_CALL_SITE) {
  flash::emu::mbarrier_wait(barrier, parity, false, file, line);
}

}  // namespace
