// setmaxnreg: how many registers a thread of each warpgroup has, and how many nobody has. What a GPU deals a thread at the
// launch is ptxas's decision, which isn't known here; taken is what __launch_bounds__(threads of the block, 1) lets it deal.
#pragma once
#include <string>
#include <vector>

namespace flash::emu {

class Registers {
 public:
  static constexpr unsigned kOfSm = 65536, kMost = 256;
  void begin_block(unsigned threads);
  unsigned of(unsigned warpgroup) const { return has_[warpgroup]; }
  unsigned at_launch() const { return at_launch_; }
  void give(unsigned warpgroup, unsigned registers);
  bool take(unsigned warpgroup, unsigned registers);  // false: the pool has too few
  // "warpgroup 0 has 168 a thread, warpgroup 1 24; 1024 are in the pool".
  std::string who_has_what() const;

 private:
  unsigned at_launch_ = 0, pool_ = 0;
  std::vector<unsigned> has_;  // [warpgroup] a thread
};

}  // namespace flash::emu
