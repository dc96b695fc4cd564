// The calls that g++ -fsanitize=thread and -fsanitize=bounds put into a watched kernel, answered. The sanitizers' own
// libraries are not linked. Host code of a kernel file is compiled with the same flags and arrives here as well.
#include <cstdint>
#include <cstring>
#include <string>

#include "common/emu/watch/memory.h"

using flash::emu::the_watcher;

#define CALLER __builtin_extract_return_addr(__builtin_return_address(0))

extern "C" {

void __tsan_init() { flash::emu::built_watched = true; }  // from a constructor of each watched object file

#define PLAIN_ACCESS(bytes)                                                                         \
  void __tsan_read##bytes(void* p) { the_watcher.access<bytes, false>(p, CALLER); }                 \
  void __tsan_write##bytes(void* p) { the_watcher.access<bytes, true>(p, CALLER); }                 \
  void __tsan_unaligned_read##bytes(void* p) { the_watcher.access_range(p, bytes, false, CALLER); } \
  void __tsan_unaligned_write##bytes(void* p) { the_watcher.access_range(p, bytes, true, CALLER); }
PLAIN_ACCESS(1)
PLAIN_ACCESS(2)
PLAIN_ACCESS(4)
PLAIN_ACCESS(8)
PLAIN_ACCESS(16)
#undef PLAIN_ACCESS

void __tsan_read_range(void* p, size_t bytes) { the_watcher.access_range(p, bytes, false, CALLER); }
void __tsan_write_range(void* p, size_t bytes) { the_watcher.access_range(p, bytes, true, CALLER); }
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

// Atomics of the language (a static's guard, std::atomic in host code) are replaced by calls, which must do the work.
// CUDA's atomicAdd and its like don't come this way: they are functions of the back end.
#define ATOMICS(bits, type)                                                                                     \
  type __tsan_atomic##bits##_load(const volatile type* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); } \
  void __tsan_atomic##bits##_store(volatile type* p, type v, int) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); } \
  type __tsan_atomic##bits##_exchange(volatile type* p, type v, int) {                                          \
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                                         \
  }                                                                                                             \
  type __tsan_atomic##bits##_fetch_add(volatile type* p, type v, int) {                                         \
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);                                                          \
  }                                                                                                             \
  type __tsan_atomic##bits##_fetch_sub(volatile type* p, type v, int) {                                         \
    return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST);                                                          \
  }                                                                                                             \
  type __tsan_atomic##bits##_fetch_and(volatile type* p, type v, int) {                                         \
    return __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST);                                                          \
  }                                                                                                             \
  type __tsan_atomic##bits##_fetch_or(volatile type* p, type v, int) {                                          \
    return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST);                                                           \
  }                                                                                                             \
  type __tsan_atomic##bits##_fetch_xor(volatile type* p, type v, int) {                                         \
    return __atomic_fetch_xor(p, v, __ATOMIC_SEQ_CST);                                                          \
  }                                                                                                             \
  type __tsan_atomic##bits##_fetch_nand(volatile type* p, type v, int) {                                        \
    return __atomic_fetch_nand(p, v, __ATOMIC_SEQ_CST);                                                         \
  }                                                                                                             \
  bool __tsan_atomic##bits##_compare_exchange_strong(volatile type* p, type* expected, type v, int, int) {      \
    return __atomic_compare_exchange_n(p, expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);              \
  }                                                                                                             \
  bool __tsan_atomic##bits##_compare_exchange_weak(volatile type* p, type* expected, type v, int, int) {        \
    return __atomic_compare_exchange_n(p, expected, v, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);               \
  }                                                                                                             \
  type __tsan_atomic##bits##_compare_exchange_val(volatile type* p, type expected, type v, int, int) {          \
    __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                    \
    return expected;                                                                                            \
  }
ATOMICS(8, uint8_t)
ATOMICS(16, uint16_t)
ATOMICS(32, uint32_t)
ATOMICS(64, uint64_t)
#undef ATOMICS
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_atomic_signal_fence(int) {}

// -fsanitize=bounds: an index past the end of an array of known size, before it is used.
struct SourceLocation {
  const char* file;
  uint32_t line, column;
};
struct TypeDescriptor {
  uint16_t kind, info;
  char name[1];  // "'float [64]'", as long as it needs
};
struct OutOfBoundsData {
  SourceLocation location;
  const TypeDescriptor* array;
  const TypeDescriptor* index;
};
void __ubsan_handle_out_of_bounds(const OutOfBoundsData* data, uintptr_t index) {
  the_watcher.index_out_of_bounds(data->location.file, int(data->location.line), data->array->name, index, CALLER);
}

}  // extern "C"
