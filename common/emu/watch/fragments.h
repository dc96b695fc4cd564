// wgmma's operands in registers: the accumulators and A. Here they are arrays on their threads' stacks; from a warpgroup's
// first wgmma_fence() on, every access to its threads' stacks is noted, a word at a time.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

namespace flash::emu {

struct StackWord {
  const void* pc;   // of the last access
  uint32_t time;    // and when: 0 never
  uint32_t flying;  // what a product in flight has of it; 0: nothing
};

// StackWord::flying: the site of the product, and of an accumulator its number, of A's word how many products read it.
constexpr uint32_t kFlying = 1u << 31, kFlyingA = 1u << 30;
constexpr unsigned kFlyingShift = 17;
inline uint32_t site_of_flying(uint32_t flying) { return flying & 0x1ffff; }
inline unsigned number_of_flying(uint32_t flying) { return flying >> kFlyingShift & 0xff; }

class StackLog {
 public:
  void clear() { threads_.clear(); }
  StackWord* of(unsigned thread) const { return thread < threads_.size() ? threads_[thread].get() : nullptr; }
  void keep(unsigned thread, size_t stack_bytes);

 private:
  struct Free {
    void operator()(StackWord* words) const { std::free(words); }
  };
  std::vector<std::unique_ptr<StackWord[], Free>> threads_;
};

}  // namespace flash::emu
