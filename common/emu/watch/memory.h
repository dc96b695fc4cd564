// The watcher: from hooks and callbacks to counts and faults. One object, the_watcher; watched launches run on one OS
// thread, so nothing here is locked. access() is the path every load and store of a watched kernel takes: what it does
// inline is what nearly all of them need; the rest is in watch.cpp.
#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/device/counts.h"
#include "common/emu/run/copies.h"
#include "common/emu/run/runtime.h"
#include "common/emu/run/warpgroups.h"
#include "common/emu/watch/fragments.h"
#include "common/emu/watch/requests.h"
#include "common/emu/watch/shadow.h"
#include "common/emu/watch/tiles.h"

namespace flash::emu {

enum class AccessKind : uint8_t { plain, atomic, ldmatrix, stmatrix, async_source, async_target, event };

// A call site in the launch that runs: one for each memory space and kind it is seen with.
struct LaunchSite {
  uint32_t number = 0;  // site_number()
  AccessKind kind = AccessKind::plain;
  uint8_t bytes = 0;
  bool is_write = false;
  bool is_shared = false;
  bool exact = true;
  Region* region = nullptr;  // where its last access fell
  Counts counts;
};

class MemoryWatcher final : public Watcher {
 public:
  void kernel_begin(const Launch&) override;
  void kernel_end(const Launch&) override;
  void block_begin(Block&) override;
  void block_end(Block&) override;
  void thread_end(Thread&) override {}
  void block_barrier(Block&, const char* name, CallSite) override;
  void warp_barrier(Block&, Warp&, uint32_t mask, CallSite) override;
  void device_fence(Thread&) override;
  void event(Thread&, Event, CallSite, unsigned count) override;
  void touched(Thread&, const void* address, size_t bytes, bool is_write, bool is_atomic, CallSite) override;
  void fault(const RuntimeFault&) override;
  void allocation_freed(const Allocation&) override;
  void allocation_filled(const Allocation&) override;
  void allocation_written(const Allocation&) override;

  // A load or store of kBytes (1, 2, 4, 8, 16) that returns to `pc`.
  template <unsigned kBytes, bool kWrite>
  void access(const void* address, const void* pc) {
    if (!running_) return;
    Thread* thread = current_thread();
    if (thread != thread_) {
      if (!thread) return;
      enter(*thread);
    }
    const uintptr_t at = reinterpret_cast<uintptr_t>(address);
    if (at - stack_begin_ < stack_bytes_) return;  // the thread's locals
    const CachedSite& cached = cache_[(reinterpret_cast<uintptr_t>(pc) * 0x9e3779b97f4a7c15u) >> (64 - kCacheBits)];
    uint32_t index = cached.site;
    Region* region = cached.pc == pc ? sites_[index].region : &nowhere_;
    uintptr_t offset = at - region->base;
    if (offset >= region->bytes || offset + kBytes > region->bytes || (at & (kBytes - 1))) {
      if (at - stack_begin_ < noted_stack_bytes_) return touch_stack(at, kBytes, kWrite, pc);
      if (!find_site(at, kBytes, kWrite, AccessKind::plain, {nullptr, 0, pc}, index)) return;
      region = sites_[index].region;
      offset = at - region->base;
    }
    log(index, at);
    if (kBytes < (1u << region->shift)) region->refine(kBytes == 2 ? 1 : 0);
    const Who who = make_who(clock_.me, sites_[index].number);
    const size_t last = (offset + kBytes - 1) >> region->shift;
    for (size_t cell = offset >> region->shift; cell <= last; ++cell) {
      touch_cell<kWrite>(*region, cell, who);
    }
  }
  void access_range(const void* address, size_t bytes, bool is_write, const void* pc);

  // The same for a primitive's access, of any thread.
  void access_of(Thread&, uintptr_t at, unsigned bytes, bool is_write, AccessKind, CallSite);

