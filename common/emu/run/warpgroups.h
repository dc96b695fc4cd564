// wgmma: 128 threads (a warpgroup) start products whose operands the tensor cores read from shared memory by themselves,
// and whose results come later. Here a product is computed when a wait covers it, from shared memory as it is then; the
// accumulators hold NaN meanwhile. So a wait that is missing, or a tile filled again too early, is a wrong result.
#pragma once
#include <cstdint>
#include <deque>
#include <list>
#include <vector>

#include "common/emu/run/product.h"
#include "common/emu/run/registers.h"
#include "common/emu/run/runtime.h"

namespace flash::emu {

class Warpgroups {
 public:
  // What all 128 threads do together.
  enum class Step : uint8_t { fence, commit, wait, registers_down, registers_up };
  void begin_block(unsigned threads);
  void issue(Thread&, const Wgmma&);
  // The thread arrives. `operand`: how many groups of products may stay open, or how many registers a thread is to have.
  // True: all 128 have arrived, those waiting go on.
  bool arrive(Thread&, Step, unsigned operand, CallSite);
  std::string state(const Thread&) const;  // "it has 96 of 128 threads"
  // Why registers will never come, "" if nobody waits for any.
  std::string why_no_registers(const Block&) const;
  // What the block leaves behind that nobody waited for.
  const Wgmma* unfinished() const;

 private:
  struct Share {                            // of one thread
    std::vector<Wgmma> issued;              // since the last commit
    std::deque<std::vector<Wgmma>> groups;  // oldest first
  };
  struct Group {
    unsigned arrived = 0;
    Step step = Step::fence;
    unsigned operand = 0;
    bool takes = false;  // all 128 wait for registers
    CallSite site;
    std::vector<Thread*> waiting;
    std::vector<Share> shares;             // [thread of the warpgroup]
    std::list<Accumulators> accumulators;  // in flight
  };
  void check_alike(const Block&, Group&, unsigned warpgroup) const;
  void compute(const Block&, Group&, size_t op);
  void finish(const Block&, Group&, unsigned warpgroup, unsigned groups_open);
  void check_registers(Step, unsigned registers, unsigned warpgroup, CallSite) const;
  void let_go_on(Group&);

  std::vector<Group> groups_;  // [warpgroup]
  Registers registers_;
};

}  // namespace flash::emu
