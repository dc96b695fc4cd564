// bar.sync and bar.arrive: barriers 1 to 15 of a block, each for a number of threads. Barrier 0 is __syncthreads().
#pragma once
#include <vector>

#include "common/emu/run/runtime.h"

namespace flash::emu {

class NamedBarriers {
 public:
  static constexpr unsigned kCount = 16;
  void begin_block();
  // The thread arrives at barrier `id` of `threads` threads. True: they are complete, those waiting go on. What breaks
  // the rules ends the kernel.
  bool arrive(Thread&, int id, int threads, bool waits, CallSite);
  // "has 64 of 128 threads", of a barrier that never fills.
  std::string state(unsigned id) const;

 private:
  struct Barrier {
    unsigned threads = 0, arrived = 0;
    CallSite site;  // of the first to arrive
    std::vector<bool> has_arrived;
    std::vector<Thread*> waiting;
  };
  Barrier barriers_[kCount];
};

}  // namespace flash::emu