  void async_copy_issued(Thread&, uintptr_t shared, uintptr_t global, unsigned bytes, unsigned source_bytes, CallSite);
  void async_copy_landed(Thread&, uintptr_t shared, unsigned bytes);
  // emu/run/watched.h says what these are; they are in async.cpp.
  bool running() const { return running_; }
  void mbarrier_init(Thread&, unsigned barrier, const void* at, CallSite);
  void mbarrier_used(Thread&, unsigned barrier, CallSite);
  void mbarrier_gone(unsigned barrier, const void* at);
  void mbarrier_phase_ended(unsigned barrier);
  void mbarrier_overrun(const Thread&, unsigned barrier);
  void mbarrier_passed(Thread&, unsigned barrier);
  void arrived(Thread&, SyncPoint&);
  void passed(Thread&, const SyncPoint&);
  SyncPoint& mbarrier_point(unsigned barrier) { return mbarriers_[barrier].point; }
  SyncPoint& named_point(unsigned id) { return named_points_[id]; }
  void fence_async(Thread&);
  void fence_mbarrier_init(Thread&);
  void copy_issued(Thread&, const BulkCopy&);
  void copy_landed(const BulkCopy&);
  void copy_has_read(Thread&, const BulkCopy&);
  void copy_has_written(Thread&, const BulkCopy&);
  void wgmma_issued(const Block&, unsigned warpgroup, const Wgmma&);
  void wgmma_done(unsigned warpgroup, size_t count);
  void wgmma_fenced(const Block&, unsigned warpgroup);
  void wgmma_takes(Thread&, const Wgmma&, bool d_flies);
  void wgmma_has_read(const Thread&, const Wgmma&);
  void wgmma_delivered(const Thread&, const float* d, size_t count);
  void index_out_of_bounds(const char* file, int line, const std::string& array_type, uint64_t index, const void* pc);

  void reset();
  WatchReport report() const;

 private:
  struct ThreadLog {
    std::vector<Stream> streams;  // [site of the launch]
  };
  struct WarpLog {
    std::vector<uint32_t> active;    // sites with accesses since the last barrier
    std::vector<uint8_t> is_active;  // [site]
  };
  struct FaultRecord {
    WatchFault fault;              // message: "@1" and "@2" stand for the two places
    uint32_t here = 0, other = 0;  // sites
    int distance = 0;              // of a race's two threads: Clock::distance()
    const Region* region = nullptr;
  };
  // While the watcher works it doesn't watch: functions of the standard library that a watched kernel file uses as well
  // may have been compiled there, with hooks, and the linker keeps one copy.
  class Pause {
   public:
    explicit Pause(MemoryWatcher& watcher) : watcher_(watcher), was_running_(watcher.running_) {
      watcher.running_ = false;
    }
    ~Pause() { watcher_.running_ = was_running_; }

   private:
    MemoryWatcher& watcher_;
    const bool was_running_;
  };
  struct LineRecord {
    Counts counts;
    bool exact = true;
  };
  struct KernelRecord {
    KernelCounts totals;  // without lines
    std::map<uint32_t, LineRecord> sites;
  };

  void enter(Thread&);
  bool find_site(uintptr_t at, unsigned bytes, bool is_write, AccessKind, CallSite, uint32_t& index);
  [[noreturn]] void stop_misaligned(const Region&, uintptr_t at, size_t bytes, bool is_write, CallSite);
  Region* find_region(uintptr_t at, unsigned bytes, bool is_write, CallSite);
  uint32_t launch_site(CallSite, AccessKind, unsigned bytes, bool is_write, bool is_shared);
  LaunchSite& event_site(CallSite);

  void log(uint32_t site, uintptr_t at) {
    Stream& stream = streams_[site];
    if (stream.empty()) mark_active(site);
    stream.append(at);
  }
  void mark_active(uint32_t site);
  void flush(unsigned warp);
  void flush_block();

