#include "common/emu/run/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <string>

#include "common/base/error.h"

namespace flash::emu {

#if EMU_HAND_WRITTEN_SWITCH

// The six registers that a function must preserve go onto the stack, then the stack is exchanged. The floating-point
// control words aren't saved: kernels don't change them.
asm(R"(
.text
.p2align 4
.type flash_emu_exchange_stacks, @function
flash_emu_exchange_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size flash_emu_exchange_stacks, .-flash_emu_exchange_stacks
)");
extern "C" void flash_emu_exchange_stacks(void** save, void* load) __attribute__((visibility("hidden")));

void switch_context(Context& from, Context& to) { flash_emu_exchange_stacks(&from.stack_pointer, to.stack_pointer); }

void start_context(Context& context, unsigned char* /*begin*/, unsigned char* end, void (*entry)()) {
  auto* top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(end) & ~uintptr_t(15));
  *--top = nullptr;  // the return address of entry(): a debugger's backtrace ends here
  *--top =
      reinterpret_cast<void*>(entry);  // where exchange_stacks returns to; the stack is then 8 past 16, as in a call
  for (int saved_register = 0; saved_register < 6; ++saved_register) *--top = nullptr;
  context.stack_pointer = top;
}

#else

void switch_context(Context& from, Context& to) { swapcontext(&from.registers, &to.registers); }

void start_context(Context& context, unsigned char* begin, unsigned char* end, void (*entry)()) {
  getcontext(&context.registers);
  context.registers.uc_stack.ss_sp = begin;
  context.registers.uc_stack.ss_size = size_t(end - begin);
  context.registers.uc_link = nullptr;
  makecontext(&context.registers, entry, 0);
}

#endif

static size_t page_bytes() {
  static const size_t bytes = size_t(sysconf(_SC_PAGESIZE));
  return bytes;
}

GuardedMemory::GuardedMemory(size_t bytes) {
  const size_t page = page_bytes();
  const size_t size = bytes / page * page + (bytes % page ? page : 0);
  void* const memory = size > SIZE_MAX - 2 * page ? MAP_FAILED
                                                  : mmap(nullptr, size + 2 * page, PROT_NONE,
                                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(kDeviceError, "the CPU back end could not get " + std::to_string(bytes) + " bytes of memory");
  }
  begin_ = static_cast<unsigned char*>(memory) + page;
  end_ = begin_ + size;
  if (size > 0 && mprotect(begin_, size, PROT_READ | PROT_WRITE) != 0) {
    munmap(memory, size + 2 * page);
    throw Error(kDeviceError, "the CPU back end could not get " + std::to_string(bytes) + " bytes of memory");
  }
}

GuardedMemory::~GuardedMemory() {
  if (begin_ != nullptr) munmap(begin_ - page_bytes(), size_t(end_ - begin_) + 2 * page_bytes());
}

GuardedMemory::GuardedMemory(GuardedMemory&& other) noexcept : begin_(other.begin_), end_(other.end_) {
  other.begin_ = other.end_ = nullptr;
}

bool GuardedMemory::in_guard_behind(const void* address) const {
  const auto* p = static_cast<const unsigned char*>(address);
  return p >= end_ && p < end_ + page_bytes();
}

bool GuardedMemory::in_guard_before(const void* address) const {
  const auto* p = static_cast<const unsigned char*>(address);
  return p < begin_ && p >= begin_ - page_bytes();
}

}  // namespace flash::emu
