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
  for (const auto& [cell, access] : coarse_atomic) {
    for (size_t part = 0; part < size_t(1) << more; ++part) other_atomic[(cell << more) + part] = access;
  }
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

void Clock::begin_kernel() {
  kernel = block = barrier = now;
  ++now;
}

void Clock::begin_block() {
  block = barrier = now;
  ++now;
  for (uint32_t warp = 0; warp < kLanes; ++warp) {
    warp_barrier[warp] = 0;
    lane_barrier[warp].clear();
  }
}

void Clock::pass_block_barrier() {
  barrier = now;
  ++now;
  for (std::vector<uint32_t>& lanes : lane_barrier) lanes.clear();
}

void Clock::pass_warp_barrier(uint32_t warp, uint32_t mask, uint32_t all_lanes) {
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