  template <bool kWrite>
  void touch_cell(Region& region, size_t cell, Who who) {
    if (clock_.knowledge.active()) {
      kWrite ? write_cell<true>(region, cell, who) : read_cell<true>(region, cell, who);
    } else {
      kWrite ? write_cell<false>(region, cell, who) : read_cell<false>(region, cell, who);
    }
  }
  uint32_t floor_of(const Region& region) const { return region.is_shared ? clock_.block : clock_.kernel; }
  // Does the thread know what it reads? kRows: whether rows of knowledge are kept (knowledge.h). Kernels without pay
  // nothing for it here.
  template <bool kRows>
  void check_read(Region& region, size_t index, const Cell& cell, Who who, uint32_t floor) {
    if (cell.write.time <= floor) {
      if (region.is_shared || (cell.write.time == 0 && !region.host_wrote)) report_unwritten(region, index, who);
    } else if ((cell.write.who & kSpecial) || clock_.unordered<kRows>(cell.write, floor)) {
      check_write(region, index, who, false);
    }
  }
  template <bool kRows>
  void read_cell(Region& region, size_t index, Who who) {
    Cell& cell = region.cells[index];
    if (cell.read.time == clock_.now && ((cell.read.who ^ who) & kWhoMask) == 0) return;
    const uint32_t floor = floor_of(region);
    check_read<kRows>(region, index, cell, who, floor);
    const Access past = cell.read;
    if (past.time <= floor) {  // the first read in this kernel (of shared memory: in this block)
      if (!region.is_shared) kernel_->totals.distinct_read_bytes += size_t(1) << region.shift;
      cell.other_read = Access();
    } else if (((past.who ^ who) & kWhoMask) || past.time <= clock_.block) {
      if (clock_.distance<kRows>(past, floor) >= clock_.distance<kRows>(cell.other_read, floor)) cell.other_read = past;
    }
    cell.read = {clock_.now, who};
    if (kRows && region.reads) region.note_read(index, cell.read);
  }
  template <bool kRows>
  void write_cell(Region& region, size_t index, Who who) {
    Cell& cell = region.cells[index];
    if (cell.write.time == clock_.now && ((cell.write.who ^ who) & (kWhoMask | kSpecial)) == 0) {
      if (!(who & kAtomic)) return;
    }
    const uint32_t floor = floor_of(region);
    if (cell.write.time > floor) {
      if ((cell.write.who & kSpecial) || clock_.unordered<kRows>(cell.write, floor)) {
        check_write(region, index, who, true);
      }
    }
    if (!region.is_shared && cell.write.time <= floor) {
      kernel_->totals.distinct_write_bytes += size_t(1) << region.shift;
    }
    if (clock_.unordered<kRows>(cell.read, floor) || clock_.unordered<kRows>(cell.other_read, floor)) {
      const bool other_is_farther =
          clock_.distance<kRows>(cell.other_read, floor) > clock_.distance<kRows>(cell.read, floor);
      report_race(region, index, who, true, other_is_farther ? cell.other_read : cell.read, false);
    } else if (kRows && region.reads) {
      check_warp_reads(region, index, who);
    }
    // A thread's plain write followed by its own atomic: the write stays on record, for others' atomics race with it.
    if ((who & kAtomic) && cell.write.time == clock_.now && ((cell.write.who ^ who) & kWhoMask) == 0 &&
        !(cell.write.who & kSpecial))
      return;
    cell.write = {clock_.now, who};
  }
  void check_write(Region&, size_t cell, Who, bool is_write);
  void check_warp_reads(Region&, size_t cell, Who);

  // The engine's part, in async.cpp.
  struct WatchedMbarrier {
    uintptr_t at = 0;
    bool valid = false;
    Access init, init_fence;  // init_fence.time 0: none
    unsigned column = 0;
    std::string name;
    SyncPoint point;
  };
  struct OpenRead {  // of shared memory, by a store of the engine
    uintptr_t begin;
    size_t bytes;
    Who who;
  };
  // What the tensor cores read for a warpgroup: its products in flight, oldest first.
  struct Product {
    Who who;
    uint32_t time;                 // of its reads: when it was issued
    std::vector<uint32_t> chunks;  // of 16 bytes, from the begin of the dynamic shared memory
  };
  struct Chain {      // of products on the same accumulators, in flight: where the newest's operands begin
    Origin start[2];  // B, A
  };
  struct Unit {
    unsigned column = 0;
    std::deque<Product> in_flight;
    std::map<const float*, Chain> chains;  // by the first thread's accumulators
  };
  struct Operand;
  void lock(const Product&, bool locked);
  void check_operands(Block&, unsigned warpgroup, const Product&);
  Origin origin_of(uint32_t offset);
  void check_descriptors(unsigned warpgroup, const Wgmma&);
  void check_descriptor(const Wgmma&, const Operand&);
  void check_step(const Wgmma&, const Operand&, const Origin& before, const Origin& here);
  void touch_stack(uintptr_t at, unsigned bytes, bool is_write, const void* pc);
  void report_flying(const StackWord&, bool is_write, const void* pc);
  void keep_rows();
  void begin_async();
  Region* region_at(uintptr_t at);
  template <class Visit>
  void for_each_cell(uintptr_t at, size_t bytes, Visit);
  bool unfenced(Access past, uint32_t floor) const;
  void count_copy(const BulkCopy&);
  void check_target(Region&, size_t cell, Who);
  void check_source(Region&, size_t cell, Who);
  bool report_locked(Region&, size_t cell, Who, bool is_write, Access past);
  void report_not_waited(Region&, size_t cell, Who, bool is_write, Access past);
  void report_proxy(Region&, size_t cell, Who, bool is_write, Access past);
  std::string copy_name(Who) const;  // ", a TMA load," of a copy's site; "" of others
  const WatchedMbarrier* mbarrier_of_column(unsigned column) const;

