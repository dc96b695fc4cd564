#include "common/emu/watch/watch.h"

#include <link.h>
#include <cstdint>

#include <algorithm>
#include <set>
#include <tuple>

#include "common/emu/run/symbols.h"
#include "common/emu/watch/memory.h"
#include "common/emu/watch/sites.h"

namespace flash::emu {

bool built_watched = false;
MemoryWatcher the_watcher;

namespace {

const bool installed = (set_watcher(&the_watcher), true);

constexpr size_t kSlack = 256;  // after an allocation or the dynamic shared memory: nothing else lies there

std::string plural(uint64_t n, const char* noun) { return std::to_string(n) + " " + noun + (n == 1 ? "" : "s"); }

bool is_standard_library(const std::string& mangled) {
  for (const char* prefix : {"_ZNSt", "_ZNKSt", "_ZSt", "_ZN9__gnu_cxx", "_ZNK9__gnu_cxx"}) {
    if (mangled.compare(0, std::char_traits<char>::length(prefix), prefix) == 0) return true;
  }
  return false;
}

// Constants and variables of the program itself, outside the allocations: constexpr tables a kernel reads.
bool in_program(uintptr_t at) {
  static const std::vector<std::pair<uintptr_t, uintptr_t>> ranges = [] {
    std::vector<std::pair<uintptr_t, uintptr_t>> found;
    auto collect = [](dl_phdr_info* info, size_t, void* out) {
      for (int i = 0; i < info->dlpi_phnum; ++i) {
        const auto& segment = info->dlpi_phdr[i];
        if (segment.p_type != PT_LOAD) continue;
        const uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
        static_cast<decltype(found)*>(out)->push_back({begin, begin + segment.p_memsz});
      }
      return 1;  // the first is the program: enough
    };
    dl_iterate_phdr(collect, &found);
    return found;
  }();
  for (const auto& [begin, end] : ranges) {
    if (at >= begin && at < end) return true;
  }
  return false;
}

Index index_of(uint32_t linear, Index extent) {
  return {linear % extent.x, linear / extent.x % extent.y, linear / extent.x / extent.y};
}

}  // namespace

std::string place_in(const Region& region, size_t offset) {
  const bool says_so = !region.is_shared || region.name.find("shared") != std::string::npos;
  return "byte " + std::to_string(offset) + " of " + region.name + (says_so ? "" : " (shared memory)");
}

// ---- kernels, blocks, threads ---------------------------------------------------------------------------------------

void MemoryWatcher::kernel_begin(const Launch& launch) {
  if (clock_.now > 3000000000u) {  // before the counter runs over
    for (auto& entry : global_regions_) entry.second->forget_times();
    clock_ = Clock();
  }
  clock_.begin_kernel();
  launch_ = &launch;
  auto same_name = [&](const std::unique_ptr<KernelRecord>& kernel) { return kernel->totals.name == launch.name; };
  auto known = std::find_if(kernels_.begin(), kernels_.end(), same_name);
  if (known == kernels_.end()) {
    kernels_.push_back(std::make_unique<KernelRecord>());
    known = kernels_.end() - 1;
    (*known)->totals.name = launch.name;
  }
  kernel_ = known->get();
  ++kernel_->totals.launches;
  const bool others_ran =
      launch.serial != last_serial_ + 1;  // kernels that aren't watched: they may have written anything
  last_serial_ = launch.serial;
  regions_.clear();
  shared_regions_.clear();
  stacks_.clear();
  block_starts_.clear();
  for (const Allocation* allocation : all_allocations()) {
    std::unique_ptr<Region>& region = global_regions_[allocation];
    if (!region) region = std::make_unique<Region>();
    region->host_wrote |= others_ran;
    if (!region->cells) {
      region->base = reinterpret_cast<uintptr_t>(allocation->base);
      region->bytes = allocation->bytes;
      region->name = allocation->label;
    }
    regions_.push_back(region.get());
  }
  sites_.clear();
  site_index_.clear();
  std::fill(std::begin(events_), std::end(events_), CachedEvent());
  std::fill(std::begin(cache_), std::end(cache_), CachedSite());
  thread_ = nullptr;
  stopping_ = false;
}

void MemoryWatcher::kernel_end(const Launch&) {
  if (block_) flush_block();  // after an error: what there is
  for (const LaunchSite& site : sites_) {
    LineRecord& line = kernel_->sites[site.number];
    line.counts += site.counts;
    line.exact &= site.exact;
    kernel_->totals.total += site.counts;
  }
  running_ = false;
  block_ = nullptr;
  thread_ = nullptr;
  launch_ = nullptr;
}

void MemoryWatcher::block_begin(Block& block) {
  clock_.begin_block(block.threads);
  block_starts_.push_back({clock_.block, block.index});
  block_ = &block;
  thread_ = nullptr;
  ++kernel_->totals.blocks;
  kernel_->totals.threads += block.threads;
  if (threads_.size() < block.threads) threads_.resize(block.threads);
  if (shared_regions_.empty()) {  // the worker's first block: all its blocks use the same shared memory
    auto add = [&](const std::string& name, unsigned char* base, size_t bytes) {
      shared_regions_.push_back(std::make_unique<Region>());
      Region& region = *shared_regions_.back();
      region.name = name;
      region.is_shared = true;
      region.base = reinterpret_cast<uintptr_t>(base);
      region.bytes = bytes;
      regions_.push_back(&region);
    };
    add("dynamic shared memory", block.dynamic_begin, size_t(block.dynamic_end - block.dynamic_begin));
    if (block.statics) {
      for (const StaticShared& array : *block.statics) add(array.name, array.base, array.bytes);
    }
  }
  begin_async();
  running_ = true;
}

void MemoryWatcher::block_end(Block&) {
  flush_block();
  running_ = false;
  block_ = nullptr;
  thread_ = nullptr;
}

void MemoryWatcher::enter(Thread& thread) {
  thread_ = &thread;
  clock_.me = thread.linear;
  stack_begin_ = reinterpret_cast<uintptr_t>(thread.stack_begin);
  stack_words_ = stacks_.of(thread.linear);
  stack_bytes_ = size_t(thread.stack_end - thread.stack_begin);
  noted_stack_bytes_ = 0;
  if (stack_words_ != nullptr) std::swap(stack_bytes_, noted_stack_bytes_);
  std::vector<Stream>& streams = threads_[thread.linear].streams;
  if (streams.size() < sites_.size()) streams.resize(sites_.size());
  streams_ = streams.data();
}

void MemoryWatcher::block_barrier(Block& block, const char*, CallSite place) {
  const Pause pause(*this);
  flush_block();
  clock_.pass_block_barrier();
  LaunchSite& site = event_site(place);
  for (unsigned w = 0; w < block.warps; ++w) {
    if (block.warp[w].lanes & ~block.warp[w].exited) ++site.counts.barriers;
  }
}

void MemoryWatcher::warp_barrier(Block&, Warp& warp, uint32_t mask, CallSite place) {
  const Pause pause(*this);
  const uint32_t live = warp.lanes & ~warp.exited;
  if ((live & ~mask) == 0) flush(unsigned(warp.index));
  clock_.pass_warp_barrier(uint32_t(warp.index), mask, warp.lanes);
  ++event_site(place).counts.barriers;
}

void MemoryWatcher::event(Thread&, Event event, CallSite place, unsigned count) {
  const Pause pause(*this);
  Counts& counts = event_site(place).counts;
  switch (event) {
    case Event::shuffle:
    case Event::vote: counts.shuffles += count; break;
    case Event::exp: counts.exps += count; break;
    case Event::mma: counts.mmas += count; break;
    case Event::ldmatrix:
    case Event::atomic:
    case Event::async_copy: break;  // counted by their requests
    case Event::mbarrier_arrival: counts.mbarrier_arrivals += count; break;
    case Event::mbarrier_wait: counts.mbarrier_waits += count; break;
    case Event::named_barrier: counts.named_barriers += count; break;
  }
}

// ---- sites ----------------------------------------------------------------------------------------------------------

uint32_t MemoryWatcher::launch_site(CallSite place, AccessKind kind, unsigned bytes, bool is_write, bool is_shared) {
  uint64_t key = reinterpret_cast<uintptr_t>(place.pc) * 0x9e3779b97f4a7c15u + (place.file ? uint64_t(place.line) : 0);
  key = (key * 8 + uint64_t(kind)) * 128 + bytes * 4 + (is_write ? 2 : 0) + (is_shared ? 1 : 0);
  const auto [at, is_new] = site_index_.try_emplace(key, uint32_t(sites_.size()));
  if (is_new) {
    LaunchSite site;
    site.number = site_number(place);
    site.kind = kind;
    site.bytes = uint8_t(bytes);
    site.is_write = is_write;
    site.is_shared = is_shared;
    site.region = &nowhere_;
    sites_.push_back(site);
    if (thread_) enter(*thread_);  // room for its stream
  }
  return at->second;
}

LaunchSite& MemoryWatcher::event_site(CallSite place) {
  CachedEvent& cached = events_[(reinterpret_cast<uintptr_t>(place.pc) * 0x9e3779b97f4a7c15u) >> (64 - kEventBits)];
  if (place.pc != cached.pc || place.line != cached.line) {
    cached = {place.pc, place.line, launch_site(place, AccessKind::event, 0, false, false)};
  }
  return sites_[cached.site];
}

// The launch's site for an access, or false where the access isn't to be counted: locals, constants, out of bounds.
bool MemoryWatcher::find_site(uintptr_t at, unsigned bytes, bool is_write, AccessKind kind, CallSite place,
                              uint32_t& index) {
  const Pause pause(*this);
  Region* region = find_region(at, bytes, is_write, place);
  if (!region) return false;
  if (at & (bytes - 1)) stop_misaligned(*region, at, bytes, is_write, place);
  if (!region->cells) {
    region->make_cells();
    if (region->is_shared && clock_.knowledge.active()) region->keep_reads(block_->warps);
  }
  index = launch_site(place, kind, bytes, is_write, region->is_shared);
  sites_[index].region = region;
  if (kind == AccessKind::plain) {
    const uintptr_t pc = reinterpret_cast<uintptr_t>(place.pc);
    cache_[(pc * 0x9e3779b97f4a7c15u) >> (64 - kCacheBits)] = {place.pc, index};
  }
  return true;
}

void MemoryWatcher::stop_misaligned(const Region& region, uintptr_t at, size_t bytes, bool is_write, CallSite place) {
  FaultRecord* record = new_fault("misaligned", &region, site_number(place), 0);
  if (record) {
    record->fault.message = "misaligned: @1 " + std::string(is_write ? "writes " : "reads ") + plural(bytes, "byte") +
                            " at " + place_in(region, at - region.base) + " in " + thread_and_block() +
                            ". The address must be a multiple of " + std::to_string(bytes) + ".";
  }
  stop_kernel(record, "misaligned address");
}

Region* MemoryWatcher::find_region(uintptr_t at, unsigned bytes, bool is_write, CallSite place) {
  Region* nearest = nullptr;
  size_t distance = 1 << 20;
  for (Region* region : regions_) {
    const uintptr_t offset = at - region->base;
    if (offset < region->bytes && bytes <= region->bytes - offset) return region;
    const uintptr_t end = region->base + region->bytes;
    const size_t past = at > end ? at - end : 0, before = region->base > at ? region->base - at : 0;
    if (std::max(past, before) < distance) nearest = region, distance = std::max(past, before);
  }
  const uintptr_t pc = reinterpret_cast<uintptr_t>(place.pc);
  const uintptr_t tls_begin = reinterpret_cast<uintptr_t>(block_->tls_begin);
  const bool in_tls = at >= tls_begin && at < reinterpret_cast<uintptr_t>(block_->tls_end);
  if (in_tls ? distance >= kSlack : in_program(at)) return nullptr;  // a variable that is no array of these
  if (in_tls && is_constructor_guard(reinterpret_cast<const void*>(at))) return nullptr;

  // Out of bounds.
  if (bounds_reported_ && pc - bounds_reported_ < 256) return nullptr;
  if (is_standard_library(mangled_function(place.pc))) return nullptr;  // the runtime's use of it: see Pause
  const std::string what = is_write ? "writes " : "reads ";
  FaultRecord* record = new_fault("out-of-bounds", nearest, site_number(place), 0);
  if (record) {
    const std::string null_pointer = null_pointer_text(reinterpret_cast<const void*>(at));
    std::string where = "at " + (null_pointer.empty() ? "an address in no allocation" : null_pointer);
    if (nearest) {
      where = "at byte " + std::to_string(int64_t(at - nearest->base)) + " of " + nearest->name + ", which has " +
              plural(nearest->bytes, "byte");
    }
    record->fault.message =
        "out of bounds: @1 " + what + plural(bytes, "byte") + " " + where + ", in " + thread_and_block() + ".";
  }
  const bool harmless = nearest && at >= nearest->base && distance < kSlack && !(in_tls && is_write);
  if (!harmless) stop_kernel(record, "access out of bounds");
  return nullptr;
}

// ---- accesses -------------------------------------------------------------------------------------------------------

void MemoryWatcher::access_of(Thread& thread, uintptr_t at, unsigned bytes, bool is_write, AccessKind kind,
                              CallSite place) {
  if (!running_) return;
  if (thread_ != &thread) enter(thread);
  if (at - stack_begin_ < stack_bytes_) return;
  if (at - stack_begin_ < noted_stack_bytes_) return touch_stack(at, bytes, is_write, place.pc);
  uint32_t index = 0;
  if (!find_site(at, bytes, is_write, kind, place, index)) return;
  log(index, at);
  Region& region = *sites_[index].region;
  if (bytes < (1u << region.shift)) region.refine(bytes == 2 ? 1 : 0);
  Who who = make_who(clock_.me, sites_[index].number);
  if (kind == AccessKind::atomic) who |= kAtomic;
  if (kind == AccessKind::async_target) who |= kAsync | kPending;
  const uintptr_t offset = at - region.base;
  for (size_t cell = offset >> region.shift; cell <= (offset + bytes - 1) >> region.shift; ++cell) {
    if (kind == AccessKind::atomic) {  // it reads as well
      const Access past = region.cells[cell].write;
      if (region.is_shared ? past.time <= clock_.block : past.time == 0 && !region.host_wrote) {
        report_unwritten(region, cell, who);
      }
    }
    is_write ? touch_cell<true>(region, cell, who) : touch_cell<false>(region, cell, who);
    // A pending copy takes no part in the shortcut "I read this just now".
    if (kind == AccessKind::async_target) region.cells[cell].read.time = 0;
  }
}

void MemoryWatcher::touched(Thread& thread, const void* address, size_t bytes, bool is_write, bool is_atomic,
                            CallSite place) {
  access_of(thread, reinterpret_cast<uintptr_t>(address), unsigned(bytes), is_write,
            is_atomic ? AccessKind::atomic : AccessKind::plain, place);
  if (is_atomic && running_ && (clock_.knowledge.active() || clock_.device.in_use())) {
    const Pause pause(*this);
    keep_rows();
    clock_.device.updated(clock_.knowledge, thread.linear, reinterpret_cast<uintptr_t>(address), clock_.block,
                          clock_.now);
    ++clock_.now;
  }
}

void MemoryWatcher::access_range(const void* address, size_t bytes, bool is_write, const void* pc) {
  if (!running_ || !current_thread()) return;
  Thread& thread = *current_thread();
  const CallSite place = {nullptr, 0, pc};
  uintptr_t at = reinterpret_cast<uintptr_t>(address);
  if ((bytes == 4 || bytes == 8 || bytes == 16) && at % bytes) {
    // A copy of bytes may be anywhere. But g++ says range as well where it sees that a vector's address is misaligned.
    const Pause pause(*this);
    if (thread_ != &thread) enter(thread);
    Region* region = is_vector_copy(site_number(place)) ? find_region(at, unsigned(bytes), is_write, place) : nullptr;
    if (region) stop_misaligned(*region, at, bytes, is_write, place);
  }
  while (bytes > 0) {  // the widest pieces the address allows, as a compiler would
    unsigned piece = 16;
    while (piece > bytes || at % piece) piece /= 2;
    access_of(thread, at, piece, is_write, AccessKind::plain, place);
    at += piece, bytes -= piece;
  }
}

void MemoryWatcher::async_copy_issued(Thread& thread, uintptr_t shared, uintptr_t global, unsigned bytes,
                                      unsigned source_bytes, CallSite place) {
  if (source_bytes) access_of(thread, global, source_bytes, false, AccessKind::async_source, place);
  access_of(thread, shared, bytes, true, AccessKind::async_target, place);
}

void MemoryWatcher::async_copy_landed(Thread& thread, uintptr_t shared, unsigned bytes) {
  if (!running_) return;
  for (Region* region : regions_) {
    const uintptr_t offset = shared - region->base;
    if (!region->is_shared || !region->cells || offset >= region->bytes || bytes > region->bytes - offset) continue;
    for (size_t cell = offset >> region->shift; cell <= (offset + bytes - 1) >> region->shift; ++cell) {
      Access& write = region->cells[cell].write;
      if ((write.who & kPending) && (write.who & kThreadMask) == thread.linear) {
        write = {clock_.now, write.who & ~kPending};
      }
    }
  }
}

void MemoryWatcher::mark_active(uint32_t site) {
  const Pause pause(*this);
  WarpLog& warp = warps_[clock_.me / kLanes];
  if (warp.is_active.size() <= site) warp.is_active.resize(sites_.size());
  if (warp.is_active[site]) return;
  warp.is_active[site] = 1;
  warp.active.push_back(site);
}

void MemoryWatcher::flush(unsigned w) {
  WarpLog& warp = warps_[w];
  for (uint32_t index : warp.active) {
    warp.is_active[index] = 0;
    Stream* lanes[kLanes] = {};
    for (unsigned l = 0; l < kLanes && w * kLanes + l < block_->threads; ++l) {
      std::vector<Stream>& streams = threads_[w * kLanes + l].streams;
      if (index < streams.size() && !streams[index].empty()) lanes[l] = &streams[index];
    }
    LaunchSite& site = sites_[index];
    AccessCounts& counts = site.is_shared ? (site.is_write ? site.counts.shared_write : site.counts.shared_read)
                                          : (site.is_write ? site.counts.global_write : site.counts.global_read);
    const uint64_t before = counts.requests;
    const bool is_atomic = site.kind == AccessKind::atomic;
    site.exact &= group_requests(lanes, {site.bytes, site.is_shared, site.is_write, is_atomic}, counts);
    const uint64_t requests = counts.requests - before;
    if (is_atomic) site.counts.atomics += requests;
    if (site.kind == AccessKind::ldmatrix) site.counts.ldmatrixes += requests;
    if (site.kind == AccessKind::stmatrix) site.counts.stmatrixes += requests;
    if (site.kind == AccessKind::async_target) site.counts.async_copies += requests;
    for (Stream* lane : lanes) {
      if (lane) lane->clear();
    }
  }
  warp.active.clear();
}

void MemoryWatcher::flush_block() {
  for (unsigned w = 0; w < block_->warps; ++w) flush(w);
}

// ---- allocations ----------------------------------------------------------------------------------------------------

void MemoryWatcher::allocation_freed(const Allocation& allocation) { global_regions_.erase(&allocation); }

void MemoryWatcher::allocation_filled(const Allocation& allocation) {
  const auto at = global_regions_.find(&allocation);
  if (at != global_regions_.end()) at->second->forget_writes();
}

void MemoryWatcher::allocation_written(const Allocation& allocation) {
  std::unique_ptr<Region>& region = global_regions_[&allocation];
  if (!region) region = std::make_unique<Region>();
  region->host_wrote = true;
}

// ---- faults ---------------------------------------------------------------------------------------------------------

MemoryWatcher::FaultRecord* MemoryWatcher::new_fault(const char* kind, const Region* region, uint32_t here,
                                                     uint32_t other, int distance) {
  // The same two places in either order are one fault.
  const uint64_t key =
      ((uint64_t(std::min(here, other)) << kSiteBits | std::max(here, other)) << 8 | uint8_t(kind[0])) *
          0x9e3779b97f4a7c15u ^
      (region ? region->base : 0) ^ reinterpret_cast<uintptr_t>(kernel_);
  const auto [at, is_new] = fault_index_.try_emplace(key, faults_.size());
  if (is_new)
    faults_.push_back(std::make_unique<FaultRecord>());
  else
    ++faults_[at->second]->fault.times;
  FaultRecord& record = *faults_[at->second];
  if (!is_new && distance <= record.distance) return nullptr;
  record.here = here;
  record.other = other;
  record.distance = distance;
  record.region = region;
  record.fault.kind = kind;
  record.fault.kernel = kernel_ ? kernel_->totals.name : "";
  if (region) record.fault.array = region->name;
  return &record;
}

std::string MemoryWatcher::thread_and_block() const {
  return "thread " + to_string(index_of(clock_.me, launch_->block)) + " of block " + to_string(block_->index);
}

std::string MemoryWatcher::past_thread(Access past) const {
  const std::string thread = "thread " + to_string(index_of(past.who & kThreadMask, launch_->block));
  if (past.time > clock_.block) return thread + " of the same block";
  auto later = [](uint32_t time, const BlockStart& start) { return time <= start.time; };
  auto at = std::upper_bound(block_starts_.begin(), block_starts_.end(), past.time, later);
  if (at != block_starts_.begin()) --at;
  return thread + " of block " + to_string(at->index);
}

void MemoryWatcher::report_unwritten(Region& region, size_t cell, Who who) {
  const Pause pause(*this);
  if (FaultRecord* record = new_fault("uninitialised", &region, site_of(who), 0)) {
    record->fault.message = "uninitialised: @1 reads " + place_in(region, cell << region.shift) + " in " +
                            thread_and_block() + ", and nothing wrote it" +
                            (region.is_shared ? " in this block." : ".");
  }
}

void MemoryWatcher::report_race(Region& region, size_t cell, Who who, bool is_write, Access past, bool past_is_write) {
  const Pause pause(*this);
  if (past_is_write && (past.who & kEngine)) return report_not_waited(region, cell, who, is_write, past);
  const bool is_async =
      ((who | past.who) & kAsync) || copy_names_.count(site_of(who)) || copy_names_.count(site_of(past.who));
  const int distance = clock_.distance(past, floor_of(region));
  FaultRecord* record = new_fault(is_async ? "async-copy" : "race", &region, site_of(who), site_of(past.who), distance);
  if (!record) return;
  const bool other_block = distance == 3, same_warp = distance == 1;
  auto verb = [](bool write, Who w, const char* writes, const char* reads, const char* updates, const char* copies) {
    return std::string(w & kAtomic ? updates : w & kAsync ? copies : write ? writes : reads);
  };
  record->fault.message =
      (is_async ? "asynchronous copy: @1" : "race: @1") + copy_name(who) + " " +
      verb(is_write, who, "writes ", "reads ", "updates (atomically) ", "copies (cp.async) to ") +
      place_in(region, cell << region.shift) + " in " + thread_and_block() + ", and @2" + copy_name(past.who) + " " +
      verb(past_is_write, past.who, "wrote it", "read it", "updated it (atomically)", "copied to it (cp.async)") +
      (past.who & kEngine ? "" : " in " + past_thread(past)) +
      (other_block ? ". The blocks of a kernel run in any order."
       : same_warp ? ". The two threads share a warp, and no __syncwarp() or __syncthreads() lies between."
       : clock_.knowledge.active() ? ". Nothing orders the two: no __syncthreads(), mbarrier or named barrier that one "
                                     "arrives at and the other "
                                     "passes."
                                   : ". No __syncthreads() lies between.");
}

void MemoryWatcher::report_pending(Region& region, size_t cell, Who who, bool is_write, Access past) {
  const Pause pause(*this);
  if (past.who & kEngine) return report_not_waited(region, cell, who, is_write, past);
  FaultRecord* record = new_fault("async-copy", &region, site_of(who), site_of(past.who));
  if (!record) return;
  if (!(past.who & kAsync)) {
    record->fault.message = "asynchronous copy: @1" + copy_name(who) + (is_write ? " writes " : " reads ") +
                            place_in(region, cell << region.shift) + " in " + thread_and_block() + " while @2" +
                            copy_name(past.who) + " issued by " + past_thread(past) +
                            ", is still writing it: that thread has not waited for it (bulk_wait).";
    return;
  }
  record->fault.message = "asynchronous copy: @1 " + std::string(is_write ? "writes " : "reads ") +
                          place_in(region, cell << region.shift) + " in " + thread_and_block() +
                          " while the cp.async of @2, " + past_thread(past) +
                          ", is still on its way: that thread has not waited for it.";
}

// The last write of the cell is an atomic, or on its way, or unordered beside this access.
void MemoryWatcher::check_write(Region& region, size_t index, Who who, bool is_write) {
  const Access past = region.cells[index].write;
  const uint32_t floor = floor_of(region);
  if ((past.who & kLocked) && report_locked(region, index, who, is_write, past)) return;
  if (past.who & kPending) {
    if (past.who & who & kAtomic) return;  // two of the engine's reductions
    return report_pending(region, index, who, is_write, past);
  }
  const bool unordered = clock_.unordered(past, floor);
  if (!(past.who & kAtomic)) {
    if (unordered) report_race(region, index, who, is_write, past, true);
    return;
  }
  if (who & kAtomic) {  // keep the one that this one will replace
    if (unordered) region.other_atomic[index] = past;
    return;
  }
  if (unordered) return report_race(region, index, who, is_write, past, true);
  const auto other = region.other_atomic.find(index);
  if (other != region.other_atomic.end() && clock_.unordered(other->second, floor)) {
    report_race(region, index, who, is_write, other->second, true);
  }
}

void MemoryWatcher::check_warp_reads(Region& region, size_t index, Who who) {
  const Access none;
  for (unsigned w = 0; w < region.warps; ++w) {
    Region::WarpReads& reads = region.reads[index * region.warps + w];
    if (reads.newest.time == 0) continue;
    for (const Access past : {reads.newest, reads.other_lane}) {
      if (clock_.unordered(past, clock_.block)) report_race(region, index, who, true, past, false);
    }
    reads = {none, none};
  }
  for (unsigned u = 0; u < region.units; ++u) {
    Access& past = region.unit_reads[(index << region.shift) / 16 * region.units + u];
    if (past.time != 0 && clock_.unordered(past, clock_.block)) report_race(region, index, who, true, past, false);
  }
}

void MemoryWatcher::index_out_of_bounds(const char* file, int line, const std::string& array_type, uint64_t index,
                                        const void* pc) {
  if (!running_ || !current_thread()) return;
  if (thread_ != current_thread()) enter(*current_thread());
  bounds_reported_ = reinterpret_cast<uintptr_t>(pc);
  if (FaultRecord* record = new_fault("out-of-bounds", nullptr, site_number({file, line, pc}), 0)) {
    record->fault.array = array_type;
    record->fault.message = "out of bounds: @1 takes element " + std::to_string(int64_t(index)) +
                            " of an array of type " + array_type + ", in " + thread_and_block() + ".";
  }
}

// Ends the kernel as the hardware would, in front of an access that would crash or harm this program.
void MemoryWatcher::stop_kernel(const FaultRecord* record, const char* what) {
  stopping_ = true;
  fail(record ? message_of(*record) : what);
}

std::string MemoryWatcher::message_of(const FaultRecord& record) const {
  std::string message = record.fault.message;
  for (const auto& [mark, number] : {std::make_pair("@1", record.here), std::make_pair("@2", record.other)}) {
    const size_t where = message.find(mark);
    if (where == std::string::npos) continue;
    const Site site = resolve_site(number);
    message.replace(where, 2, site.file + ":" + std::to_string(site.line));
  }
  return message;
}

void MemoryWatcher::fault(const RuntimeFault& fault) {
  if (stopping_) return;
  if (!faults_.empty() && fault.kind == "invalid-address" && faults_.back()->fault.kind == "out-of-bounds" &&
      faults_.back()->fault.kernel == (fault.launch ? fault.launch->name : "")) {
    return;  // said already, with more
  }
  faults_.push_back(std::make_unique<FaultRecord>());
  FaultRecord& record = *faults_.back();
  record.fault.kind = fault.kind == "invalid-address" ? "out-of-bounds" : fault.kind;
  record.fault.message = fault.message;
  if (fault.launch) record.fault.kernel = fault.launch->name;
  record.here = site_number(fault.here);
  record.other = site_number(fault.other);
}

// ---- the report -----------------------------------------------------------------------------------------------------

void MemoryWatcher::reset() {
  kernels_.clear();
  faults_.clear();
  fault_index_.clear();
}

WatchReport MemoryWatcher::report() const {
  WatchReport report;
  report.watched = built_watched;
  for (const std::unique_ptr<KernelRecord>& kernel : kernels_) {
    report.kernels.push_back(kernel->totals);
    std::map<std::pair<std::string, int>, LineCounts> lines;
    for (const auto& [number, record] : kernel->sites) {
      const Site site = resolve_site(number);
      LineCounts& line = lines[{site.file, site.line}];
      line.file = site.file, line.line = site.line;
      line.counts += record.counts;
      line.exact &= record.exact;
    }
    for (auto& entry : lines) report.kernels.back().lines.push_back(entry.second);
  }
  auto text = [](const Site& site) { return site.file + ":" + std::to_string(site.line); };
  // What follows from another fault isn't told: a read that races with the write it should have waited for finds
  // nothing written where it happens to run first, and an index past an array's end hits whatever lies behind it.
  // A descriptor that takes a wrong place finds there what others are about to write.
  std::set<std::pair<const Region*, uint32_t>> racing;
  std::set<std::string> overrun;
  std::set<uint32_t> misled;
  for (const std::unique_ptr<FaultRecord>& record : faults_) {
    if (record->fault.kind == "race" || record->fault.kind == "async-copy" || record->fault.kind == "proxy") {
      racing.insert({record->region, record->here});
      racing.insert({record->region, record->other});
    } else if (record->fault.kind == "out-of-bounds") {
      overrun.insert(text(resolve_site(record->here)));
    } else if (record->fault.kind == "wgmma" && record->region) {
      misled.insert(record->here);
    }
  }
  std::map<std::tuple<std::string, std::string, std::string, std::string, std::string>, size_t> known;
  std::vector<int> distances;  // of the threads that the report's faults name
  for (const std::unique_ptr<FaultRecord>& record : faults_) {
    WatchFault fault = record->fault;
    if (fault.kind == "uninitialised" && racing.count({record->region, record->here})) continue;
    const bool is_about_order = fault.kind == "uninitialised" || fault.kind == "async-copy" || fault.kind == "proxy";
    if (is_about_order && misled.count(record->here)) continue;
    fault.here = resolve_site(record->here);
    if (record->other) fault.other = resolve_site(record->other);
    const std::string here = text(fault.here), other = record->other ? text(fault.other) : "";
    if ((fault.kind == "uninitialised" || fault.kind == "race") && (overrun.count(here) || overrun.count(other)))
      continue;
    const auto [at, is_new] = known.try_emplace(
        std::make_tuple(fault.kind, fault.kernel, fault.array, std::min(here, other), std::max(here, other)),
        report.faults.size());
    if (is_new) {
      report.faults.emplace_back();
      distances.push_back(-1);
    } else {  // an unrolled loop: many instructions of one line
      fault.times += report.faults[at->second].times;
    }
    if (record->distance > distances[at->second]) {
      fault.message = message_of(*record);
      if (!fault.kernel.empty() && fault.message.find(fault.kernel) == std::string::npos) {
        fault.message = fault.kernel + ": " + fault.message;
      }
      distances[at->second] = record->distance;
      report.faults[at->second] = fault;
    }
    report.faults[at->second].times = fault.times;
  }
  return report;
}

// ---- what the instructions tell -----------------------------------------------------------------------------------

void watch_async_copy_issued(Thread& thread, const void* shared, const void* global, int bytes, int source_bytes,
                             CallSite site) {
  if (!active_watcher()) return;
  the_watcher.async_copy_issued(thread, reinterpret_cast<uintptr_t>(shared), reinterpret_cast<uintptr_t>(global),
                                unsigned(bytes), unsigned(source_bytes), site);
}

void watch_async_copy_landed(Thread& thread, const void* shared, int bytes) {
  if (!active_watcher()) return;
  the_watcher.async_copy_landed(thread, reinterpret_cast<uintptr_t>(shared), unsigned(bytes));
}

void watch_ldmatrix(Thread& thread, const void* row, int matrices, CallSite site) {
  if (!active_watcher() || thread.lane >= 8 * matrices) return;
  the_watcher.access_of(thread, reinterpret_cast<uintptr_t>(row), 16, false, AccessKind::ldmatrix, site);
}

void watch_mma(Thread& thread, CallSite site) {
  if (Watcher* watcher = active_watcher()) watcher->event(thread, Event::mma, site, 1);
}

}  // namespace flash::emu

// ---- counts.h -------------------------------------------------------------------------------------------------------

void flash::reset_watch_report() { flash::emu::the_watcher.reset(); }
flash::WatchReport flash::take_watch_report() { return flash::emu::the_watcher.report(); }
