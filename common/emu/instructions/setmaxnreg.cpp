#include "common/emu/instructions/setmaxnreg.h"

#include "common/emu/run/worker.h"

namespace flash::emu {

void set_registers(bool takes, unsigned registers, const char* file, int line) {
  const Warpgroups::Step step = takes ? Warpgroups::Step::registers_up : Warpgroups::Step::registers_down;
  current_worker()->warpgroup_step(step, registers, {file, line, __builtin_return_address(0)});
}

}  // namespace flash::emu
