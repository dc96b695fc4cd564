// ptx/named_barrier.cuh on the CPU back end.
#pragma once

#include "common/emu/instructions/cuda_emu.h"

namespace flash::emu {

void named_barrier(int id, int threads, bool waits, const char* file, int line);

}  // namespace flash::emu

namespace {

EMU_INLINE void named_sync(int id, int threads, EMU_CALL_SITE) {
  flash::emu::named_barrier(id, threads, true, file, line);
}
EMU_INLINE void named_arrive(int id, int threads, EMU_CALL_SITE) {
  flash::emu::named_barrier(id, threads, false, file, line);
}

}  // namespace
