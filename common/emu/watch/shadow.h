// Shadow memory: what is known of each word of global and shared memory, and the rule that tells a race.
//
// Time is a counter that goes on at every barrier of anything. A cell remembers its last write and two reads with their
// time and thread. Two accesses of different threads, one of them a write, race unless something orders them: a
// __syncthreads of their block that came after the first, a __syncwarp both took part in (of the same warp), or the end
// of the kernel. Nothing else counts, above all not the order in which this back end happened to run them: a missing
// barrier is found in every schedule. Atomics don't race among themselves.
//
// Why two reads are enough: a write that races with any read since the last barrier races with the newest read or with
// the newest one of the others by distance (another block before another warp before another lane). The exception:
// __syncwarp with parts of a warp, and three readers in it.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/emu/run/runtime.h"

namespace flash::emu {

// Who made an access: thread in its block (10 bits), site (19 bits), flags. kAsync is a write of cp.async, kPending one
// that hasn't landed.
using Who = uint32_t;
constexpr Who kThreadMask = 1023, kAsync = 1u << 29, kAtomic = 1u << 30, kPending = 1u << 31;
inline Who make_who(uint32_t thread, uint32_t site) { return thread | site << 10; }
inline uint32_t site_of(Who who) { return who >> 10 & 0x7ffff; }

struct Access {
  uint32_t time = 0;  // 0: never
  Who who = 0;
};

struct Cell {
  Access write, read, other_read;
};

// A piece of memory with shadow: an allocation, a static __shared__ array, the dynamic shared memory.
struct Region {
  uintptr_t base = 0;
  size_t bytes = 0;
  bool is_shared = false;
  bool host_wrote = false;  // all of it
  unsigned shift = 2;       // a cell covers 1 << shift bytes: a word, until a kernel makes a smaller access
  struct Free {
    void operator()(Cell* cells) const { std::free(cells); }
  };
  std::unique_ptr<Cell[], Free> cells;
  std::string name;
  // The atomic before the last, where two threads' atomics met in one epoch: index of the cell -> access.
  std::unordered_map<size_t, Access> other_atomic;

  size_t cell_count() const { return (bytes + (size_t(1) << shift) - 1) >> shift; }
  void make_cells();                // zeroed
  void refine(unsigned new_shift);  // smaller cells, same knowledge
  void forget_writes();             // nobody wrote it
  void forget_times();              // the clock starts anew; what was written stays written
};

// The clocks of the block that runs and of the thread that is looking.
struct Clock {
  uint32_t now = 2;
  uint32_t kernel = 1;                 // accesses up to here came before this kernel
  uint32_t block = 1;                  // ... before this block began
  uint32_t barrier = 1;                // ... before the block's last __syncthreads
  uint32_t warp_barrier[kLanes] = {};  // by warp: before its last __syncwarp of all its lanes
  // By warp, where it had a __syncwarp of some lanes only: [l * 32 + m] what lane l knows of lane m. Else empty.
  std::vector<uint32_t> lane_barrier[kLanes];

  uint32_t me = 0;  // the thread that looks, in its block

  // Does an access of the past stand unordered beside one that thread `me` makes now? `floor` is `kernel` for global
  // and `block` for shared memory, whose content doesn't outlive the block.
  bool unordered(Access past, uint32_t floor) const {
    if (past.time <= floor) return false;
    if (past.time <= block) return true;  // another block of this kernel
    if (past.time <= barrier) return false;
    return past_in_this_interval(past);
  }
  bool past_in_this_interval(Access past) const {
    const uint32_t thread = past.who & kThreadMask;
    if (thread == me) return false;
    const uint32_t warp = me / kLanes;
    if (thread / kLanes != warp) return true;
    if (past.time <= warp_barrier[warp]) return false;
    const std::vector<uint32_t>& lanes = lane_barrier[warp];
    return lanes.empty() || past.time > lanes[me % kLanes * kLanes + thread % kLanes];
  }
  // 0: ordered or mine; 1: another lane of my warp, 2: another warp, 3: another block.
  int distance(Access past, uint32_t floor) const {
    if (!unordered(past, floor)) return 0;
    if (past.time <= block) return 3;
    return (past.who & kThreadMask) / kLanes == me / kLanes ? 1 : 2;
  }

  void begin_kernel();
  void begin_block();
  void pass_block_barrier();
  // `all_lanes`: those that the warp has. What a lane did before it returned isn't ordered by a barrier of the others.
  void pass_warp_barrier(uint32_t warp, uint32_t mask, uint32_t all_lanes);
};

}  // namespace flash::emu