  void report_unwritten(Region&, size_t cell, Who);
  void report_race(Region&, size_t cell, Who, bool is_write, Access past, bool past_is_write);
  void report_pending(Region&, size_t cell, Who, bool is_write, Access past);
  // Null where this pair of places was reported before (and is now counted once more). But of a race's many pairs of
  // threads the farthest is told: what orders two warps orders the lanes of one as well, and not the other way round.
  FaultRecord* new_fault(const char* kind, const Region*, uint32_t here, uint32_t other, int distance = 0);
  std::string message_of(const FaultRecord&) const;
  std::string thread_and_block() const;
  std::string threads_and_block(unsigned warpgroup) const;
  std::string past_thread(Access past) const;
  [[noreturn]] void stop_kernel(const FaultRecord*, const char* what);

  static constexpr int kCacheBits = 12, kEventBits = 6;
  struct CachedSite {
    const void* pc = nullptr;
    uint32_t site = 0;
  };

  struct CachedEvent {
    const void* pc = nullptr;
    int line = -1;
    uint32_t site = 0;
  };

  bool running_ = false;
  Thread* thread_ = nullptr;  // the one whose state the next members hold
  uintptr_t stack_begin_ = 0;
  size_t stack_bytes_ = 0;        // 0 where accesses to it are noted (fragments.h):
  size_t noted_stack_bytes_ = 0;  // these go a longer way
  StackWord* stack_words_ = nullptr;
  Stream* streams_ = nullptr;
  Clock clock_;
  std::vector<LaunchSite> sites_;
  CachedSite cache_[1 << kCacheBits];
  CachedEvent events_[1 << kEventBits];
  Region nowhere_;

  const Launch* launch_ = nullptr;
  uint64_t last_serial_ = 0;
  Block* block_ = nullptr;
  KernelRecord* kernel_ = nullptr;
  std::unordered_map<uint64_t, uint32_t> site_index_;
  std::vector<WatchedMbarrier> mbarriers_;
  SyncPoint named_points_[16];
  std::vector<OpenRead> open_reads_;
  std::map<unsigned, Unit> units_;  // [warpgroup]
  std::vector<uint32_t> fenced_;    // [warpgroup] when its last wgmma_fence() was
  StackLog stacks_;
  Tiles tiles_;
  std::vector<unsigned> last_passed_;                     // [thread] the mbarrier, + 1
  std::unordered_map<uint32_t, const char*> copy_names_;  // [site]
  std::vector<ThreadLog> threads_;
  WarpLog warps_[kLanes];
  std::vector<Region*> regions_;                         // of this launch
  std::vector<std::unique_ptr<Region>> shared_regions_;  // of this launch's blocks
  std::unordered_map<const Allocation*, std::unique_ptr<Region>> global_regions_;
  struct BlockStart {
    uint32_t time;
    Index index;
  };
  std::vector<BlockStart> block_starts_;
  bool stopping_ = false;          // fail() was called from here: its fault is recorded
  uintptr_t bounds_reported_ = 0;  // where the bounds hook was called last: the access that follows is told already

  std::vector<std::unique_ptr<KernelRecord>> kernels_;
  std::vector<std::unique_ptr<FaultRecord>> faults_;
  std::unordered_map<uint64_t, size_t> fault_index_;
};

// visit(region, cell), of bytes that lie in one region.
template <class Visit>
void MemoryWatcher::for_each_cell(uintptr_t at, size_t bytes, Visit visit) {
  Region* const region = bytes > 0 ? region_at(at) : nullptr;
  if (region == nullptr) return;
  const uintptr_t offset = at - region->base;
  for (size_t cell = offset >> region->shift; cell <= (offset + bytes - 1) >> region->shift; ++cell) {
    visit(*region, cell);
  }
}

// "byte 12 of tile (shared memory)".
std::string place_in(const Region&, size_t offset);

extern MemoryWatcher the_watcher;
extern bool built_watched;  // a watched kernel object is linked in; set before the_watcher is constructed

}  // namespace flash::emu
