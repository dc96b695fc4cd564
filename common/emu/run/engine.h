// What a block has beside its threads: mbarriers, named barriers, the engine that copies, and wgmma.
#pragma once
#include "common/emu/run/copies.h"
#include "common/emu/run/mbarriers.h"
#include "common/emu/run/named_barriers.h"
#include "common/emu/run/warpgroups.h"

namespace flash::emu {

struct Engine {
  Mbarriers mbarriers;
  NamedBarriers named_barriers;
  Copies copies{mbarriers};
  Warpgroups warpgroups;
};

// Ends the kernel: a mistake in the use of these, told with both places.
[[noreturn]] void stop_engine(const char* kind, const std::string& sentence, CallSite here, CallSite other = {});

}  // namespace flash::emu
