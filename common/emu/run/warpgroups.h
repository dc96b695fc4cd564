// wgmma: 128 threads (a warpgroup) start products whose operands the tensor cores read from shared memory by themselves,
// and whose results come later. Here a product is computed when a wait covers it, from shared memory as it is then; the
// accumulators hold NaN meanwhile. So a wait that is missing, or a tile filled again too early, is a wrong result.
#pragma once
#include <cstdint>
#include <deque>
#include <vector>

#include "common/emu/run/registers.h"
#include "common/emu/run/runtime.h"

namespace flash::emu {

constexpr unsigned kWarpgroup = 128;

// One thread's share of one wgmma.mma_async.m64nNk16.
struct Wgmma {
  int n = 0;
  bool bf16 = false, a_from_registers = false;
  bool trans_a = false, trans_b = false;  // stored with rows along k: "MN-major"
  bool accumulate = false;
  uint32_t a[4] = {};
  const uint32_t* a_at = nullptr;  // where the thread has them
  uint64_t a_descriptor = 0, b_descriptor = 0;
  float* d = nullptr;  // n / 2 of them
  CallSite site;
};

// Where the element of row `mn` and column `k` of an operand lies, in bytes from the begin of the block's dynamic shared
// memory: what the 64 bits of a matrix descriptor say.
uint32_t operand_address(uint64_t descriptor, bool transposed, unsigned mn, unsigned k);

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
  struct Fragment {
    float* at;
    std::vector<float> values;
    unsigned in_flight = 0;
  };
  struct Share {                            // of one thread
    std::vector<Wgmma> issued;              // since the last commit
    std::deque<std::vector<Wgmma>> groups;  // oldest first
    std::vector<Fragment> fragments;
  };
  struct Group {
    unsigned arrived = 0;
    Step step = Step::fence;
    unsigned operand = 0;
    bool takes = false;  // all 128 wait for registers
    CallSite site;
    std::vector<Thread*> waiting;
    std::vector<Share> shares;  // [thread of the warpgroup]
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
