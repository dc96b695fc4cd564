#include "common/emu/instructions/wgmma.h"

#include <algorithm>

#include "common/emu/run/shared_place.h"
#include "common/emu/run/worker.h"

#define HERE \
  CallSite { file, line, __builtin_return_address(0) }

namespace flash::emu {

void wgmma(int n, bool bf16, bool trans_a, bool trans_b, float* d, const uint32_t* a, uint64_t a_descriptor,
           uint64_t b_descriptor, bool accumulate, const char* file, int line) {
  flash::emu::Wgmma op;
  op.n = n, op.bf16 = bf16, op.trans_a = trans_a, op.trans_b = trans_b, op.accumulate = accumulate;
  op.a_from_registers = a != nullptr;
  op.a_at = a;
  if (a != nullptr) std::copy(a, a + 4, op.a);
  op.a_descriptor = a_descriptor, op.b_descriptor = b_descriptor;
  op.d = d;
  op.site = HERE;
  current_worker()->engine().warpgroups.issue(*current_thread(), op);
}

void wgmma_fence(const char* file, int line) { current_worker()->warpgroup_step(Warpgroups::Step::fence, 0, HERE); }
void wgmma_commit(const char* file, int line) { current_worker()->warpgroup_step(Warpgroups::Step::commit, 0, HERE); }
void wgmma_wait(int groups_open, const char* file, int line) {
  current_worker()->warpgroup_step(Warpgroups::Step::wait, unsigned(groups_open), HERE);
}

uint32_t shared_address(const void* p) {
  const Block& block = *current_thread()->block;
  const auto* const at = static_cast<const unsigned char*>(p);
  if (at < block.dynamic_begin || at > block.dynamic_end) {
    fail("a matrix descriptor of a tile outside of dynamic shared memory (dynamic_shared())");
  }
  return uint32_t(at - block.dynamic_begin);
}

}  // namespace flash::emu
