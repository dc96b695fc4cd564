#include "common/emu/run/watched.h"

#include <algorithm>

#include "common/emu/run/box.h"
#include "common/emu/run/shared_place.h"
#include "common/emu/watch/memory.h"
#include "common/emu/watch/sites.h"

namespace flash::emu {

void MemoryWatcher::begin_async() {
  mbarriers_.clear();
  open_reads_.clear();
  units_.clear();
  fenced_.clear();
  tiles_.begin_block();
  last_passed_.clear();
  for (SyncPoint& point : named_points_) point = SyncPoint();
}

// From now to the block's end, who knows of what is kept.
void MemoryWatcher::keep_rows() {
  if (clock_.knowledge.active()) return;
  clock_.keep_rows();
  for (const std::unique_ptr<Region>& region : shared_regions_) {
    if (region->cells && !region->reads) region->keep_reads(block_->warps);
  }
}

Region* MemoryWatcher::region_at(uintptr_t at) {
  for (Region* region : regions_) {
    if (at - region->base >= region->bytes) continue;
    if (!region->cells) {
      region->make_cells();
      if (region->is_shared && clock_.knowledge.active()) region->keep_reads(block_->warps);
    }
    return region;
  }
  return nullptr;
}

// ---- who knows of what ----------------------------------------------------------------------------------------------

void MemoryWatcher::arrived(Thread& thread, SyncPoint& point) {
  keep_rows();
  clock_.knowledge.arrive(thread.linear, point, clock_.now);
  ++clock_.now;
}

void MemoryWatcher::passed(Thread& thread, const SyncPoint& point) { clock_.knowledge.pass(thread.linear, point); }

void MemoryWatcher::mbarrier_init(Thread& thread, unsigned barrier, const void* at, CallSite site) {
  const Pause pause(*this);
  keep_rows();
  enter(thread);
  if (mbarriers_.size() <= barrier) mbarriers_.resize(barrier + 1);
  WatchedMbarrier& b = mbarriers_[barrier];
  b = WatchedMbarrier();
  b.at = reinterpret_cast<uintptr_t>(at);
  b.valid = true;
  b.column = clock_.knowledge.new_column();
  b.name = shared_name(*block_, at, 8);
  b.init = {clock_.now, make_who(clock_.me, site_number(site))};
  for_each_cell(b.at, 8, [&](Region& region, size_t cell) {
    write_cell<true>(region, cell, b.init.who);
    region.cells[cell].write.who |= kLocked;
  });
  ++clock_.now;
}

void MemoryWatcher::mbarrier_used(Thread& thread, unsigned barrier, CallSite site) {
  const Pause pause(*this);
  if (thread_ != &thread) enter(thread);
  const WatchedMbarrier& b = mbarriers_[barrier];
  if (!clock_.unordered(b.init, clock_.block)) return;
  if (FaultRecord* record = new_fault("mbarrier", region_at(b.at), site_number(site), site_of(b.init.who))) {
    record->fault.message = "mbarrier: @1 uses mbarrier " + b.name + " in " + thread_and_block() +
                            ", and @2 initialises it in " + past_thread(b.init) +
                            ". Nothing orders the two: a __syncthreads() must lie between.";
  }
}

void MemoryWatcher::mbarrier_gone(unsigned barrier, const void* at) {
  mbarriers_[barrier].valid = false;
  for_each_cell(reinterpret_cast<uintptr_t>(at), 8,
                [](Region& region, size_t cell) { region.cells[cell].write.who &= ~kLocked; });
}

// The engine's writes for this mbarrier are known to those who pass it from now on, with all that those know who arrived.
void MemoryWatcher::mbarrier_phase_ended(unsigned barrier) {
  const Pause pause(*this);
  WatchedMbarrier& b = mbarriers_[barrier];
  Knowledge::set_column(b.point.gathering, clock_.knowledge.threads() + b.column, clock_.now);
  b.point.published.join(b.point.gathering);
  ++clock_.now;
}

void MemoryWatcher::mbarrier_overrun(const Thread& thread, unsigned barrier) {
  const Pause pause(*this);
  const WatchedMbarrier& b = mbarriers_[barrier];
  if (FaultRecord* record = new_fault("mbarrier", region_at(b.at), site_number(thread.waits_at), site_of(b.init.who))) {
    record->fault.message =
        "mbarrier: thread " + to_string(thread.index) + " of block " + to_string(block_->index) +
        " waits at @1 for a phase of mbarrier " + b.name +
        ", and the next phase may end as well before it looks: on a GPU it would miss both, and wait "
        "on. More threads arrive than @2 initialises it for, or they don't wait for this thread.";
  }
}

void MemoryWatcher::mbarrier_passed(Thread& thread, unsigned barrier) {
  const Pause pause(*this);
  passed(thread, mbarriers_[barrier].point);
  last_passed_.resize(block_->threads);
  last_passed_[thread.linear] = barrier + 1;
}

void MemoryWatcher::fence_async(Thread& thread) {
  const Pause pause(*this);
  keep_rows();
  clock_.knowledge.fence_async(thread.linear, clock_.now, clock_.barrier);
  ++clock_.now;
  fence_mbarrier_init(thread);
}

void MemoryWatcher::fence_mbarrier_init(Thread& thread) {
  for (WatchedMbarrier& b : mbarriers_) {  // the first fence counts: who knows of it needn't know of later ones
    const bool is_mine = (b.init.who & kThreadMask) == thread.linear;
    if (is_mine && b.init_fence.time == 0) b.init_fence = {clock_.now, b.init.who};
  }
  ++clock_.now;
}

void MemoryWatcher::device_fence(Thread& thread) {
  if (!running_) return;
  const Pause pause(*this);
  keep_rows();
  clock_.knowledge.fence_device(thread.linear, clock_.now, clock_.barrier);
  ++clock_.now;
}

// ---- copies ---------------------------------------------------------------------------------------------------------

// Written the ordinary way in this block, known to the thread, and not fenced for the engine.
bool MemoryWatcher::unfenced(Access past, uint32_t floor) const {
  if (past.time <= floor || past.time <= clock_.block) return false;
  if ((past.who & (kEngine | kPending)) || copy_names_.count(site_of(past.who)) || clock_.unordered(past, floor)) {
    return false;
  }
  return !clock_.knowledge.fenced_for_async(clock_.me, past.who & kThreadMask, past.time);
}

// The engine will read the cell: `who` issues it.
void MemoryWatcher::check_source(Region& region, size_t index, Who who) {
  const Access past = region.cells[index].write;
  if (unfenced(past, floor_of(region))) report_proxy(region, index, who, false, past);
  read_cell<true>(region, index, who);
}

void MemoryWatcher::check_target(Region& region, size_t index, Who who) {
  Cell& cell = region.cells[index];
  if (unfenced(cell.write, floor_of(region))) report_proxy(region, index, who, true, cell.write);
  write_cell<true>(region, index, who);
  cell.read.time = 0;  // no part in the shortcut "I read this just now"
}

void MemoryWatcher::count_copy(const BulkCopy& copy) {
  Counts& counts = event_site(copy.site).counts;
  const bool is_load = copy.kind == BulkCopy::Kind::load;
  ++(is_load ? counts.tma_loads : copy.kind == BulkCopy::Kind::store ? counts.tma_stores : counts.tma_reductions);
  counts.tma_shared_bytes += copy.bytes;
  AccessCounts& global = is_load ? counts.global_read : counts.global_write;
  for_each_row(copy.layout, copy.coordinates, [&](const BoxRow& row) {
    if (row.global == nullptr) return;
    const uintptr_t begin = reinterpret_cast<uintptr_t>(row.global);
    const uint64_t sectors = (begin + row.inside - 1) / 32 - begin / 32 + 1;
    global.bytes += row.inside;
    global.sectors += sectors;
    global.tma_sectors += sectors;
    counts.tma_global_bytes += row.inside;
  });
}

void MemoryWatcher::copy_issued(Thread& thread, const BulkCopy& copy) {
  const Pause pause(*this);
  keep_rows();
  enter(thread);
  const uint32_t site = site_number(copy.site);
  copy_names_[site] = copy.name();
  count_copy(copy);
  const uintptr_t shared = reinterpret_cast<uintptr_t>(copy.shared);
  const size_t pattern = copy.is_tensor ? pattern_bytes(copy.layout.swizzle) : 16;
  if (shared % pattern != 0) {
    if (FaultRecord* record = new_fault("misaligned", region_at(shared), site, 0)) {
      record->fault.message = "misaligned: @1" + copy_name(make_who(0, site)) + " has its tile at " +
                              shared_name(*block_, copy.shared, 1) + ", in " + thread_and_block() +
                              ". Its swizzle repeats after " + std::to_string(pattern) +
                              " bytes: a tile that begins at no multiple of these begins in the middle of the pattern.";
    }
  }
  const bool is_load = copy.kind == BulkCopy::Kind::load;
  Who reads = make_who(clock_.me, site), writes = reads | kPending;
  if (is_load) {
    mbarrier_used(thread, copy.barrier, copy.site);
    const WatchedMbarrier& b = mbarriers_[copy.barrier];
    const bool fenced = b.init_fence.time != 0 && !clock_.unordered(b.init_fence, clock_.block);
    const uint32_t initialiser = b.init.who & kThreadMask;
    if (!fenced && !clock_.unordered(b.init, clock_.block) &&
        !clock_.knowledge.fenced_for_async(clock_.me, initialiser, b.init.time)) {
      if (FaultRecord* record = new_fault("proxy", region_at(b.at), site, site_of(b.init.who))) {
        record->fault.message = "proxy: @1" + copy_name(reads) + " in " + thread_and_block() +
                                " counts its bytes at mbarrier " + b.name + ", which @2 initialises in " +
                                past_thread(b.init) +
                                ". The copy engine needn't see that: that thread must call mbarrier_init_fence() after "
                                "it, before the barrier that shows it to the others.";
      }
    }
    reads = make_who(b.column, site) | kEngine;
    writes = reads | kPending;
  } else if (copy.kind == BulkCopy::Kind::reduce) {
    writes |= kAtomic;
  }
  for_each_cell(shared, copy.span(), [&](Region& region, size_t cell) {
    if (is_load) return check_target(region, cell, writes);
    check_source(region, cell, reads);
    region.cells[cell].write.who |= kLocked;
  });
  if (!is_load) open_reads_.push_back({shared, copy.span(), reads});
  for_each_row(copy.layout, copy.coordinates, [&](const BoxRow& row) {
    for_each_cell(reinterpret_cast<uintptr_t>(row.global), row.inside, [&](Region& region, size_t cell) {
      if (is_load) return check_source(region, cell, reads);
      if ((writes & kAtomic) && region.cells[cell].write.time == 0 && !region.host_wrote) {
        report_unwritten(region, cell, writes);
      }
      check_target(region, cell, writes);
    });
  });
  ++clock_.now;
}

void MemoryWatcher::copy_landed(const BulkCopy& copy) {
  const Pause pause(*this);
  for_each_cell(reinterpret_cast<uintptr_t>(copy.shared), copy.span(), [&](Region& region, size_t cell) {
    Access& write = region.cells[cell].write;
    const bool is_mine =
        (write.who & kEngine) && (write.who & kPending) && (write.who & kThreadMask) == mbarriers_[copy.barrier].column;
    if (is_mine) write = {clock_.now, write.who & ~kPending};
  });
  tiles_.landed(copy, site_number(copy.site), reinterpret_cast<uintptr_t>(block_->dynamic_begin),
                size_t(block_->dynamic_end - block_->dynamic_begin));
}

void MemoryWatcher::copy_has_read(Thread& thread, const BulkCopy& copy) {
  const Pause pause(*this);
  enter(thread);
  const uintptr_t shared = reinterpret_cast<uintptr_t>(copy.shared);
  const Who who = make_who(clock_.me, site_number(copy.site));
  const auto is_this = [&](const OpenRead& read) {
    return read.begin == shared && read.bytes == copy.span() && read.who == who;
  };
  const auto found = std::find_if(open_reads_.begin(), open_reads_.end(), is_this);
  if (found != open_reads_.end()) open_reads_.erase(found);
  for_each_cell(shared, copy.span(), [&](Region& region, size_t index) {
    Cell& cell = region.cells[index];
    cell.write.who &= ~kLocked;
    if ((cell.read.who ^ who) & kWhoMask) cell.other_read = cell.read;
    cell.read = {clock_.now, who};
    if (region.reads) region.note_read(index, cell.read);
  });
  for (const OpenRead& other : open_reads_) {  // of the same bytes
    const uintptr_t begin = std::max(other.begin, shared),
                    end = std::min(other.begin + other.bytes, shared + copy.span());
    if (begin >= end) continue;
    for_each_cell(begin, end - begin, [](Region& region, size_t cell) { region.cells[cell].write.who |= kLocked; });
  }
  ++clock_.now;
}

void MemoryWatcher::copy_has_written(Thread& thread, const BulkCopy& copy) {
  const Pause pause(*this);
  const Who mine = make_who(thread.linear, site_number(copy.site)) | kPending;
  for_each_row(copy.layout, copy.coordinates, [&](const BoxRow& row) {
    for_each_cell(reinterpret_cast<uintptr_t>(row.global), row.inside, [&](Region& region, size_t cell) {
      Access& write = region.cells[cell].write;
      if ((write.who & ~kAtomic) == mine) write = {clock_.now, write.who & ~kPending};
    });
  });
  ++clock_.now;
}

// ---- faults ---------------------------------------------------------------------------------------------------------

std::string MemoryWatcher::copy_name(Who who) const {
  const auto found = copy_names_.find(site_of(who));
  return found == copy_names_.end() ? "" : ", a " + std::string(found->second) + ",";
}

const MemoryWatcher::WatchedMbarrier* MemoryWatcher::mbarrier_of_column(unsigned column) const {
  for (const WatchedMbarrier& b : mbarriers_) {
    if (b.column == column) return &b;
  }
  return nullptr;
}

// An access to what a load of the engine writes, by a thread that hasn't passed its mbarrier.
void MemoryWatcher::report_not_waited(Region& region, size_t cell, Who who, bool is_write, Access past) {
  const Pause pause(*this);
  FaultRecord* record = new_fault("async-copy", &region, site_of(who), site_of(past.who));
  if (!record) return;
  const WatchedMbarrier* const barrier = mbarrier_of_column(past.who & kThreadMask);
  std::string last;
  if (clock_.me < last_passed_.size() && last_passed_[clock_.me] != 0) {
    const WatchedMbarrier& other = mbarriers_[last_passed_[clock_.me] - 1];
    last = &other == barrier ? " (but for an earlier phase of it)" : " (its last wait was for " + other.name + ")";
  }
  record->fault.message = "asynchronous copy: @1" + copy_name(who) + (is_write ? " writes " : " reads ") +
                          place_in(region, cell << region.shift) + " in " + thread_and_block() + ", and @2" +
                          copy_name(past.who) + " writes it. That thread has not waited for the copy's mbarrier" +
                          (barrier ? " " + barrier->name : "") + last + ", nor learnt from one that has.";
}

void MemoryWatcher::report_proxy(Region& region, size_t cell, Who who, bool is_write, Access past) {
  const Pause pause(*this);
  FaultRecord* record = new_fault("proxy", &region, site_of(who), site_of(past.who));
  if (!record) return;
  record->fault.message =
      "proxy: @1" + copy_name(who) + (is_write ? " writes " : " reads ") + place_in(region, cell << region.shift) +
      " in " + thread_and_block() + ", and @2 writes it the ordinary way in " + past_thread(past) +
      ". The copy engine needn't see that: no fence_async() lies between, of the thread that writes "
      "or of one that knows of it.";
}

// True: the access is told as a fault of another kind than a race.
bool MemoryWatcher::report_locked(Region& region, size_t index, Who who, bool is_write, Access past) {
  const Pause pause(*this);
  const uintptr_t at = region.base + (index << region.shift);
  for (const WatchedMbarrier& b : mbarriers_) {
    if (!b.valid || at < b.at || at >= b.at + 8) continue;
    if (FaultRecord* record = new_fault("mbarrier", &region, site_of(who), site_of(past.who))) {
      record->fault.message = "mbarrier: @1" + copy_name(who) + (is_write ? " writes " : " reads ") +
                              place_in(region, index << region.shift) + " in " + thread_and_block() +
                              ". These bytes are mbarrier " + b.name +
                              ", which @2 initialised: only the mbarrier_ functions may touch it.";
    }
    return true;
  }
  if (!is_write) return false;
  for (const auto& [warpgroup, unit] : units_) {
    for (const Product& product : unit.in_flight) {
      const size_t offset = at - reinterpret_cast<uintptr_t>(block_->dynamic_begin);  // elsewhere: no chunk has it
      const auto holds = [&](uint32_t chunk) { return offset >= chunk && offset - chunk < 16; };
      if (std::none_of(product.chunks.begin(), product.chunks.end(), holds)) continue;
      for (unsigned u = 0; u < region.units; ++u) {  // told here, not as a race again
        region.unit_reads[offset / 16 * region.units + u] = Access();
      }
      if (FaultRecord* record = new_fault("wgmma", &region, site_of(who), site_of(product.who))) {
        record->fault.message = "wgmma: @1" + copy_name(who) + " writes " + place_in(region, index << region.shift) +
                                " in " + thread_and_block() + " while the wgmma of @2, warpgroup " +
                                std::to_string(warpgroup) +
                                ", may still be reading it: no wgmma_wait of that warpgroup covers it.";
      }
      return true;
    }
  }
  for (const OpenRead& read : open_reads_) {
    if (at < read.begin || at >= read.begin + read.bytes) continue;
    if (FaultRecord* record = new_fault("async-copy", &region, site_of(who), site_of(read.who))) {
      record->fault.message = "asynchronous copy: @1" + copy_name(who) + " writes " +
                              place_in(region, index << region.shift) + " in " + thread_and_block() + " while @2" +
                              copy_name(read.who) + " issued by " + past_thread({clock_.now, read.who}) +
                              ", may still be reading it: that thread has not waited (bulk_wait_read).";
    }
    return true;
  }
  return false;
}

// ---- what the engine tells ------------------------------------------------------------------------------------------

namespace {
bool watched() { return active_watcher() != nullptr && the_watcher.running(); }
}  // namespace

void watch_mbarrier_init(Thread& thread, unsigned barrier, const void* at, CallSite site) {
  if (watched()) the_watcher.mbarrier_init(thread, barrier, at, site);
}
void watch_mbarrier_used(Thread& thread, unsigned barrier, CallSite site) {
  if (watched()) the_watcher.mbarrier_used(thread, barrier, site);
}
void watch_mbarrier_gone(unsigned barrier, const void* at) {
  if (watched()) the_watcher.mbarrier_gone(barrier, at);
}
void watch_mbarrier_arrived(Thread& thread, unsigned barrier) {
  if (watched()) the_watcher.arrived(thread, the_watcher.mbarrier_point(barrier));
}
void watch_mbarrier_phase_ended(unsigned barrier) {
  if (watched()) the_watcher.mbarrier_phase_ended(barrier);
}
void watch_mbarrier_overrun(const Thread& thread, unsigned barrier) {
  if (watched()) the_watcher.mbarrier_overrun(thread, barrier);
}
void watch_mbarrier_passed(Thread& thread, unsigned barrier) {
  if (watched()) the_watcher.mbarrier_passed(thread, barrier);
}

void watch_named_arrived(Thread& thread, unsigned id) {
  if (watched()) the_watcher.arrived(thread, the_watcher.named_point(id));
}
void watch_named_complete(unsigned id) {
  if (watched()) the_watcher.named_point(id).published = the_watcher.named_point(id).gathering;
}
void watch_named_passed(Thread& thread, unsigned id) {
  if (watched()) the_watcher.passed(thread, the_watcher.named_point(id));
}

void watch_fence_async(Thread& thread) {
  if (watched()) the_watcher.fence_async(thread);
}
void watch_fence_mbarrier_init(Thread& thread) {
  if (watched()) the_watcher.fence_mbarrier_init(thread);
}

void watch_copy_issued(Thread& thread, const BulkCopy& copy) {
  if (watched()) the_watcher.copy_issued(thread, copy);
}
void watch_copy_landed(const BulkCopy& copy) {
  if (watched()) the_watcher.copy_landed(copy);
}
void watch_copy_has_read(Thread& thread, const BulkCopy& copy) {
  if (watched()) the_watcher.copy_has_read(thread, copy);
}
void watch_copy_has_written(Thread& thread, const BulkCopy& copy) {
  if (watched()) the_watcher.copy_has_written(thread, copy);
}

void watch_stmatrix(Thread& thread, const void* row, int matrices, CallSite site) {
  if (!watched() || thread.lane >= 8 * matrices) return;
  the_watcher.access_of(thread, reinterpret_cast<uintptr_t>(row), 16, true, AccessKind::stmatrix, site);
}

}  // namespace flash::emu
