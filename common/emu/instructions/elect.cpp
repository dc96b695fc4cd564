#include "common/emu/instructions/elect.h"

#include "common/emu/run/runtime.h"

namespace flash::emu {

bool elect_one(const char* file, int line) {
  bool elected = false;
  const auto combine = [](Block&, Warp&, uint32_t mask, void* const operand[kLanes]) {
    *static_cast<bool*>(operand[__builtin_ctz(mask)]) = true;
  };
  collective("elect.sync", kAllLanes, {file, line, __builtin_return_address(0)}, &elected, combine, false);
  return elected;
}

}  // namespace flash::emu
