// One product of a warpgroup, wgmma.mma_async.m64nNk16: D [64, N] += A [64, 16] B [16, N].
#pragma once
#include <cstdint>
#include <vector>

#include "common/emu/run/runtime.h"

namespace flash::emu {

constexpr unsigned kWarpgroup = 128;

struct Accumulators;

// A thread's share of it.
struct Wgmma {
  int n = 0;
  bool bf16 = false, a_from_registers = false;
  bool trans_a = false, trans_b = false;  // stored with rows along k: "MN-major"
  bool accumulate = false;
  uint32_t a[4] = {};
  const uint32_t* a_at = nullptr;  // where the thread has them
  uint64_t a_descriptor = 0, b_descriptor = 0;
  float* d = nullptr;  // n / 2 of them
  Accumulators* accumulators = nullptr;
  CallSite site;
};

// D while products in flight add to it: the threads get it back when it is done.
struct Accumulators {
  explicit Accumulators(int n) : n(n), d(64 * size_t(n)), at(kWarpgroup) {}
  void take(unsigned thread, float* from);  // and leaves NaN there
  void give_back(unsigned thread) const;
  int n;
  std::vector<float> d;    // [64][n]
  std::vector<float*> at;  // [thread]; nullptr: it hasn't begun
  unsigned in_flight = 0;  // products, a thread at a time
};

// Where the element of row `mn` and column `k` of an operand lies, in bytes from the begin of the block's dynamic shared
// memory: what the 64 bits of a matrix descriptor say. 8 elements, along mn if transposed and else along k, are neighbours.
uint32_t operand_address(uint64_t descriptor, bool transposed, unsigned mn, unsigned k);

// Adds the product to its accumulators. `a_of_threads`: [thread] four registers, for A from registers.
void multiply(const Block&, const Wgmma&, const uint32_t* const a_of_threads[kWarpgroup]);

}  // namespace flash::emu
