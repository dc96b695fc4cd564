#include "common/emu/run/named_barriers.h"

#include <algorithm>

#include "common/emu/run/engine.h"
#include "common/emu/run/watched.h"
#include "common/emu/run/worker.h"

namespace flash::emu {

void NamedBarriers::begin_block() {
  for (Barrier& barrier : barriers_) barrier.arrived = 0, barrier.waiting.clear();
}

bool NamedBarriers::arrive(Thread& thread, int id, int threads, bool waits, CallSite site) {
  const char* const what = waits ? "named_sync" : "named_arrive";
  const std::string name =
      to_string(site) + ": " + what + "(" + std::to_string(id) + ", " + std::to_string(threads) + ")";
  if (id < 1 || id >= int(kCount)) {
    stop_engine("barrier", name + ": the barriers are 1 to 15; 0 is __syncthreads()", site);
  }
  const unsigned most = (thread.block->threads + kLanes - 1) / kLanes * kLanes;
  if (threads < 1 || threads % kLanes != 0 || unsigned(threads) > most) {
    stop_engine("barrier", name + ": the threads must be a multiple of 32, and no more than the block has", site);
  }
  Barrier& barrier = barriers_[id];
  if (barrier.arrived == 0) {
    barrier.threads = unsigned(threads);
    barrier.site = site;
    barrier.has_arrived.assign(thread.block->threads, false);
  } else if (barrier.threads != unsigned(threads)) {
    stop_engine("barrier",
                name + ": " + to_string(barrier.site) + " names " + std::to_string(barrier.threads) +
                    " threads for the same barrier, which has " + std::to_string(barrier.arrived) +
                    " of them. All must name the same number",
                site, barrier.site);
  }
  if (barrier.has_arrived[thread.linear]) {
    stop_engine("barrier",
                name +
                    ": the thread has arrived already and the barrier isn't full: " + std::to_string(barrier.arrived) +
                    " of " + std::to_string(barrier.threads) + " threads, the first at " + to_string(barrier.site) +
                    ". Two uses of one barrier overtake each other",
                site, barrier.site);
  }
  const auto lanes = barrier.has_arrived.begin() + std::ptrdiff_t(thread.linear / kLanes * kLanes);
  const auto lanes_end = lanes + std::min<std::ptrdiff_t>(kLanes, barrier.has_arrived.end() - lanes);
  const bool is_first = std::find(lanes, lanes_end, true) == lanes_end;
  barrier.has_arrived[thread.linear] = true;
  ++barrier.arrived;
  if (Watcher* watcher = active_watcher(); watcher && is_first) watcher->event(thread, Event::named_barrier, site, 1);
  watch_named_arrived(thread, unsigned(id));
  if (waits) barrier.waiting.push_back(&thread);
  if (barrier.arrived < barrier.threads) {
    if (!waits) return true;
    thread.state = ThreadState::at_named_barrier;
    thread.waits_for = what;
    thread.waits_at = site;
    thread.waits_on = unsigned(id);
    return false;
  }
  watch_named_complete(unsigned(id));
  for (Thread* waiting : barrier.waiting) {
    watch_named_passed(*waiting, unsigned(id));
    if (waiting != &thread) current_worker()->wake(*waiting);
  }
  barrier.waiting.clear();
  barrier.arrived = 0;
  return true;
}

std::string NamedBarriers::state(unsigned id) const {
  return "it has " + std::to_string(barriers_[id].arrived) + " of " + std::to_string(barriers_[id].threads) +
         " threads";
}

}  // namespace flash::emu
