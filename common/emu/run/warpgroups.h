// wgmma: 128 threads (a warpgroup) start products whose operands the tensor cores read from shared memory by themselves,
// and whose results come later. Here a product is computed when a wait covers it, from shared memory as it is then; the
// accumulators hold NaN meanwhile. So a wait that is missing, or a tile filled again too early, is a wrong result.
#pragma once
#include <cstdint>
#include <deque>
#include <vector>

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
  uint64_t a_descriptor = 0, b_descriptor = 0;
  float* d = nullptr;  // n / 2 of them
  CallSite site;
};

// Where the element of row `mn` and column `k` of an operand lies, in bytes from the begin of the block's dynamic shared
// memory: what the 64 bits of a matrix descriptor say.
uint32_t operand_address(uint64_t descriptor, bool transposed, unsigned mn, unsigned k);

class Warpgroups {
 public:
  enum class Step : uint8_t { fence, commit, wait };
  void begin_block();
  void issue(Thread&, const Wgmma&);
  // The thread arrives at wgmma.fence, commit_group or wait_group; true: all 128 have, those waiting go on.
  bool arrive(Thread&, Step, unsigned groups_open, CallSite);
  std::string state(const Thread&) const;  // "it has 96 of 128 threads"
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
    unsigned groups_open = 0;
    CallSite site;
    std::vector<Thread*> waiting;
    std::vector<Share> shares;  // [thread of the warpgroup]
  };
  void check_alike(const Block&, Group&, unsigned warpgroup) const;
  void compute(const Block&, Group&, size_t op);

  std::vector<Group> groups_;  // [warpgroup]
};

}  // namespace flash::emu
