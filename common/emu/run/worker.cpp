#include "common/emu/run/worker.h"

#include <signal.h>
#include <cstdint>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "common/base/error.h"
#include "common/emu/run/launch.h"
#include "common/emu/run/symbols.h"

namespace flash::emu {
namespace {

constexpr size_t kStackBytes = 128 * 1024;  // a thread's; only the pages it touches take memory
constexpr size_t kArenaBytes = 256 * 1024;  // more than any device's dynamic shared memory
constexpr size_t kSharedAlignment = 1024;   // TMA's largest swizzle repeats after as many bytes
constexpr unsigned kFruitlessPolls = 1000;  // then the threads that poll wait for ever

thread_local Worker* this_worker = nullptr;
// What the running thread asks for most, without a detour through the worker.
thread_local Thread* this_thread = nullptr;

std::atomic<uint64_t> blocks_started{0};

bool same_place(const CallSite& a, const CallSite& b) {
  if (a.file == nullptr || b.file == nullptr) return a.pc == b.pc;
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

bool same_name(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

// "0-15, 32" of a sorted list.
std::string ranges(const std::vector<unsigned>& numbers) {
  std::string text;
  for (size_t i = 0; i < numbers.size();) {
    size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    text += (text.empty() ? "" : ", ") + std::to_string(numbers[i]);
    if (last > i) text += "-" + std::to_string(numbers[last]);
    i = last + 1;
  }
  return text;
}

std::string lanes_of(uint32_t mask) {
  std::vector<unsigned> lanes;
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    if (mask >> lane & 1) lanes.push_back(lane);
  }
  return (lanes.size() == 1 ? "lane " : "lanes ") + ranges(lanes);
}

}  // namespace

std::string to_string(const CallSite& site) {
  return site.file == nullptr ? "an unknown line" : std::string(site.file) + ":" + std::to_string(site.line);
}

std::string to_string(Index i) {
  return "(" + std::to_string(i.x) + "," + std::to_string(i.y) + "," + std::to_string(i.z) + ")";
}

Worker* current_worker() { return this_worker; }
Thread* current_thread() { return this_thread; }
Watcher* active_watcher() { return this_worker == nullptr ? nullptr : this_worker->watcher(); }

uint64_t packed_thread_idx() noexcept {
  const Index i = this_thread->index;
  return i.x | uint64_t(i.y) << 16 | uint64_t(i.z) << 32;
}
uint64_t packed_block_dim() noexcept {
  const Index i = this_thread->block->launch->block;
  return i.x | uint64_t(i.y) << 16 | uint64_t(i.z) << 32;
}
uint64_t packed_block_idx() noexcept {
  const Index i = this_thread->block->index;
  return i.x | uint64_t(i.y) << 32 | uint64_t(i.z) << 48;
}
uint64_t packed_grid_dim() noexcept {
  const Index i = this_thread->block->launch->grid;
  return i.x | uint64_t(i.y) << 32 | uint64_t(i.z) << 48;
}
void* dynamic_shared_memory() noexcept { return this_thread->block->dynamic_begin; }

void collective(const char* name, uint32_t mask, const CallSite& site, void* operand, Combine combine,
                bool needs_all_lanes) {
  this_worker->collective(name, mask, site, operand, combine, needs_all_lanes);
}

void fail(const std::string& sentence) {
  if (this_thread == nullptr) throw Error(kDeviceError, sentence);
  RuntimeFault fault;
  fault.kind = "other";
  fault.message = sentence;
  this_worker->stop(fault);
}

Worker::Worker(int index) : arena_(kArenaBytes) {
  block_.worker = index;
  block_.statics = &statics_;
}

// ---- a block, from its first thread to its last -----------------------------------------------------------------

void Worker::begin_launch(const Launch& launch, void (*thread_body)(void*), void* argument, Watcher* watcher) {
  this_worker = this;
  launch_ = &launch;
  thread_body_ = thread_body;
  argument_ = argument;
  watcher_ = watcher;
  statics_ = static_shared_arrays(launch.function);
  skip_shared_constructors(launch.function);

  const unsigned threads = launch.block.x * launch.block.y * launch.block.z;
  const unsigned warps = (threads + kLanes - 1) / kLanes;
  while (stacks_.size() < threads) stacks_.emplace_back(kStackBytes);
  contexts_.resize(threads);
  threads_.assign(threads, Thread());
  warps_.assign(warps, Warp());
  meetings_.resize(warps);
  size_t ring = 1;
  while (ring < threads) ring *= 2;
  ready_.assign(ring, nullptr);

  block_.launch = &launch;
  block_.threads = threads;
  block_.warps = warps;
  block_.thread = threads_.data();
  block_.warp = warps_.data();
  const size_t arena = (launch.dynamic_shared_bytes + kSharedAlignment - 1) / kSharedAlignment * kSharedAlignment;
  block_.dynamic_begin = arena_.end() - arena;
  block_.dynamic_end = block_.dynamic_begin + launch.dynamic_shared_bytes;
  const TlsRange tls = tls_range();
  block_.tls_begin = tls.begin;
  block_.tls_end = tls.end;
}

void Worker::end_launch() {
  this_worker = nullptr;
  launch_ = nullptr;
  watcher_ = nullptr;
}

void Worker::prepare_block(uint64_t linear) {
  const Launch& launch = *launch_;
  block_.linear = linear;
  block_.index = {unsigned(linear % launch.grid.x), unsigned(linear / launch.grid.x % launch.grid.y),
                  unsigned(linear / launch.grid.x / launch.grid.y)};
  block_.serial = ++blocks_started;
  block_.syncs = 0;
  exited_ = at_barrier_ = barrier_yes_ = 0;
  barriers_differ_ = false;
  first_at_barrier_ = nullptr;
  engine_.mbarriers.begin_block();
  engine_.named_barriers.begin_block();
  engine_.copies.begin_block();
  engine_.warpgroups.begin_block(block_.threads);
  polling_.clear();
  fruitless_polls_ = 0;
  fault_.reset();
  ready_first_ = ready_count_ = 0;
  if (launch.seed != 0) random_.seed(launch.seed * 0x9e3779b97f4a7c15u + linear);

  // Shared memory starts as NaN, so that a value left by an earlier block is never read unnoticed.
  if (block_.dynamic_begin != block_.dynamic_end) {
    std::memset(block_.dynamic_begin, 0xff, size_t(arena_.end() - block_.dynamic_begin));
  }
  for (const StaticShared& array : statics_) std::memset(array.base, 0xff, array.bytes);

  for (unsigned w = 0; w < block_.warps; ++w) {
    const unsigned lanes = std::min<unsigned>(kLanes, block_.threads - w * kLanes);
    warps_[w] = Warp();
    warps_[w].index = int(w);
    warps_[w].lanes = lanes == kLanes ? kAllLanes : (1u << lanes) - 1;
    warps_[w].first = &threads_[w * kLanes];
    meetings_[w].clear();
  }
  for (unsigned t = 0; t < block_.threads; ++t) {
    Thread& thread = threads_[t];
    thread = Thread();
    thread.block = &block_;
    thread.warp = &warps_[t / kLanes];
    thread.linear = t;
    thread.lane = int(t % kLanes);
    thread.index = {t % launch.block.x, t / launch.block.x % launch.block.y, t / launch.block.x / launch.block.y};
    thread.stack_begin = stacks_[t].begin();
    thread.stack_end = stacks_[t].end();
    // Stacks that all begin at the same place of a page would share a few lines of the cache.
    start_context(contexts_[t], stacks_[t].begin(), stacks_[t].end() - t % 16 * 256, &Worker::fiber_main);
    make_ready(thread);
  }
}

void Worker::run_block(uint64_t linear) {
  prepare_block(linear);
  if (watcher_ != nullptr) watcher_->block_begin(block_);
  go_on_with_next(scheduler_);
  running_ = this_thread = nullptr;
  if (!fault_ && exited_ != block_.threads) {
    stop_stalled();
  }
  if (!fault_) fault_ = engine_.copies.end_block(block_);
  if (const Wgmma* open = fault_ ? nullptr : engine_.warpgroups.unfinished()) {
    fault_.emplace();
    fault_->kind = "wgmma";
    fault_->here = open->site;
    fault_->message = "the block ends and no wgmma_wait covers the wgmma of " + to_string(open->site) +
                      ": its threads never got the result";
  }
  if (fault_) throw_fault();
  if (watcher_ != nullptr) watcher_->block_end(block_);
}

void Worker::fiber_main() {
  Worker& worker = *this_worker;
  try {
    worker.thread_body_(worker.argument_);
  } catch (const std::exception& problem) {
    fail(std::string("the kernel threw an exception: ") + problem.what());
  }
  worker.thread_exits();
}

void Worker::thread_exits() {
  Thread& self = *running_;
  self.state = ThreadState::exited;
  if (watcher_ != nullptr) watcher_->thread_end(self);
  Warp& warp = *self.warp;
  warp.exited |= 1u << self.lane;
  ++exited_;
  // Those who wait for everybody else need not wait for this one any more.
  auto& meetings = meetings_[size_t(warp.index)];
  for (size_t m = 0; m < meetings.size();) {
    if (!complete_if_all_arrived(warp, &meetings[m])) ++m;
  }
  release_block_barrier_if_all_arrived();
  go_on_with_next(contexts_[self.linear]);
}

// ---- which fiber goes on ----------------------------------------------------------------------------------------

void Worker::make_ready(Thread& thread) {
  thread.state = ThreadState::ready;
  ready_[(ready_first_ + ready_count_) & (ready_.size() - 1)] = &thread;
  ++ready_count_;
}

// A warp that met goes on before the others do: its stacks are still in the cache.
void Worker::make_ready_first(Thread& thread) {
  thread.state = ThreadState::ready;
  --ready_first_;
  ready_[ready_first_ & (ready_.size() - 1)] = &thread;
  ++ready_count_;
}

void Worker::go_on_with_next(Context& from) {
  if (engine_.copies.any()) let_copies_land();
  if (ready_count_ == 0 && !polling_.empty()) wake_those_that_poll();
  if (ready_count_ == 0) {
    running_ = this_thread = nullptr;
    switch_context(from, scheduler_);
    return;
  }
  if (launch_->seed != 0) {  // any ready thread may be next
    const size_t other = ready_first_ + random_() % ready_count_;
    std::swap(ready_[ready_first_ & (ready_.size() - 1)], ready_[other & (ready_.size() - 1)]);
  }
  Thread* const next = ready_[ready_first_ & (ready_.size() - 1)];
  ++ready_first_;
  --ready_count_;
  next->state = ThreadState::running;
  running_ = this_thread = next;
  Context& to = contexts_[next->linear];
  if (&to != &from) switch_context(from, to);
}

// A load lands when no thread can go on without it; with a seed, at any time.
void Worker::let_copies_land() {
  const size_t ready_before = ready_count_;
  if (launch_->seed != 0 && random_() % 4 == 0) engine_.copies.land_any(block_, random_());
  while (ready_count_ == 0 && engine_.copies.land_oldest_load(block_)) {
  }
  if (ready_count_ > ready_before) fruitless_polls_ = 0;
}

void Worker::wake_those_that_poll() {
  if (++fruitless_polls_ > kFruitlessPolls) return;
  std::vector<Thread*> polling;
  polling.swap(polling_);
  for (Thread* thread : polling) {
    engine_.mbarriers.stop_waiting(*thread);
    make_ready(*thread);
  }
}

void Worker::wait() { go_on_with_next(contexts_[running_->linear]); }

// ---- barriers ---------------------------------------------------------------------------------------------------

Worker::BarrierVotes Worker::block_barrier(const char* name, CallSite site, bool predicate) {
  Thread& self = *running_;
  self.state = ThreadState::at_block_barrier;
  self.waits_for = name;
  self.waits_at = site;
  if (at_barrier_ == 0) {
    first_at_barrier_ = &self;
  } else if (!same_place(first_at_barrier_->waits_at, site) || !same_name(first_at_barrier_->waits_for, name)) {
    barriers_differ_ = true;
  }
  ++at_barrier_;
  barrier_yes_ += predicate;
  release_block_barrier_if_all_arrived();
  wait();
  return barrier_result_;
}

void Worker::release_block_barrier_if_all_arrived() {
  // Exited threads count as arrived. Threads at different barriers stay where they are: the stall is reported.
  if (at_barrier_ == 0 || at_barrier_ + exited_ != block_.threads || barriers_differ_) return;
  barrier_result_ = {barrier_yes_, at_barrier_};
  at_barrier_ = barrier_yes_ = 0;
  ++block_.syncs;
  if (watcher_ != nullptr) watcher_->block_barrier(block_, first_at_barrier_->waits_for, first_at_barrier_->waits_at);
  for (Thread& thread : threads_) {
    if (thread.state == ThreadState::at_block_barrier) make_ready(thread);
  }
}

void Worker::warp_barrier(const char* name, uint32_t mask, const CallSite& site) {
  meet(name, mask, site, true, false, nullptr, nullptr);
}

void Worker::collective(const char* name, uint32_t mask, const CallSite& site, void* operand, Combine combine,
                        bool needs_all_lanes) {
  meet(name, mask, site, false, needs_all_lanes, combine, operand);
}

void Worker::meet(const char* name, uint32_t mask, const CallSite& site, bool is_barrier, bool needs_all_lanes,
                  Combine combine, void* operand) {
  Thread& self = *running_;
  Warp& warp = *self.warp;
  if ((mask >> self.lane & 1) == 0) {
    RuntimeFault fault;
    fault.kind = "barrier";
    fault.here = site;
    fault.message = std::string(name) + " at " + to_string(site) + " has the mask " + hex(mask) +
                    ", which doesn't name the calling lane " + std::to_string(self.lane);
    stop(fault);
  }
  self.state = is_barrier ? ThreadState::at_warp_barrier : ThreadState::at_collective;
  self.waits_for = name;
  self.waits_at = site;
  self.waits_mask = mask;

  auto& meetings = meetings_[size_t(warp.index)];
  Meeting* meeting = nullptr;
  for (Meeting& candidate : meetings) {
    if (candidate.mask == mask && same_place(candidate.site, site) && same_name(candidate.name, name)) {
      meeting = &candidate;
      break;
    }
  }
  if (meeting == nullptr) {
    meetings.emplace_back();
    meeting = &meetings.back();
    meeting->name = name;
    meeting->site = site;
    meeting->mask = mask;
    meeting->is_barrier = is_barrier;
    meeting->needs_all_lanes = needs_all_lanes;
    meeting->combine = combine;
  }
  meeting->arrived |= 1u << self.lane;
  meeting->operand[self.lane] = operand;
  complete_if_all_arrived(warp, meeting);
  wait();
}

// Lets the lanes go on and forgets the meeting, if nobody is missing.
bool Worker::complete_if_all_arrived(Warp& warp, Meeting* meeting) {
  const uint32_t expected = meeting->mask & warp.lanes & (meeting->needs_all_lanes ? kAllLanes : ~warp.exited);
  if (meeting->arrived != expected) return false;
  if (meeting->is_barrier) {
    ++warp.syncs;
    for (int lane = 0; lane < kLanes; ++lane) {
      if (expected >> lane & 1) warp.lane_syncs[lane] = warp.syncs;
    }
    if (watcher_ != nullptr) watcher_->warp_barrier(block_, warp, expected, meeting->site);
  } else {
    meeting->combine(block_, warp, expected, meeting->operand);
  }
  for (int lane = kLanes - 1; lane >= 0; --lane) {
    if (expected >> lane & 1) make_ready_first(warp.first[lane]);
  }
  auto& meetings = meetings_[size_t(warp.index)];
  if (meeting != &meetings.back()) *meeting = meetings.back();
  meetings.pop_back();
  return true;
}

bool Worker::wait_for_mbarrier(const void* at, bool parity, bool polls, CallSite site) {
  Thread& self = *running_;
  if (engine_.mbarriers.wait(self, at, parity, polls, site)) return true;
  const unsigned barrier = self.waits_on;
  const uint64_t phase = engine_.mbarriers[barrier].phase;
  if (polls) polling_.push_back(&self);
  wait();
  if (!polls) {
    self.waits_for = nullptr;
    return true;
  }
  const bool ended = engine_.mbarriers[barrier].phase != phase;
  if (ended) {
    fruitless_polls_ = 0;
    polling_.erase(std::remove(polling_.begin(), polling_.end(), &self), polling_.end());
  }
  return ended;
}

void Worker::named_barrier(int id, int threads, bool waits, CallSite site) {
  if (!engine_.named_barriers.arrive(*running_, id, threads, waits, site)) wait();
}

void Worker::warpgroup_step(Warpgroups::Step step, unsigned operand, CallSite site) {
  if (!engine_.warpgroups.arrive(*running_, step, operand, site)) wait();
}

void stop_engine(const char* kind, const std::string& sentence, CallSite here, CallSite other) {
  RuntimeFault fault;
  fault.kind = kind;
  fault.message = sentence;
  fault.here = here;
  fault.other = other;
  this_worker->stop(std::move(fault));
}

// ---- what goes wrong --------------------------------------------------------------------------------------------

void Worker::stop(RuntimeFault fault) {
  fault.thread = running_;
  fault_ = std::move(fault);
  // Never comes back: the fiber is dropped.
  Context dropped;
  running_ = this_thread = nullptr;
  switch_context(dropped, scheduler_);
  __builtin_unreachable();
}

void Worker::stop_without_thread(RuntimeFault fault) {
  running_ = nullptr;
  stop(std::move(fault));
}

void Worker::throw_fault() {
  RuntimeFault& fault = *fault_;
  std::string where = "kernel " + launch_->name + ", block " + to_string(block_.index);
  if (fault.thread != nullptr) where += ", thread " + to_string(fault.thread->index);
  fault.message = where + ": " + fault.message;
  if (launch_->seed != 0) fault.message += " (EMU_SEED=" + std::to_string(launch_->seed) + ")";
  fault.launch = launch_;
  fault.block = &block_;
  if (watcher_ != nullptr) watcher_->fault(fault);
  throw Error(kDeviceError, fault.message);
}

std::string Worker::who_waits_where(std::vector<CallSite>* places) const {
  std::string text;
  std::vector<bool> told(threads_.size(), false);
  for (size_t t = 0; t < threads_.size(); ++t) {
    if (told[t]) continue;
    const Thread& first = threads_[t];
    const bool exited = first.state == ThreadState::exited;
    std::vector<unsigned> group;
    for (size_t u = t; u < threads_.size(); ++u) {
      const Thread& other = threads_[u];
      if (other.state != first.state) continue;
      if (!exited && (!same_name(other.waits_for, first.waits_for) || !same_place(other.waits_at, first.waits_at) ||
                      other.waits_mask != first.waits_mask || other.waits_on != first.waits_on ||
                      other.waits_parity != first.waits_parity)) {
        continue;
      }
      told[u] = true;
      group.push_back(unsigned(u));
    }
    const bool one = group.size() == 1;
    text += (one ? "\n  thread " : "\n  threads ") + ranges(group);
    if (exited) {
      text += one ? " has returned" : " have returned";
      continue;
    }
    text += (one ? " waits at " : " wait at ") + waits_at(first);
    places->push_back(first.waits_at);
  }
  return text;
}

std::string Worker::waits_at(const Thread& thread) const {
  const std::string where = ", " + to_string(thread.waits_at);
  const std::string what = thread.waits_for;
  switch (thread.state) {
    case ThreadState::at_warp_barrier:
    case ThreadState::at_collective: return what + " with mask " + hex(thread.waits_mask) + where;
    case ThreadState::at_mbarrier:
      return what + where + ", for parity " + (thread.waits_parity ? "1" : "0") + " of " +
             engine_.mbarriers.name(block_, thread.waits_on) + ": " + engine_.mbarriers.state(thread.waits_on);
    case ThreadState::at_named_barrier:
      return what + " of barrier " + std::to_string(thread.waits_on) + where + ": " +
             engine_.named_barriers.state(thread.waits_on);
    case ThreadState::at_warpgroup:
      return what + where + ", of warpgroup " + std::to_string(thread.waits_on) + ": " +
             engine_.warpgroups.state(thread);
    default: return what + where;
  }
}

void Worker::stop_stalled() {
  RuntimeFault fault;
  fault.kind = "barrier";
  if (at_barrier_ + exited_ == block_.threads && at_barrier_ > 0) {
    fault.message = "divergent barrier: the threads of the block wait at different barriers";
  }
  // Lanes that wait for one which waits for an mbarrier: that is why. And others for who waits for registers.
  std::string cause = engine_.warpgroups.why_no_registers(block_);
  if (cause.empty()) cause = engine_.mbarriers.likely_cause(block_);
  if (fault.message.empty() && !cause.empty()) fault.message = "deadlock: " + cause;
  for (const auto& meetings : meetings_) {
    for (const Meeting& meeting : meetings) {
      if (!fault.message.empty()) break;
      const Warp& warp = warps_[size_t(&meetings - meetings_.data())];
      const uint32_t missing = meeting.mask & warp.lanes & ~meeting.arrived, gone = missing & warp.exited;
      const bool names_exited = meeting.needs_all_lanes && gone != 0;
      fault.message = std::string(meeting.name) + " at " + to_string(meeting.site) + " in warp " +
                      std::to_string(warp.index) + " has the mask " + hex(meeting.mask) + ", which names " +
                      (names_exited ? lanes_of(gone) + ": returned already"
                                    : lanes_of(missing & ~warp.exited) + ": waiting elsewhere");
    }
  }
  if (fault.message.empty()) fault.message = "deadlock";
  std::vector<CallSite> places;
  fault.message += "; no thread can go on. Threads are numbered x + blockDim.x * (y + blockDim.y * z):";
  fault.message += who_waits_where(&places);
  if (!places.empty()) fault.here = places[0];
  if (places.size() > 1) fault.other = places[1];
  fault_ = std::move(fault);
  throw_fault();
}

void Worker::stop_at_signal(int signal, int code, const void* address, const void* pc) {
  RuntimeFault fault;
  fault.here.pc = pc;
  if (signal == SIGFPE) {
    fault.kind = "other";
    fault.message = "division of an integer by zero in " + function_name(pc);
  } else {
    fault.kind = "invalid-address";
    // A general protection fault (SI_KERNEL) doesn't tell the address.
    const bool has_address = code != SI_KERNEL;
    fault.address = has_address ? address : nullptr;
    fault.message = "misaligned or invalid address" +
                    (has_address ? " " + hex(reinterpret_cast<uintptr_t>(address)) : std::string()) + " in " +
                    function_name(pc);
    if (has_address) fault.message += describe_address(address);
  }
  stop(fault);
}

std::string Worker::describe_address(const void* address) const {
  const auto* const p = static_cast<const unsigned char*>(address);
  const GuardedMemory& stack = stacks_[running_->linear];
  if (stack.in_guard_before(p)) {
    return ": the thread's local arrays and calls need more than the " + std::to_string(kStackBytes / 1024) +
           " KB of stack it has here";
  }
  if (arena_.in_guard_behind(p)) {
    return ": " + std::to_string(p - block_.dynamic_end) + " bytes past the end of the dynamic shared memory (" +
           std::to_string(launch_->dynamic_shared_bytes) + " bytes)";
  }
  if (const std::string text = null_pointer_text(p); !text.empty()) return ": " + text;
  const Allocation* const near = nearest_allocation(p, 1 << 20);
  if (near == nullptr) return "";
  const bool behind = p >= near->base + near->bytes;
  const auto distance = behind ? p - (near->base + near->bytes) : near->base - p;
  return ": " + std::to_string(distance) + (behind ? " bytes past the end of " : " bytes before the begin of ") +
         near->label + " (" + std::to_string(near->bytes) + " bytes)";
}

}  // namespace flash::emu
