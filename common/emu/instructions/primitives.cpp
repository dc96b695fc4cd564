#include "common/emu/instructions/primitives.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "common/emu/run/runtime.h"
#include "common/emu/run/worker.h"

// The place of the call, in a function declared with EMU_CALL_SITE.
#define HERE \
  flash::emu::CallSite { file, line, __builtin_return_address(0) }

namespace flash::emu {
namespace {

void count(Event event, CallSite site) {
  Watcher* const watcher = active_watcher();
  if (watcher != nullptr) watcher->event(*current_thread(), event, site, 1);
}

// What a lane brings to a shuffle and takes home.
struct ShuffleOperand {
  unsigned long long value, result;
  unsigned source;  // the lane it reads
  CallSite site;
};

void combine_shuffle(Block&, Warp& warp, uint32_t mask, void* const operand[kLanes]) {
  const ShuffleOperand* any = nullptr;
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    auto* const mine = static_cast<ShuffleOperand*>(operand[lane]);
    const auto* const from = static_cast<const ShuffleOperand*>(operand[mine->source]);
    if (from == nullptr) {
      const bool exists = warp.lanes >> mine->source & 1;
      fail("a shuffle at " + std::string(mine->site.file) + ":" + std::to_string(mine->site.line) + " in warp " +
           std::to_string(warp.index) + ": lane " + std::to_string(lane) + " reads lane " +
           std::to_string(mine->source) + ", which " + (exists ? "the mask doesn't name" : "the block doesn't have"));
    }
    mine->result = from->value;
    any = mine;
  }
  count(Event::shuffle, any->site);
}

// A vote or a reduction: every lane gets combine(values of the lanes in the mask).
struct VoteOperand {
  unsigned value, result;
  unsigned (*combine)(unsigned, unsigned);  // nullptr: the mask of the lanes with a value != 0
  CallSite site;
};

void combine_votes(Block&, Warp&, uint32_t mask, void* const operand[kLanes]) {
  unsigned result = 0;
  const VoteOperand* first = nullptr;
  for (int lane = 0; lane < kLanes; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    const auto* const vote = static_cast<const VoteOperand*>(operand[lane]);
    if (vote->combine == nullptr) {
      result |= unsigned(vote->value != 0) << lane;
    } else {
      result = first == nullptr ? vote->value : vote->combine(result, vote->value);
    }
    if (first == nullptr) first = vote;
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    if (mask >> lane & 1) static_cast<VoteOperand*>(operand[lane])->result = result;
  }
  count(Event::vote, first->site);
}

unsigned vote(const char* name, unsigned mask, unsigned value, unsigned (*combine)(unsigned, unsigned), CallSite site) {
  VoteOperand operand{value, 0, combine, site};
  collective(name, mask, site, &operand, combine_votes, false);
  return operand.result;
}

Worker& worker() { return *current_worker(); }

// Tells the watcher, then exchanges *address for update(*address) in one step that other workers can't split.
template <class T, class Update>
T atomic_update(T* address, CallSite site, Update update) {
  Watcher* const watcher = active_watcher();
  if (watcher != nullptr) {
    watcher->event(*current_thread(), Event::atomic, site, 1);
    watcher->touched(*current_thread(), address, sizeof(T), true, true, site);
  }
  T old;
  __atomic_load(address, &old, __ATOMIC_RELAXED);
  T wanted = update(old);
  while (!__atomic_compare_exchange(address, &old, &wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    wanted = update(old);
  }
  return old;
}

}  // namespace

void count_exp(const char* file, int line) { count(Event::exp, HERE); }

unsigned long long shuffle(Shuffle kind, unsigned mask, unsigned long long bits, unsigned lane, int width,
                           const char* file, int line) {
  static const char* const names[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};
  const char* const name = names[int(kind)];
  if (width < 1 || width > kLanes || (width & (width - 1)) != 0) {
    fail(std::string(name) + " at " + file + ":" + std::to_string(line) + " has width " + std::to_string(width) +
         "; it must be 1, 2, 4, 8, 16 or 32");
  }
  // As PTX's shfl: a lane past the end of its group of `width` lanes reads itself.
  const unsigned self = unsigned(current_thread()->lane), group = self & ~unsigned(width - 1);
  const unsigned last = group + unsigned(width) - 1, distance = lane & 31;
  unsigned source = self;
  switch (kind) {
    case Shuffle::idx: source = group + (lane & unsigned(width - 1)); break;
    case Shuffle::up: source = self >= group + distance ? self - distance : self; break;
    case Shuffle::down: source = self + distance <= last ? self + distance : self; break;
    case Shuffle::xor_: source = (self ^ distance) <= last ? self ^ distance : self; break;
  }
  ShuffleOperand operand{bits, 0, source, HERE};
  collective(name, mask, operand.site, &operand, combine_shuffle);
  return operand.result;
}

}  // namespace flash::emu

