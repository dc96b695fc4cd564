#include "common/emu/run/warpgroups.h"

#include <algorithm>
#include <cstring>

#include "common/emu/run/engine.h"
#include "common/emu/run/watched.h"
#include "common/emu/run/worker.h"

namespace flash::emu {
namespace {

const char* name_of(Warpgroups::Step step) {
  switch (step) {
    case Warpgroups::Step::fence: return "wgmma_fence";
    case Warpgroups::Step::commit: return "wgmma_commit";
    case Warpgroups::Step::wait: return "wgmma_wait";
    case Warpgroups::Step::registers_down: return "registers_down_to";
    default: return "registers_up_to";
  }
}

}  // namespace

void Warpgroups::begin_block(unsigned threads) {
  groups_.clear();
  registers_.begin_block(threads);
}

void Warpgroups::issue(Thread& thread, const Wgmma& op) {
  groups_.resize((thread.block->threads + kWarpgroup - 1) / kWarpgroup);
  Group& group = groups_[thread.linear / kWarpgroup];
  group.shares.resize(kWarpgroup);
  const unsigned t = thread.linear % kWarpgroup;
  std::list<Accumulators>& all = group.accumulators;
  auto d = std::find_if(all.begin(), all.end(), [&](const Accumulators& a) { return a.at[t] == op.d; });
  watch_wgmma_takes(thread, op, d != all.end());
  if (d == all.end()) {  // those that other threads began with, or new ones
    d = std::find_if(all.begin(), all.end(), [&](const Accumulators& a) { return !a.at[t] && a.n == op.n; });
    if (d == all.end()) d = all.emplace(all.end(), op.n);
    d->take(t, op.d);
  } else if (d->n != op.n) {
    stop_engine("other",
                to_string(op.site) + ": this wgmma adds to accumulators that one of another shape is still adding to",
                op.site);
  }
  ++d->in_flight;
  group.shares[t].issued.push_back(op);
  group.shares[t].issued.back().accumulators = &*d;
}

bool Warpgroups::arrive(Thread& thread, Step step, unsigned operand, CallSite site) {
  const Block& block = *thread.block;
  const bool is_registers = step == Step::registers_down || step == Step::registers_up;
  groups_.resize((block.threads + kWarpgroup - 1) / kWarpgroup);
  const unsigned warpgroup = thread.linear / kWarpgroup;
  Group& group = groups_[warpgroup];
  group.shares.resize(kWarpgroup);
  const auto same_line = [](const CallSite& a, const CallSite& b) {
    return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
  };
  if (group.arrived > 0 && (group.step != step || group.operand != operand || !same_line(group.site, site))) {
    stop_engine("barrier",
                to_string(site) + ": " + name_of(step) + " of warp " + std::to_string(thread.warp->index) +
                    ", and other warps of warpgroup " + std::to_string(warpgroup) + " are at " + to_string(group.site) +
                    ", " + name_of(group.step) + ": " + (is_registers ? "setmaxnreg" : "wgmma") +
                    " needs all four together",
                site, group.site);
  }
  if (is_registers) check_registers(step, operand, warpgroup, site);
  group.step = step, group.site = site, group.operand = operand;
  group.takes = ++group.arrived == kWarpgroup && step == Step::registers_up && !registers_.take(warpgroup, operand);
  if (group.arrived < kWarpgroup || group.takes) {
    group.waiting.push_back(&thread);
    thread.state = ThreadState::at_warpgroup;
    thread.waits_for = name_of(step);
    thread.waits_at = site;
    thread.waits_on = warpgroup;
    return false;
  }
  if (step == Step::fence) {
    watch_wgmma_fenced(block, warpgroup);
  } else if (step == Step::commit) {
    check_alike(block, group, warpgroup);
    for (const Wgmma& op : group.shares[0].issued) watch_wgmma_issued(block, warpgroup, op);
    for (Share& share : group.shares) {
      share.groups.push_back(std::move(share.issued));
      share.issued.clear();
    }
  } else if (step == Step::wait) {
    finish(block, group, warpgroup, operand);
  } else if (step == Step::registers_down) {
    registers_.give(warpgroup, operand);
    for (Group& other : groups_) {
      if (other.takes && registers_.take(unsigned(&other - groups_.data()), other.operand)) let_go_on(other);
    }
  }
  let_go_on(group);
  return true;
}

// Computes all but the newest groups.
void Warpgroups::finish(const Block& block, Group& group, unsigned warpgroup, unsigned groups_open) {
  const Thread* const threads = block.thread + warpgroup * kWarpgroup;
  while (group.shares[0].groups.size() > groups_open) {
    const std::vector<Wgmma>& products = group.shares[0].groups.front();
    for (size_t i = 0; i < products.size(); ++i) {
      const uint32_t* a[kWarpgroup];
      for (unsigned t = 0; t < kWarpgroup; ++t) a[t] = group.shares[t].groups.front()[i].a;
      multiply(block, products[i], a);
      products[i].accumulators->in_flight -= kWarpgroup;
    }
    watch_wgmma_done(warpgroup, products.size());
    for (unsigned t = 0; t < kWarpgroup; ++t) {
      for (const Wgmma& op : group.shares[t].groups.front()) watch_wgmma_has_read(threads[t], op);
      group.shares[t].groups.pop_front();
    }
  }
  for (auto d = group.accumulators.begin(); d != group.accumulators.end();) {
    if (d->in_flight > 0) {  // something else adds to it
      ++d;
      continue;
    }
    for (unsigned t = 0; t < kWarpgroup; ++t) {
      d->give_back(t);
      watch_wgmma_delivered(threads[t], d->at[t], size_t(d->n) / 2);
    }
    d = group.accumulators.erase(d);
  }
}

void Warpgroups::let_go_on(Group& group) {
  group.arrived = 0;
  group.takes = false;
  for (Thread* waiting : group.waiting) current_worker()->wake(*waiting);
  group.waiting.clear();
}

void Warpgroups::check_registers(Step step, unsigned registers, unsigned warpgroup, CallSite site) const {
  const std::string what = to_string(site) + ": " + name_of(step) + "<" + std::to_string(registers) + ">";
  if (registers < 24 || registers > Registers::kMost || registers % 8 != 0) {
    stop_engine("other", what + ": the registers of a thread are a multiple of 8 from 24 to 256", site);
  }
  const unsigned has = registers_.of(warpgroup);
  if (step == Step::registers_down ? registers <= has : registers >= has) return;
  stop_engine("other",
              what + ", and the threads of warpgroup " + std::to_string(warpgroup) + " have " + std::to_string(has) +
                  " each (at the launch a block of this size gets at most " + std::to_string(registers_.at_launch()) +
                  "): it can only go " + (step == Step::registers_down ? "down" : "up"),
              site);
}

// All threads of the warpgroup have issued the same products.
void Warpgroups::check_alike(const Block& block, Group& group, unsigned warpgroup) const {
  const std::vector<Wgmma>& first = group.shares[0].issued;
  for (unsigned t = 1; t < kWarpgroup; ++t) {
    const std::vector<Wgmma>& mine = group.shares[t].issued;
    const std::string who = "warpgroup " + std::to_string(warpgroup) + ": thread " +
                            to_string(block.thread[warpgroup * kWarpgroup + t].index);
    if (mine.size() != first.size()) {
      stop_engine("barrier",
                  who + " has issued " + std::to_string(mine.size()) + " wgmmas before " + to_string(group.site) +
                      ", the first thread " + std::to_string(first.size()),
                  group.site);
    }
    for (size_t i = 0; i < mine.size(); ++i) {
      if (mine[i].b_descriptor == first[i].b_descriptor && mine[i].a_descriptor == first[i].a_descriptor &&
          mine[i].accumulate == first[i].accumulate && mine[i].accumulators == first[i].accumulators) {
        continue;
      }
      stop_engine(
          "other",
          who + " gives the wgmma of " + to_string(mine[i].site) +
              " another descriptor, scale or array of accumulators than the first thread: they must be equal in "
              "all warps",
          mine[i].site, first[i].site);
    }
  }
}

std::string Warpgroups::state(const Thread& thread) const {
  const Group& group = groups_[thread.waits_on];
  if (group.takes) return "the pool has too few registers";
  return "it has " + std::to_string(group.arrived) + " of its 128 threads";
}

std::string Warpgroups::why_no_registers(const Block& block) const {
  for (const Group& group : groups_) {
    const unsigned w = unsigned(&group - groups_.data());
    const std::string who = "warpgroup " + std::to_string(w);
    if (group.takes) {
      const unsigned more = kWarpgroup * (group.operand - registers_.of(w));
      return who + " takes " + std::to_string(more) + " registers more at " + to_string(group.site) + ", " +
             std::to_string(group.operand) + " a thread, and nobody gives as many: " + registers_.who_has_what() +
             ". At its launch a block of " + std::to_string(block.threads) + " threads gets at most " +
             std::to_string(registers_.at_launch()) + " a thread, and that is all there is";
    }
    if (group.arrived > 0 && (group.step == Step::registers_down || group.step == Step::registers_up)) {
      return "only " + std::to_string(group.arrived) + " of the 128 threads of " + who + " are at the " +
             name_of(group.step) + " of " + to_string(group.site) + ": setmaxnreg needs all four warps";
    }
  }
  return "";
}

const Wgmma* Warpgroups::unfinished() const {
  for (const Group& group : groups_) {
    for (const Share& share : group.shares) {
      if (!share.issued.empty()) return &share.issued.front();
      if (!share.groups.empty() && !share.groups.front().empty()) return &share.groups.front().front();
    }
  }
  return nullptr;
}

}  // namespace flash::emu
