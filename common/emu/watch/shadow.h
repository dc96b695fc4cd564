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
#include "common/emu/watch/knowledge.h"

namespace flash::emu {

// Who made an access: thread in its block (10 bits), site (17 bits), flags. kAsync is a write of cp.async, kPending one
// that hasn't landed. kEngine: the copy engine, for a load; the 10 bits are then the mbarrier's column (knowledge.h).
// kLocked, of a write: the word belongs to an mbarrier, or a store of the engine is still reading it.
using Who = uint32_t;
constexpr Who kThreadMask = 1023, kEngine = 1u << 27, kLocked = 1u << 28, kAsync = 1u << 29, kAtomic = 1u << 30,
              kPending = 1u << 31;
constexpr Who kWhoMask = kThreadMask | kEngine;
constexpr Who kSpecial = kLocked | kAtomic | kPending;  // a write that needs a closer look
inline Who make_who(uint32_t thread, uint32_t site) { return thread | site << 10; }
inline uint32_t site_of(Who who) { return who >> 10 & 0x1ffff; }

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

  // Shared memory, where rows of knowledge are kept: the newest read of each warp and the newest by another of its lanes.
  // Two reads in the cell are then not enough: what orders the newest doesn't order the others.
  struct WarpReads {
    Access newest, other_lane;
  };
  unsigned warps = 0;
  struct FreeReads {
    void operator()(WarpReads* reads) const { std::free(reads); }
  };
  std::unique_ptr<WarpReads[], FreeReads> reads;  // [cell * warps + warp]
  void note_read(size_t cell, Access access) {
    WarpReads& mine = reads[cell * warps + (access.who & kThreadMask) / kLanes];
    if ((mine.newest.who ^ access.who) & kThreadMask) mine.other_lane = mine.newest;
    mine.newest = access;
  }
  void keep_reads(unsigned warps_of_block);
  // The tensor cores' reads for a warpgroup (a unit), which are of 16 bytes: [chunk * units + unit].
  unsigned units = 0;
  std::vector<Access> unit_reads;

  size_t cell_count() const { return (bytes + (size_t(1) << shift) - 1) >> shift; }
  void make_cells();                // zeroed
  void refine(unsigned new_shift);  // smaller cells, same knowledge
  void forget_writes();             // nobody wrote it
  void forget_times();              // the clock starts anew; what was written stays written
};

// Order between blocks: __threadfence() and then an atomic, of one thread, tell whoever updates the same word later
// what that thread had fenced. So the last block of a reduction may read what the others left.
class DeviceOrder {
 public:
  void begin_kernel() { counters_.clear(), of_block_.clear(); }
  void begin_block() { of_block_.clear(); }
  bool any() const { return !of_block_.empty(); }
  bool in_use() const { return !counters_.empty(); }
  // The thread updates the word at `at`.
  void updated(Knowledge&, unsigned me, uintptr_t at, uint32_t block, uint32_t now);
  bool knows(const Knowledge&, unsigned me, Access past) const;

 private:
  struct Release {
    uint32_t block, time;  // when its block began; the atomic
    unsigned thread;
    std::vector<uint32_t> fenced;  // [thread]
  };
  struct Counter {
    std::vector<Release> releases;  // by time
    uint32_t block = 0;             // the next two are of the block that began then
    unsigned column = 0;            // how many of the releases a thread knows
    SyncPoint within;
  };
  std::unordered_map<uintptr_t, Counter> counters_;
  std::vector<const Counter*> of_block_;  // updated in the block that runs
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

  Knowledge knowledge;  // between some threads of the block only
  DeviceOrder device;

  uint32_t me = 0;  // the thread that looks, in its block

  // Does an access of the past stand unordered beside one that thread `me` makes now? `floor` is `kernel` for global
  // and `block` for shared memory, whose content doesn't outlive the block.
  // kRows: whether rows of knowledge are kept, where that is known already.
  bool unordered(Access past, uint32_t floor) const {
    return knowledge.active() ? unordered<true>(past, floor) : unordered<false>(past, floor);
  }
  template <bool kRows>
  bool unordered(Access past, uint32_t floor) const {
    if (past.time <= floor) return false;
    if (kRows) return unordered_by_rows(past);
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
  // The floors, then the rows.
  bool unordered_by_rows(Access past) const;
  // 0: ordered or mine; 1: another lane of my warp, 2: another warp, 3: another block.
  int distance(Access past, uint32_t floor) const {
    return knowledge.active() ? distance<true>(past, floor) : distance<false>(past, floor);
  }
  template <bool kRows>
  int distance(Access past, uint32_t floor) const {
    if (!unordered<kRows>(past, floor)) return 0;
    if (past.time <= block) return 3;
    return (past.who & kWhoMask) / kLanes == me / kLanes ? 1 : 2;
  }

  void begin_kernel();
  void begin_block(unsigned threads);
  void pass_block_barrier();
  // `all_lanes`: those that the warp has. What a lane did before it returned isn't ordered by a barrier of the others.
  void pass_warp_barrier(uint32_t warp, uint32_t mask, uint32_t all_lanes);
  void keep_rows();  // of knowledge, from now to the block's end
};

}  // namespace flash::emu