using namespace flash::emu;

void __syncthreads(const char* file, int line) { worker().block_barrier("__syncthreads", HERE, false); }
int __syncthreads_count(int predicate, const char* file, int line) {
  return int(worker().block_barrier("__syncthreads_count", HERE, predicate != 0).yes);
}
int __syncthreads_and(int predicate, const char* file, int line) {
  const auto votes = worker().block_barrier("__syncthreads_and", HERE, predicate != 0);
  return votes.yes == votes.all;
}
int __syncthreads_or(int predicate, const char* file, int line) {
  return worker().block_barrier("__syncthreads_or", HERE, predicate != 0).yes > 0;
}
void __syncwarp(unsigned mask, const char* file, int line) { worker().warp_barrier("__syncwarp", mask, HERE); }

void __threadfence() {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (Watcher* const watcher = active_watcher()) watcher->device_fence(*current_thread());
}

unsigned __activemask() {
  const Warp& warp = *current_thread()->warp;
  return warp.lanes & ~warp.exited;
}
unsigned __ballot_sync(unsigned mask, int predicate, const char* file, int line) {
  return vote("__ballot_sync", mask, predicate != 0, nullptr, HERE);
}
int __any_sync(unsigned mask, int predicate, const char* file, int line) {
  return int(vote(
      "__any_sync", mask, predicate != 0, [](unsigned a, unsigned b) { return a | b; }, HERE));
}
int __all_sync(unsigned mask, int predicate, const char* file, int line) {
  return int(vote(
      "__all_sync", mask, predicate != 0, [](unsigned a, unsigned b) { return a & b; }, HERE));
}

#define REDUCE(name, T, expression)                                \
  T name(unsigned mask, T value, const char* file, int line) {     \
    const auto combine = [](unsigned left, unsigned right) {       \
      const T a = static_cast<T>(left), b = static_cast<T>(right); \
      return static_cast<unsigned>(expression);                    \
    };                                                             \
    return T(vote(#name, mask, unsigned(value), combine, HERE));   \
  }
REDUCE(__reduce_add_sync, unsigned, a + b)
REDUCE(__reduce_min_sync, unsigned, a < b ? a : b)
REDUCE(__reduce_max_sync, unsigned, a > b ? a : b)
REDUCE(__reduce_add_sync, int, unsigned(a) + unsigned(b))
REDUCE(__reduce_min_sync, int, a < b ? a : b)
REDUCE(__reduce_max_sync, int, a > b ? a : b)
REDUCE(__reduce_and_sync, unsigned, a& b)
REDUCE(__reduce_or_sync, unsigned, a | b)
REDUCE(__reduce_xor_sync, unsigned, a ^ b)

#define ATOMIC(name, T, expression)                                                                              \
  T name(T* address, T value, const char* file, int line) {                                                      \
    return atomic_update(address, HERE, [value]([[maybe_unused]] T old) { return static_cast<T>(expression); }); \
  }
#define ATOMIC_CAS(T)                                                                         \
  T atomicCAS(T* address, T compare, T value, const char* file, int line) {                   \
    return atomic_update(address, HERE, [=](T old) { return old == compare ? value : old; }); \
  }
#define ATOMIC_INTEGER(T)                         \
  ATOMIC(atomicExch, T, value)                    \
  ATOMIC_CAS(T)                                   \
  ATOMIC(atomicMin, T, old < value ? old : value) \
  ATOMIC(atomicMax, T, old > value ? old : value) \
  ATOMIC(atomicAnd, T, old& value)                \
  ATOMIC(atomicOr, T, old | value)                \
  ATOMIC(atomicXor, T, old ^ value)
ATOMIC_INTEGER(int)
ATOMIC_INTEGER(unsigned)
ATOMIC_INTEGER(unsigned long long)
ATOMIC(atomicAdd, int, unsigned(old) + unsigned(value))  // wraps around
ATOMIC(atomicSub, int, unsigned(old) - unsigned(value))
ATOMIC(atomicAdd, unsigned, old + value)
ATOMIC(atomicSub, unsigned, old - value)
ATOMIC(atomicAdd, unsigned long long, old + value)
ATOMIC(atomicSub, unsigned long long, old - value)
ATOMIC(atomicAdd, float, old + value)
ATOMIC(atomicExch, float, value)
ATOMIC(atomicAdd, double, old + value)

void __trap() { fail("__trap() was called"); }
