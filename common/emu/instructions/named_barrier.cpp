#include "common/emu/instructions/named_barrier.h"

#include "common/emu/run/worker.h"

namespace flash::emu {

void named_barrier(int id, int threads, bool waits, const char* file, int line) {
  current_worker()->named_barrier(id, threads, waits, {file, line, __builtin_return_address(0)});
}

}  // namespace flash::emu
