#include "common/emu/run/mbarriers.h"

#include <algorithm>

#include "common/emu/run/engine.h"
#include "common/emu/run/shared_place.h"
#include "common/emu/run/watched.h"
#include "common/emu/run/worker.h"

namespace flash::emu {
namespace {

constexpr uint32_t kMostArrivals = (1u << 20) - 1;  // and bytes, of a phase
constexpr const char* kWait = "mbarrier_wait";

}  // namespace

void Mbarriers::begin_block() {
  all_.clear();
  index_.clear();
}

std::string Mbarriers::name(const Block& block, unsigned barrier) const {
  const Mbarrier& b = all_[barrier];
  return "mbarrier " + shared_name(block, reinterpret_cast<const void*>(b.at), 8) + " (initialised at " +
         to_string(b.init_site) + " with " + std::to_string(b.count) + ")";
}

unsigned Mbarriers::find(const void* at, const char* use, CallSite site) const {
  const auto found = index_.find(reinterpret_cast<uintptr_t>(at));
  if (found != index_.end() && all_[found->second].valid) return found->second;
  const Block& block = *current_thread()->block;
  const std::string where = in_shared_memory(block, at, 8) ? shared_name(block, at, 8) : "no shared memory";
  stop_engine("mbarrier", to_string(site) + " " + use + " an mbarrier at " + where + ", and none was initialised there",
              site, found != index_.end() ? all_[found->second].init_site : CallSite());
}

void Mbarriers::init(Thread& thread, const void* at, uint32_t count, CallSite site) {
  const Block& block = *thread.block;
  const uintptr_t address = reinterpret_cast<uintptr_t>(at);
  if (address % 8 != 0 || !in_shared_memory(block, at, 8)) {
    stop_engine("mbarrier",
                to_string(site) + " initialises an mbarrier that is not 8 bytes of shared memory at a multiple of 8",
                site);
  }
  if (count < 1 || count > kMostArrivals) {
    stop_engine("mbarrier",
                to_string(site) + " initialises an mbarrier with " + std::to_string(count) +
                    " arrivals; a phase has 1 to 1048575",
                site);
  }
  const auto [entry, is_new] = index_.try_emplace(address, unsigned(all_.size()));
  if (is_new) {
    all_.emplace_back();
  } else if (all_[entry->second].valid) {
    const Mbarrier& old = all_[entry->second];
    stop_engine("mbarrier",
                to_string(site) + " initialises mbarrier " + shared_name(block, at, 8) + " again: " +
                    to_string(old.init_site) + " did, in thread " + to_string(block.thread[old.init_thread].index) +
                    ", and no mbarrier_inval() lies between. One thread initialises it, once",
                site, old.init_site);
  }
  Mbarrier& barrier = all_[entry->second];
  barrier = Mbarrier();
  barrier.at = address;
  barrier.valid = true;
  barrier.count = barrier.pending = count;
  barrier.init_site = site;
  barrier.init_thread = thread.linear;
  watch_mbarrier_init(thread, entry->second, at, site);
}

void Mbarriers::invalidate(Thread& thread, const void* at, CallSite site) {
  const unsigned barrier = find(at, "invalidates", site);
  watch_mbarrier_used(thread, barrier, site);
  if (!all_[barrier].waiting.empty()) {
    stop_engine("mbarrier",
                to_string(site) + " invalidates " + name(*thread.block, barrier) + " while threads wait for it", site,
                all_[barrier].waiting[0]->waits_at);
  }
  all_[barrier].valid = false;
  watch_mbarrier_gone(barrier, at);
}

void Mbarriers::expect(Thread& thread, const void* at, uint32_t bytes, CallSite site) {
  const unsigned index = find(at, "expects bytes at", site);
  watch_mbarrier_used(thread, index, site);
  Mbarrier& barrier = all_[index];
  barrier.bytes += bytes;
  barrier.announced += bytes;
  barrier.expect_site = site;
  if (barrier.bytes > int64_t(kMostArrivals)) {
    stop_engine("mbarrier",
                to_string(site) + " expects " + std::to_string(barrier.bytes) +
                    " bytes in one phase of an mbarrier, which counts up to 1048575",
                site);
  }
}

void Mbarriers::arrive(Thread& thread, const void* at, CallSite site) {
  const unsigned index = find(at, "arrives at", site);
  watch_mbarrier_used(thread, index, site);
  Mbarrier& barrier = all_[index];
  if (barrier.pending == 0) {
    stop_engine("mbarrier",
                to_string(site) + " arrives at " + name(*thread.block, index) + " once too often: its phase " +
                    std::to_string(barrier.phase) + " has its " + std::to_string(barrier.count) +
                    " arrivals and waits for bytes alone",
                site, barrier.init_site);
  }
  --barrier.pending;
  barrier.arrived.push_back(thread.linear);
  watch_mbarrier_arrived(thread, index);
  if (Watcher* watcher = active_watcher()) watcher->event(thread, Event::mbarrier_arrival, site, 1);
  end_phase_if_complete(index);
}

bool Mbarriers::wait(Thread& thread, const void* at, bool parity, bool polls, CallSite site) {
  const unsigned index = find(at, "waits for", site);
  watch_mbarrier_used(thread, index, site);
  if (Watcher* watcher = active_watcher()) watcher->event(thread, Event::mbarrier_wait, site, 1);
  if (has_ended(index, parity)) {
    watch_mbarrier_passed(thread, index);
    return true;
  }
  thread.state = ThreadState::at_mbarrier;
  thread.waits_for = polls ? "mbarrier_try_wait" : kWait;
  thread.waits_at = site;
  thread.waits_on = index;
  thread.waits_parity = parity;
  all_[index].waiting.push_back(&thread);
  return false;
}

void Mbarriers::stop_waiting(Thread& thread) {
  std::vector<Thread*>& waiting = all_[thread.waits_on].waiting;
  waiting.erase(std::find(waiting.begin(), waiting.end(), &thread));
}

bool Mbarriers::come(unsigned index, uint64_t phase, uint32_t bytes) {
  Mbarrier& barrier = all_[index];
  if (!barrier.valid || barrier.phase != phase) return false;
  barrier.bytes -= bytes;
  if (barrier.pending == 0 && barrier.bytes < 0) return false;
  end_phase_if_complete(index);
  return true;
}

void Mbarriers::end_phase_if_complete(unsigned index) {
  Mbarrier& barrier = all_[index];
  if (barrier.pending != 0 || barrier.bytes != 0) return;
  const auto still_sleeps = [&](const Thread* thread) {
    return thread->state == ThreadState::ready && thread->waits_for == kWait && thread->waits_on == index;
  };
  const auto sleeper = std::find_if(barrier.woken.begin(), barrier.woken.end(), still_sleeps);
  if (sleeper != barrier.woken.end()) watch_mbarrier_overrun(**sleeper, index);
  ++barrier.phase;
  barrier.pending = barrier.count;
  barrier.announced = 0;
  barrier.arrived.clear();
  watch_mbarrier_phase_ended(index);
  // All that wait do so for the phase that ends here. They know what came before its end, no more.
  for (Thread* thread : barrier.waiting) {
    watch_mbarrier_passed(*thread, index);
    current_worker()->wake(*thread);
  }
  barrier.woken.swap(barrier.waiting);
  barrier.waiting.clear();
}

// ---- reports --------------------------------------------------------------------------------------------------------

std::string Mbarriers::state(unsigned index) const {
  const Mbarrier& barrier = all_[index];
  std::string text = "its phase " + std::to_string(barrier.phase) + " has " +
                     std::to_string(barrier.count - barrier.pending) + " of " + std::to_string(barrier.count) +
                     " arrivals";
  if (barrier.announced != 0 || barrier.bytes != 0) {
    text += " and " + std::to_string(barrier.announced - barrier.bytes) + " of " + std::to_string(barrier.announced) +
            " bytes";
    if (barrier.announced != 0) text += ", announced at " + to_string(barrier.expect_site);
  }
  return text;
}

std::string Mbarriers::likely_cause(const Block& block) const {
  for (const Mbarrier& barrier : all_) {  // bytes that nobody sends
    if (barrier.waiting.empty() || barrier.pending != 0 || barrier.bytes <= 0) continue;
    return "all arrivals of " + name(block, unsigned(&barrier - all_.data())) + " have come, but only " +
           std::to_string(barrier.announced - barrier.bytes) + " of the " + std::to_string(barrier.announced) +
           " bytes that " + to_string(barrier.expect_site) +
           " announced. No copy is on its way: the bytes announced are more than those of the copies, or a copy names "
           "another mbarrier";
  }
  for (const Mbarrier& barrier : all_) {  // some arrived
    if (barrier.waiting.empty() || barrier.pending == 0 || barrier.pending == barrier.count) continue;
    return name(block, unsigned(&barrier - all_.data())) + " lacks " + std::to_string(barrier.pending) +
           (barrier.pending == 1 ? " arrival" : " arrivals") +
           ": it was initialised with more than arrive, or the threads that should arrive wait, or have returned";
  }
  // Two wait for each other's first arrival, and one of them waits for a buffer that was never filled.
  const Mbarrier* fresh = nullptr;
  int waited_for = 0;
  for (const Mbarrier& barrier : all_) {
    if (barrier.waiting.empty()) continue;
    ++waited_for;
    const bool untouched = barrier.phase == 0 && barrier.pending == barrier.count && barrier.bytes == 0;
    if (!untouched) continue;
    if (fresh == nullptr || barrier.waiting.size() < fresh->waiting.size()) fresh = &barrier;
  }
  if (fresh != nullptr && waited_for > 1) {
    return "nothing has ever arrived at " + name(block, unsigned(fresh - all_.data())) +
           ". Who waits for a buffer to be empty starts with parity 1: of a fresh mbarrier the phase of parity 1 "
           "counts "
           "as ended";
  }
  for (const Mbarrier& barrier : all_) {
    if (barrier.waiting.empty() || barrier.phase == 0) continue;
    return "phase " + std::to_string(barrier.phase - 1) + " of " + name(block, unsigned(&barrier - all_.data())) +
           " has ended, and the wait is for the next, which nobody begins: a wait too many, a parity that wasn't "
           "flipped, or a copy that isn't issued";
  }
  return "";
}

}  // namespace flash::emu
