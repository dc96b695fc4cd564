// The mbarriers of the block that runs. An mbarrier's phase ends when all its arrivals have come and all bytes that were
// announced; then the next begins. Only what a program may see of it: the 64 bits in shared memory are left alone.
#pragma once
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "common/emu/run/runtime.h"

namespace flash::emu {

struct Mbarrier {
  uintptr_t at = 0;
  bool valid = false;
  uint32_t count = 0, pending = 0;  // arrivals a phase needs, and those that are still missing
  int64_t bytes = 0;                // announced and not yet come; below 0 where a copy was faster than its expect_tx
  int64_t announced = 0;            // in this phase
  uint64_t phase = 0;               // phases that have ended; the parity of the one under way is phase % 2
  CallSite init_site, expect_site;
  unsigned init_thread = 0;
  std::vector<unsigned> arrived;  // the threads whose arrivals this phase has
  std::vector<Thread*> waiting;   // for this phase's end
  std::vector<Thread*> woken;     // by the last phase's end
};

class Mbarriers {
 public:
  void begin_block();

  // Called by the running thread. What breaks the rules ends the kernel.
  void init(Thread&, const void* at, uint32_t count, CallSite);
  void invalidate(Thread&, const void* at, CallSite);
  void expect(Thread&, const void* at, uint32_t bytes, CallSite);
  void arrive(Thread&, const void* at, CallSite);
  // True: the phase of this parity has ended (for a fresh mbarrier: the one of parity 1). Else the thread is now among
  // those waiting; the caller lets the next one go on. `polls`: it is also woken when nothing else can go on.
  bool wait(Thread&, const void* at, bool parity, bool polls, CallSite);
  bool has_ended(unsigned barrier, bool parity) const { return (all_[barrier].phase & 1) != parity; }
  // A thread that polls and whose phase hasn't ended goes its way.
  void stop_waiting(Thread&);

  // The index of the valid mbarrier at this address; others end the kernel. `use`: "arrives at", ...
  unsigned find(const void* at, const char* use, CallSite) const;
  const Mbarrier& operator[](unsigned barrier) const { return all_[barrier]; }
  // Bytes of a copy that was issued in the barrier's phase `phase` have come. False: that phase had ended without them,
  // or ends now with more than were announced.
  bool come(unsigned barrier, uint64_t phase, uint32_t bytes);

  bool any() const { return !all_.empty(); }
  // "mbarrier full[1] (initialised at a.cu:61 with 2)".
  std::string name(const Block&, unsigned barrier) const;
  // Of a thread that waits, for ever: in which phase the mbarrier is and what it lacks.
  std::string state(unsigned barrier) const;
  // What is probably wrong, "" if nothing can be said.
  std::string likely_cause(const Block&) const;

 private:
  void end_phase_if_complete(unsigned barrier);

  std::vector<Mbarrier> all_;
  std::unordered_map<uintptr_t, unsigned> index_;
};

}  // namespace flash::emu
