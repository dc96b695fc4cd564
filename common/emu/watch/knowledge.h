// Order between some threads only: who knows of what. An mbarrier or a named barrier orders two warps and not a third,
// so the floors of shadow.h (all of the block, all of a warp) don't say enough; these are vector clocks beside them.
//
// Each thread has a row: for every other thread, up to what time it knows that thread's accesses. Who arrives at a
// barrier leaves its row there, who passes it takes along what all left. So "one lane arrives for its warp, and nothing
// made the others' reads known to that lane" comes out exactly.
//
// What the copy engine (TMA, "async proxy") does has columns of its own, one an mbarrier: its writes are known to those
// who passed that mbarrier, and to whom they told. And what threads write the ordinary way is known to the engine only
// through a fence.proxy.async of someone who knew of it; to other blocks only through a __threadfence().
//
// The rows begin with a block's first such instruction: kernels without pay nothing.
#pragma once
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "common/emu/run/runtime.h"

namespace flash::emu {

struct Row {
  std::vector<uint32_t> known;      // [thread, then column]: its accesses up to this time
  std::vector<uint32_t> to_async;   // [thread]: of these, fenced for the copy engine; empty: nothing
  std::vector<uint32_t> to_device;  // [thread]: of these, fenced for other blocks
  void join(const Row&);
};

// A thing that threads meet at: what those who arrived know, and what one who passes it learns.
struct SyncPoint {
  Row gathering, published;
};

class Knowledge {
 public:
  void begin_block(unsigned threads);
  bool active() const { return active_; }
  // `warp_knows(thread, other)`: what is known already of lanes of one warp.
  template <class WarpKnows>
  void activate(WarpKnows warp_knows) {
    active_ = true;
    rows_.assign(threads_, Row());
    for (unsigned t = 0; t < threads_; ++t) {
      rows_[t].known.assign(threads_, 0);
      for (unsigned other = t / kLanes * kLanes; other < threads_ && other < (t / kLanes + 1) * kLanes; ++other) {
        rows_[t].known[other] = warp_knows(t, other);
      }
    }
  }
  unsigned new_column() { return columns_++; }  // of the block; 0, 1, 2, ...

  bool knows(unsigned me, unsigned thread, uint32_t time) const { return rows_[me].known[thread] >= time; }
  bool knows_column(unsigned me, unsigned column, uint32_t time) const {
    const std::vector<uint32_t>& known = rows_[me].known;
    return threads_ + column < known.size() && known[threads_ + column] >= time;
  }
  uint32_t column(unsigned me, unsigned column) const {
    const std::vector<uint32_t>& known = rows_[me].known;
    return threads_ + column < known.size() ? known[threads_ + column] : 0;
  }
  bool fenced_for_async(unsigned me, unsigned thread, uint32_t time) const {
    return !rows_[me].to_async.empty() && rows_[me].to_async[thread] >= time;
  }

  void arrive(unsigned me, SyncPoint&, uint32_t now);
  void pass(unsigned me, const SyncPoint& point);
  void learn(unsigned me, unsigned column, uint32_t time);
  void fence_async(unsigned me, uint32_t now, uint32_t barrier);
  void fence_device(unsigned me, uint32_t now, uint32_t barrier);
  void warp_barrier(unsigned warp, uint32_t mask, uint32_t now);
  void block_barrier();  // what floors don't say: columns and fences

  const Row& row(unsigned thread) const { return rows_[thread]; }
  void join(unsigned me, const Row& row) {
    rows_[me].join(row);
    news_ = true;
  }
  static void set_column(Row&, unsigned index, uint32_t time);
  unsigned threads() const { return threads_; }

 private:
  bool active_ = false;
  bool news_ = false;  // since the last barrier of the block
  unsigned threads_ = 0, columns_ = 0;
  std::vector<Row> rows_;
};

}  // namespace flash::emu
