#include "common/emu/run/warpgroups.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "common/emu/run/engine.h"
#include "common/emu/run/watched.h"
#include "common/emu/run/worker.h"
#include "common/problem/dtype.h"

namespace flash::emu {
namespace {

constexpr unsigned kRows = 64, kDepth = 16;

float to_float(bool bf16, uint16_t bits) { return bf16 ? bf16_to_float(bits) : fp16_to_float(bits); }

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

uint32_t operand_address(uint64_t descriptor, bool transposed, unsigned mn, unsigned k) {
  const auto field = [&](int bit) { return uint32_t(descriptor >> bit & 0x3fff) << 4; };
  const uint32_t start = field(0), leading = field(16), stride = field(32);
  const unsigned mode = unsigned(descriptor >> 62);  // 0 none, 1 128 bytes, 2 64 bytes, 3 32 bytes
  if (mode == 0) {                                   // 8 x 16 bytes are 128 bytes in one piece
    if (transposed) return start + mn / 8 * stride + k / 8 * leading + k % 8 * 16 + mn % 8 * 2;
    return start + mn / 8 * stride + k / 8 * leading + mn % 8 * 16 + k % 8 * 2;
  }
  const uint32_t row = 256u >> mode;  // bytes
  const unsigned width = row / 2;     // elements
  const unsigned along = transposed ? mn : k, across = transposed ? k : mn;
  const uint32_t at = start + across / 8 * stride + across % 8 * row + along / width * leading + along % width * 2;
  return at ^ (at >> 7 & (row / 16 - 1)) << 4;
}

void Warpgroups::begin_block(unsigned threads) {
  groups_.clear();
  registers_.begin_block(threads);
}

void Warpgroups::issue(Thread& thread, const Wgmma& op) {
  groups_.resize((thread.block->threads + kWarpgroup - 1) / kWarpgroup);
  Group& group = groups_[thread.linear / kWarpgroup];
  group.shares.resize(kWarpgroup);
  Share& share = group.shares[thread.linear % kWarpgroup];
  const size_t count = size_t(op.n) / 2;
  auto fragment =
      std::find_if(share.fragments.begin(), share.fragments.end(), [&](const Fragment& f) { return f.at == op.d; });
  watch_wgmma_takes(thread, op, fragment != share.fragments.end());
  if (fragment == share.fragments.end()) {
    share.fragments.push_back({op.d, std::vector<float>(op.d, op.d + count), 0});
    fragment = share.fragments.end() - 1;
    std::fill(op.d, op.d + count, std::numeric_limits<float>::signaling_NaN());
  }
  ++fragment->in_flight;
  share.issued.push_back(op);
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
    const size_t ops = group.shares[0].groups.front().size();
    for (size_t op = 0; op < ops; ++op) compute(block, group, op);
    for (size_t op = 0; op < ops; ++op) watch_wgmma_done(warpgroup);
    for (unsigned t = 0; t < kWarpgroup; ++t) {
      for (const Wgmma& op : group.shares[t].groups.front()) watch_wgmma_has_read(threads[t], op);
      group.shares[t].groups.pop_front();
    }
  }
  for (unsigned t = 0; t < kWarpgroup; ++t) {  // results that nothing in flight adds to
    std::vector<Fragment>& fragments = group.shares[t].fragments;
    for (size_t f = 0; f < fragments.size();) {
      if (fragments[f].in_flight > 0) {
        ++f;
        continue;
      }
      std::copy(fragments[f].values.begin(), fragments[f].values.end(), fragments[f].at);
      watch_wgmma_delivered(threads[t], fragments[f].at, fragments[f].values.size());
      fragments.erase(fragments.begin() + std::ptrdiff_t(f));
    }
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
          mine[i].accumulate == first[i].accumulate && mine[i].n == first[i].n) {
        continue;
      }
      stop_engine("other",
                  who + " gives the wgmma of " + to_string(mine[i].site) +
                      " another descriptor or scale than the first thread: they must be equal in all warps",
                  mine[i].site, first[i].site);
    }
  }
}

void Warpgroups::compute(const Block& block, Group& group, size_t op) {
  const Wgmma& first = group.shares[0].groups.front()[op];
  const size_t n = size_t(first.n);
  const auto element = [&](uint64_t descriptor, bool transposed, unsigned mn, unsigned k) {
    const uint32_t at = operand_address(descriptor, transposed, mn, k);
    if (at + 2 > size_t(block.dynamic_end - block.dynamic_begin)) {
      stop_engine("out-of-bounds",
                  to_string(first.site) + ": a descriptor of this wgmma takes row " + std::to_string(mn) + ", k " +
                      std::to_string(k) + " from byte " + std::to_string(at) +
                      " of the dynamic shared memory, which has " +
                      std::to_string(block.dynamic_end - block.dynamic_begin),
                  first.site);
    }
    uint16_t bits;
    std::memcpy(&bits, block.dynamic_begin + at, 2);
    return to_float(first.bf16, bits);
  };
  float a[kRows][kDepth];
  std::vector<float> b(kDepth * n), d(kRows * n);
  for (unsigned k = 0; k < kDepth; ++k) {
    for (unsigned j = 0; j < n; ++j) b[k * n + j] = element(first.b_descriptor, first.trans_b, j, k);
    for (unsigned i = 0; i < kRows && !first.a_from_registers; ++i) {
      a[i][k] = element(first.a_descriptor, first.trans_a, i, k);
    }
  }
  // Thread 32 w + 4 g + t holds rows 16 w + g and + 8, columns 8 j + 2 t and + 1: mma's map (ptx/mma.cuh), n / 8 times.
  std::vector<std::vector<float>*> fragments(kWarpgroup);
  for (unsigned t = 0; t < kWarpgroup; ++t) {
    Share& share = group.shares[t];
    const Wgmma& mine = share.groups.front()[op];
    const unsigned row = t / 32 * 16 + t % 32 / 4, column = t % 4 * 2;
    for (Fragment& fragment : share.fragments) {
      if (fragment.at != mine.d) continue;
      fragments[t] = &fragment.values;
      --fragment.in_flight;
    }
    for (unsigned i = 0; i < n / 2; ++i) {
      d[(row + i / 2 % 2 * 8) * n + i / 4 * 8 + column + i % 2] = mine.accumulate ? (*fragments[t])[i] : 0.0f;
    }
    for (unsigned i = 0; i < 8 && first.a_from_registers; ++i) {
      const uint16_t bits = uint16_t(mine.a[i / 2] >> 16 * (i % 2));
      a[row + i / 2 % 2 * 8][i / 4 * 8 + column + i % 2] = to_float(first.bf16, bits);
    }
  }
  for (unsigned i = 0; i < kRows; ++i) {
    for (unsigned k = 0; k < kDepth; ++k) {
      for (unsigned j = 0; j < n; ++j) d[i * n + j] += a[i][k] * b[k * n + j];
    }
  }
  for (unsigned t = 0; t < kWarpgroup; ++t) {
    const unsigned row = t / 32 * 16 + t % 32 / 4, column = t % 4 * 2;
    for (unsigned i = 0; i < n / 2; ++i) {
      (*fragments[t])[i] = d[(row + i / 2 % 2 * 8) * n + i / 4 * 8 + column + i % 2];
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
