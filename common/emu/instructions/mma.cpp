#include "common/emu/instructions/mma.h"

#include <cstdint>

#include "common/emu/instructions/pack.h"
#include "common/emu/run/runtime.h"
#include "common/emu/watch/watch.h"

namespace flash::emu {

namespace {

struct Mma {
  bool bf16;
  Accumulators c;  // in, and the result
  MmaOperands operands;
  CallSite site;
};

// Lane 4 g + t holds, for h and w of 0 and 1 (see the drawing in ptx/mma.cuh):
//   A[g + 8 h][2 t + 8 w + e] in half e of a[h + 2 w],   B[2 t + 8 w + e][g] in half e of b[w],
//   C[g + 8 h][2 t + e] in c[2 h + e].
void combine_mma(Block&, Warp&, uint32_t, void* const operand[kLanes]) {
  float a[16][16], b[16][8], c[16][8];
  const bool bf16 = static_cast<const Mma*>(operand[0])->bf16;
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto& mma = *static_cast<const Mma*>(operand[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int e = 0; e < 2; ++e) {
      for (int h = 0; h < 2; ++h) {
        for (int w = 0; w < 2; ++w) a[g + 8 * h][2 * t + 8 * w + e] = unpack_one(bf16, mma.operands.a[h + 2 * w], e);
        c[g + 8 * h][2 * t + e] = mma.c.c[2 * h + e];
      }
      for (int w = 0; w < 2; ++w) b[2 * t + 8 * w + e][g] = unpack_one(bf16, mma.operands.b[w], e);
    }
  }
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < 16; ++k) {
      for (int j = 0; j < 8; ++j) c[i][j] += a[i][k] * b[k][j];
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    auto& mma = *static_cast<Mma*>(operand[lane]);
    for (int h = 0; h < 2; ++h) {
      for (int e = 0; e < 2; ++e) mma.c.c[2 * h + e] = c[lane / 4 + 8 * h][2 * (lane % 4) + e];
    }
  }
  watch_mma(*current_thread(), static_cast<const Mma*>(operand[0])->site);
}

}  // namespace

Accumulators mma_m16n8k16(bool bf16, Accumulators c, MmaOperands operands, const char* file, int line) {
  Mma mma{bf16, c, operands, {file, line, __builtin_return_address(0)}};
  collective("mma.sync", kAllLanes, mma.site, &mma, combine_mma);
  return mma.c;
}

}  // namespace flash::emu
