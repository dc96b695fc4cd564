#include "common/emu/run/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "common/base/error.h"

namespace flash::emu {

#if EMU_HAND_WRITTEN_SWITCH

// The registers that a function must preserve go onto the stack, then the stack is exchanged. The floating-point control
// words aren't saved: kernels don't change them.
#if defined(__x86_64__)
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
// The six registers, where to return to, and above it entry()'s own return address: null, so that a debugger's backtrace
// ends there. The stack is then 8 past 16, as in a call.
constexpr int kSlots = 8, kReturnSlot = 6;
#else  // aarch64
asm(R"(
.text
.p2align 4
.type flash_emu_exchange_stacks, %function
flash_emu_exchange_stacks:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x2, sp
  str x2, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size flash_emu_exchange_stacks, .-flash_emu_exchange_stacks
)");
// x30 says where to return to. x29, the frame pointer, is null: a debugger's backtrace ends there.
constexpr int kSlots = 20, kReturnSlot = 11;
#endif
extern "C" void flash_emu_exchange_stacks(void** save, void* load) __attribute__((visibility("hidden")));

void switch_context(Context& from, Context& to) { flash_emu_exchange_stacks(&from.stack_pointer, to.stack_pointer); }

void start_context(Context& context, unsigned char* /*begin*/, unsigned char* end, void (*entry)()) {
  auto* const top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(end) & ~uintptr_t(15));
  void** const saved = top - kSlots;
  std::fill(saved, top, nullptr);
  saved[kReturnSlot] = reinterpret_cast<void*>(entry);
  context.stack_pointer = saved;
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
