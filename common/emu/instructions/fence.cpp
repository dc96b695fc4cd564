#include "common/emu/instructions/fence.h"

#include "common/emu/run/watched.h"

namespace flash::emu {

void fence_async() { watch_fence_async(*current_thread()); }
void mbarrier_init_fence() { watch_fence_mbarrier_init(*current_thread()); }

}  // namespace flash::emu
