// Fibers: a CUDA thread of the CPU back end is a stack and the registers to go on with. Switching is
// hand-written for x86-64 (10-20 ns) and aarch64; elsewhere it is ucontext's (some 200 ns).
#pragma once
#include <cstddef>

#if (defined(__x86_64__) || defined(__aarch64__)) && !defined(EMU_UCONTEXT)  // -DEMU_UCONTEXT: try the other way there
#define EMU_HAND_WRITTEN_SWITCH 1
#else
#define EMU_HAND_WRITTEN_SWITCH 0
#include <ucontext.h>
#endif

namespace flash::emu {

struct Context {
#if EMU_HAND_WRITTEN_SWITCH
  void* stack_pointer = nullptr;  // of a suspended fiber; its registers lie on its stack
#else
  ucontext_t registers;
#endif
};

// Suspends the caller in `from` and goes on in `to`. Both belong to the same OS thread.
void switch_context(Context& from, Context& to);

// Makes `context` one that starts entry() on the stack [begin, end) when it is switched to. entry() never returns.
void start_context(Context& context, unsigned char* begin, unsigned char* end, void (*entry)());

// Memory of its own pages, with an inaccessible page before and after: an overrun of either end is a SIGSEGV.
class GuardedMemory {
 public:
  explicit GuardedMemory(size_t bytes);  // rounded up to whole pages; throws flash::Error(kDeviceError)
  ~GuardedMemory();
  GuardedMemory(GuardedMemory&& other) noexcept;
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;
  unsigned char* begin() const { return begin_; }
  unsigned char* end() const { return end_; }
  // Is the address in the inaccessible page behind (before) the memory?
  bool in_guard_behind(const void* address) const;
  bool in_guard_before(const void* address) const;

 private:
  unsigned char* begin_ = nullptr;
  unsigned char* end_ = nullptr;
};

}  // namespace flash::emu
