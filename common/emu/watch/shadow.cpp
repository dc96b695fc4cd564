#include "common/emu/watch/shadow.h"

#include <algorithm>
#include <cstdint>
#include <new>
#include <utility>

namespace flash::emu {

void Region::make_cells() {
  cells.reset(static_cast<Cell*>(std::calloc(std::max<size_t>(cell_count(), 1), sizeof(Cell))));
  if (!cells) throw std::bad_alloc();
  other_atomic.clear();
}

void Region::refine(unsigned new_shift) {
  const unsigned more = shift - new_shift;
  const std::unique_ptr<Cell[], Free> coarse = std::move(cells);
  std::unordered_map<size_t, Access> coarse_atomic;
  coarse_atomic.swap(other_atomic);
  shift = new_shift;
  make_cells();
  for (size_t i = 0; i < cell_count(); ++i) cells[i] = coarse[i >> more];
  if (reads) {
    const std::unique_ptr<WarpReads[], FreeReads> coarse_reads = std::move(reads);
    keep_reads(warps);
    for (size_t i = 0; i < cell_count() * warps; ++i) reads[i] = coarse_reads[(i / warps >> more) * warps + i % warps];
  }
  for (const auto& [cell, access] : coarse_atomic) {
    for (size_t part = 0; part < size_t(1) << more; ++part) other_atomic[(cell << more) + part] = access;
  }
}

void Region::keep_reads(unsigned warps_of_block) {
  warps = warps_of_block;
  reads.reset(static_cast<WarpReads*>(std::calloc(std::max<size_t>(cell_count() * warps, 1), sizeof(WarpReads))));
  if (!reads) throw std::bad_alloc();
}

void Region::forget_writes() {
  host_wrote = false;
  if (!cells) return;
  for (size_t i = 0; i < cell_count(); ++i) cells[i].write = Access();
}

void Region::forget_times() {
  other_atomic.clear();
  if (!cells) return;
  for (size_t i = 0; i < cell_count(); ++i) {
    cells[i].write.time = std::min(cells[i].write.time, 1u);
    cells[i].read = cells[i].other_read = Access();
  }
}

void DeviceOrder::updated(Knowledge& knowledge, unsigned me, uintptr_t at, uint32_t block, uint32_t now) {
  const std::vector<uint32_t>& fenced = knowledge.row(me).to_device;
  const auto found = counters_.find(at);
  if (found == counters_.end() && fenced.empty()) return;
  Counter& counter = found == counters_.end() ? counters_[at] : found->second;
  if (counter.block != block) {
    counter.block = block;
    counter.column = knowledge.new_column();
    counter.within = SyncPoint();
    of_block_.push_back(&counter);
  }
  knowledge.pass(me, counter.within);
  if (!fenced.empty()) {
    counter.releases.push_back({block, now, me, fenced});
    counter.within.published.join({fenced, {}, {}});
  }
  knowledge.learn(me, counter.column, uint32_t(counter.releases.size()));
}

bool DeviceOrder::knows(const Knowledge& knowledge, unsigned me, Access past) const {
  const unsigned thread = past.who & kThreadMask;
  for (const Counter* counter : of_block_) {
    const uint32_t known = knowledge.column(me, counter->column);
    const auto first = counter->releases.begin(), end = first + known;
    const auto later = [](uint32_t time, const Release& release) { return time <= release.block; };
    auto at = std::upper_bound(first, end, past.time, later);  // behind the releases of the access's own block
    const uint32_t block = at == first ? 0 : at[-1].block;
    for (; at != first && at[-1].block == block; --at) {
      const Release& release = at[-1];
      if (past.who & kEngine) return true;
      if (thread < release.fenced.size() && release.fenced[thread] >= past.time) return true;
      if (thread == release.thread && (past.who & kAtomic) && past.time <= release.time) return true;
    }
  }
  return false;
}

void Clock::begin_kernel() {
  device.begin_kernel();
  kernel = block = barrier = now;
  ++now;
}

void Clock::begin_block(unsigned threads) {
  block = barrier = now;
  ++now;
  knowledge.begin_block(threads);
  device.begin_block();
  for (uint32_t warp = 0; warp < kLanes; ++warp) {
    warp_barrier[warp] = 0;
    lane_barrier[warp].clear();
  }
}

void Clock::pass_block_barrier() {
  barrier = now;
  ++now;
  knowledge.block_barrier();
  for (std::vector<uint32_t>& lanes : lane_barrier) lanes.clear();
}

void Clock::keep_rows() {
  if (knowledge.active()) return;
  // What lanes know by their warp's barriers so far.
  knowledge.activate([&](uint32_t lane, uint32_t other) {
    const uint32_t warp = lane / kLanes;
    const std::vector<uint32_t>& some = lane_barrier[warp];
    return std::max(warp_barrier[warp], some.empty() ? 0 : some[lane % kLanes * kLanes + other % kLanes]);
  });
}

bool Clock::unordered_by_rows(Access past) const {
  if (past.time <= block) return !device.any() || !device.knows(knowledge, me, past);
  if (past.who & kEngine) return !knowledge.knows_column(me, past.who & kThreadMask, past.time);
  if (past.time <= barrier) return false;
  return past_in_this_interval(past) && !knowledge.knows(me, past.who & kThreadMask, past.time);
}

void Clock::pass_warp_barrier(uint32_t warp, uint32_t mask, uint32_t all_lanes) {
  knowledge.warp_barrier(warp, mask, now);
  std::vector<uint32_t>& lanes = lane_barrier[warp];
  if ((all_lanes & ~mask) == 0) {
    warp_barrier[warp] = now;
    lanes.clear();
  } else {
    if (lanes.empty()) lanes.assign(kLanes * kLanes, 0);
    // Each lane of the mask now knows what any of them knew, and all of them up to now.
    uint32_t known[kLanes] = {};
    for (int l = 0; l < kLanes; ++l) {
      if (!(mask >> l & 1)) continue;
      for (int m = 0; m < kLanes; ++m) known[m] = std::max(known[m], lanes[l * kLanes + m]);
    }
    for (int l = 0; l < kLanes; ++l) {
      if (mask >> l & 1) known[l] = now;
    }
    for (int l = 0; l < kLanes; ++l) {
      if (mask >> l & 1) std::copy(known, known + kLanes, &lanes[l * kLanes]);
    }
  }
  ++now;
}

}  // namespace flash::emu
