#include "common/emu/instructions/stmatrix.h"

#include <cstring>

#include "common/emu/run/runtime.h"
#include "common/emu/run/watched.h"

namespace flash::emu {
namespace {

struct Stmatrix {
  int matrices;
  bool transposed;
  unsigned char* row;
  uint32_t r[4];
  CallSite site;
};

void combine_stmatrix(Block&, Warp& warp, uint32_t, void* const operand[kLanes]) {
  const auto& first = *static_cast<const Stmatrix*>(operand[0]);
  unsigned short matrix[4][8][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto& mine = *static_cast<const Stmatrix*>(operand[lane]);
    for (int i = 0; i < first.matrices; ++i) {
      for (int e = 0; e < 2; ++e) {
        const int major = lane / 4, minor = lane % 4 * 2 + e;
        auto& element = first.transposed ? matrix[i][minor][major] : matrix[i][major][minor];
        element = static_cast<unsigned short>(mine.r[i] >> 16 * e);
      }
    }
  }
  for (int lane = 0; lane < 8 * first.matrices; ++lane) {
    const auto& mine = *static_cast<const Stmatrix*>(operand[lane]);
    watch_stmatrix(*(warp.first + lane), mine.row, first.matrices, mine.site);
    if (reinterpret_cast<uintptr_t>(mine.row) % 16 != 0) {
      fail("stmatrix at " + to_string(mine.site) + ": lane " + std::to_string(lane) +
           " names a row that is not 16-byte aligned");
    }
    std::memcpy(mine.row, matrix[lane / 8][lane % 8], 16);
  }
}

}  // namespace

void stmatrix(int matrices, bool transposed, void* row, uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3,
              const char* file, int line) {
  Stmatrix store{matrices, transposed, static_cast<unsigned char*>(row), {r0, r1, r2, r3}, {}};
  store.site = {file, line, __builtin_return_address(0)};
  collective("stmatrix", kAllLanes, store.site, &store, combine_stmatrix);
}

}  // namespace flash::emu
