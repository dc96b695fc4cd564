// ptx/fence.cuh on the CPU back end: nothing to do, but for the watcher.
#pragma once

#include "common/emu/instructions/cuda_emu.h"

namespace flash::emu {

void fence_async();
void mbarrier_init_fence();

}  // namespace flash::emu

namespace {

EMU_INLINE void fence_async() { flash::emu::fence_async(); }
EMU_INLINE void fence_async_global() { flash::emu::fence_async(); }
EMU_INLINE void mbarrier_init_fence() { flash::emu::mbarrier_init_fence(); }

}  // namespace
