#include "common/emu/instructions/ldmatrix.h"

#include <cstdint>
#include <cstring>

#include "common/emu/run/runtime.h"
#include "common/emu/watch/watch.h"

namespace flash::emu {

namespace {

struct Ldmatrix {
  int matrices;
  bool transposed;
  const unsigned char* row;
  Registers loaded;
  CallSite site;
};

void combine_ldmatrix(Block&, Warp& warp, uint32_t, void* const operand[kLanes]) {
  const auto& first = *static_cast<const Ldmatrix*>(operand[0]);
  unsigned short matrix[4][8][8];
  for (int lane = 0; lane < 8 * first.matrices; ++lane) {
    const auto& mine = *static_cast<const Ldmatrix*>(operand[lane]);
    watch_ldmatrix(warp.first[lane], mine.row, first.matrices, mine.site);
    if (reinterpret_cast<uintptr_t>(mine.row) % 16 != 0) {
      fail("ldmatrix at " + std::string(mine.site.file) + ":" + std::to_string(mine.site.line) + ": lane " +
           std::to_string(lane) + " names a row that is not 16-byte aligned");
    }
    std::memcpy(matrix[lane / 8][lane % 8], mine.row, 16);
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    auto& mine = *static_cast<Ldmatrix*>(operand[lane]);
    for (int i = 0; i < first.matrices; ++i) {
      const int major = lane / 4, minor = lane % 4 * 2;
      const unsigned low = first.transposed ? matrix[i][minor][major] : matrix[i][major][minor];
      const unsigned high = first.transposed ? matrix[i][minor + 1][major] : matrix[i][major][minor + 1];
      mine.loaded.r[i] = low | high << 16;
    }
  }
}

}  // namespace

Registers ldmatrix(int matrices, bool transposed, const void* row, const char* file, int line) {
  Ldmatrix load{matrices, transposed, static_cast<const unsigned char*>(row), {}, {}};
  load.site = {file, line, __builtin_return_address(0)};
  collective("ldmatrix", kAllLanes, load.site, &load, combine_ldmatrix);
  return load.loaded;
}

}  // namespace flash::emu
