#include "common/emu/run/registers.h"

#include <algorithm>

#include "common/emu/run/warpgroups.h"

namespace flash::emu {

void Registers::begin_block(unsigned threads) {
  at_launch_ = std::min(kMost, kOfSm / threads / 8 * 8);
  pool_ = 0;
  has_.assign((threads + kWarpgroup - 1) / kWarpgroup, at_launch_);
}

void Registers::give(unsigned warpgroup, unsigned registers) {
  pool_ += kWarpgroup * (has_[warpgroup] - registers);
  has_[warpgroup] = registers;
}

bool Registers::take(unsigned warpgroup, unsigned registers) {
  const unsigned more = kWarpgroup * (registers - has_[warpgroup]);
  if (more > pool_) return false;
  pool_ -= more;
  has_[warpgroup] = registers;
  return true;
}

std::string Registers::who_has_what() const {
  std::string text;
  for (size_t w = 0; w < has_.size(); ++w) {
    text += (w == 0 ? "warpgroup " : ", warpgroup ") + std::to_string(w) + " has " + std::to_string(has_[w]);
  }
  return text + " a thread, and " + std::to_string(pool_) + " are in the pool";
}

}  // namespace flash::emu
