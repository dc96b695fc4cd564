// ptx/setmaxnreg.cuh on the CPU back end: registers are counted, no more.
#pragma once

#include "common/emu/instructions/cuda_emu.h"

namespace flash::emu {

void set_registers(bool takes, unsigned registers, const char* file, int line);

}  // namespace flash::emu

namespace {

template <int kRegisters>
EMU_INLINE void registers_down_to(EMU_CALL_SITE) {
  flash::emu::set_registers(false, kRegisters, file, line);
}
template <int kRegisters>
EMU_INLINE void registers_up_to(EMU_CALL_SITE) {
  flash::emu::set_registers(true, kRegisters, file, line);
}

}  // namespace
