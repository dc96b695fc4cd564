// ptx/cp_async.cuh on the CPU back end.
#pragma once

#include "common/emu/instructions/cuda_emu.h"

namespace flash::emu {

// Until the thread's wait that covers it a copy has not landed: the destination keeps its old bytes. With EMU_SEED set
// some land at once, some when their group is committed, some at the wait.
void cp_async(void* shared, const void* global, int bytes, int source_bytes, const char* file, int line);
void cp_async_commit();
void cp_async_wait(int groups_in_flight);

}  // namespace flash::emu

namespace {

template <int kBytes>
EMU_INLINE void cp_async(void* shared, const void* global, bool valid = true, const char* file = __builtin_FILE(),
                         int line = __builtin_LINE()) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
  flash::emu::cp_async(shared, global, kBytes, valid ? kBytes : 0, file, line);
}
EMU_INLINE void cp_async_commit() { flash::emu::cp_async_commit(); }
template <int kGroupsInFlight>
EMU_INLINE void cp_async_wait() {
  flash::emu::cp_async_wait(kGroupsInFlight);
}

}  // namespace
