#include "common/emu/watch/fragments.h"

#include <new>

#include "common/emu/run/watched.h"
#include "common/emu/watch/memory.h"
#include "common/emu/watch/sites.h"

namespace flash::emu {

void StackLog::keep(unsigned thread, size_t stack_bytes) {
  if (threads_.size() <= thread) threads_.resize(thread + 1);
  if (threads_[thread]) return;
  threads_[thread].reset(
      static_cast<StackWord*>(std::calloc(stack_bytes / 4, sizeof(StackWord))));  // most is never used
  if (!threads_[thread]) throw std::bad_alloc();
}

namespace {

std::string fragment_name(uint32_t flying) {
  return flying & kFlyingA ? "a register of A" : "accumulator " + std::to_string(number_of_flying(flying));
}

}  // namespace

void MemoryWatcher::touch_stack(uintptr_t at, unsigned bytes, bool is_write, const void* pc) {
  StackWord* word = stack_words_ + (at - stack_begin_) / 4;
  for (unsigned i = 0; i < bytes; i += 4, ++word) {
    if (word->flying != 0) report_flying(*word, is_write, pc);
    word->time = clock_.now;
    word->pc = pc;
  }
}

// An access to what a product in flight reads or writes.
void MemoryWatcher::report_flying(const StackWord& word, bool is_write, const void* pc) {
  const bool is_a = word.flying & kFlyingA;
  if (is_a && !is_write) return;  // two may read
  const Pause pause(*this);
  if (FaultRecord* record = new_fault("wgmma", nullptr, site_number({nullptr, 0, pc}), site_of_flying(word.flying))) {
    record->fault.message = std::string("wgmma: @1 ") + (is_write ? "writes " : "reads ") + fragment_name(word.flying) +
                            " in " + thread_and_block() +
                            (is_a ? ", and the wgmma of @2 may still be reading it: no wgmma_wait covers it."
                                  : ", and the wgmma of @2 has yet to deliver it: no wgmma_wait covers it.");
  }
}

void MemoryWatcher::wgmma_fenced(const Block& block, unsigned warpgroup) {
  const Pause pause(*this);
  fenced_.resize((block.threads + kWarpgroup - 1) / kWarpgroup);
  fenced_[warpgroup] = ++clock_.now;
  for (unsigned t = 0; t < kWarpgroup; ++t) {
    const Thread& thread = block.thread[warpgroup * kWarpgroup + t];
    stacks_.keep(thread.linear, size_t(thread.stack_end - thread.stack_begin));
  }
  thread_ = nullptr;  // who goes on enters with its stack
}

// A thread hands its registers to a product. `d_flies`: those of D have been since a product before.
void MemoryWatcher::wgmma_takes(Thread& thread, const Wgmma& op, bool d_flies) {
  const Pause pause(*this);
  enter(thread);
  const uint32_t site = site_number(op.site), fenced = fenced_.empty() ? 0 : fenced_[thread.linear / kWarpgroup];
  if (fenced == 0) {
    if (FaultRecord* record = new_fault("wgmma", nullptr, site, 0)) {
      record->fault.message = "wgmma: no wgmma_fence() comes before the wgmma of @1, in " + thread_and_block() +
                              ". Its registers must be fenced from what other instructions did to them.";
    }
    return;
  }
  const auto take = [&](const void* begin, unsigned words, uint32_t flies) {
    const uintptr_t offset = reinterpret_cast<uintptr_t>(begin) - stack_begin_;
    if (offset >= noted_stack_bytes_) return;
    for (unsigned i = 0; i < words; ++i) {
      StackWord& word = stack_words_[offset / 4 + i];
      const uint32_t number = flies & kFlyingA ? number_of_flying(word.flying) + 1 : i;
      const uint32_t now_flying = kFlying | flies | (number & 0xff) << kFlyingShift | site;
      if (word.time >= fenced) {
        if (FaultRecord* record = new_fault("wgmma", nullptr, site, site_number({nullptr, 0, word.pc}))) {
          record->fault.message = "wgmma: the wgmma of @1 uses " + fragment_name(now_flying) + " in " +
                                  thread_and_block() +
                                  ", which @2 read or wrote after the last wgmma_fence(): one must " + "lie between.";
        }
      }
      word.flying = now_flying;
    }
  };
  if (!d_flies) take(op.d, unsigned(op.n) / 2, 0);
  if (op.a_from_registers) take(op.a_at, 4, kFlyingA);
}

// The product has read its A.
void MemoryWatcher::wgmma_has_read(const Thread& thread, const Wgmma& op) {
  StackWord* const words = stacks_.of(thread.linear);
  const uintptr_t offset = reinterpret_cast<uintptr_t>(op.a_at) - reinterpret_cast<uintptr_t>(thread.stack_begin);
  if (words == nullptr || op.a_at == nullptr || offset / 4 >= size_t(thread.stack_end - thread.stack_begin) / 4) return;
  for (unsigned i = 0; i < 4; ++i) {
    uint32_t& flying = words[offset / 4 + i].flying;
    flying = number_of_flying(flying) > 1 ? flying - (1u << kFlyingShift) : 0;
  }
}

// The accumulators are the thread's own again.
void MemoryWatcher::wgmma_delivered(const Thread& thread, const float* d, size_t count) {
  StackWord* const words = stacks_.of(thread.linear);
  const uintptr_t offset = reinterpret_cast<uintptr_t>(d) - reinterpret_cast<uintptr_t>(thread.stack_begin);
  if (words == nullptr || offset / 4 >= size_t(thread.stack_end - thread.stack_begin) / 4) return;
  for (size_t i = 0; i < count; ++i) words[offset / 4 + i].flying = 0;
  if (thread.linear % kWarpgroup == 0) units_[thread.linear / kWarpgroup].chains.erase(d);
}

namespace {
bool watched() { return active_watcher() != nullptr && the_watcher.running(); }
}  // namespace

void watch_wgmma_fenced(const Block& block, unsigned warpgroup) {
  if (watched()) the_watcher.wgmma_fenced(block, warpgroup);
}
void watch_wgmma_takes(Thread& thread, const Wgmma& op, bool d_flies) {
  if (watched()) the_watcher.wgmma_takes(thread, op, d_flies);
}
void watch_wgmma_has_read(const Thread& thread, const Wgmma& op) {
  if (watched()) the_watcher.wgmma_has_read(thread, op);
}
void watch_wgmma_delivered(const Thread& thread, const float* d, size_t count) {
  if (watched()) the_watcher.wgmma_delivered(thread, d, count);
}

}  // namespace flash::emu
