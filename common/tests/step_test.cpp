// The sentences of plan_for(), the order of steps, and what tiles visit against the mask.
#include "common/kernel/step.h"

#include <algorithm>

#include "common/kernel/tiles_seen.h"
#include "common/problem/mask.h"
#include "common/tests/catch.h"

using namespace flash;

TEST_CASE("plan_for names what a step can't take") {
  StepInfo step;
  step.name = "05_tensor_core/1_mma";
  step.dtypes = {Dtype::bf16, Dtype::fp16};
  step.head_dims = {64, 128};
  step.architectures = at_least(80);
  Device device;
  device.name = "a card";
  device.compute_capability = 80;
  Problem p;
  p.dtype = Dtype::bf16;
  CHECK(plan_for(step, p, device).refusal == "");

  p.head_dim = 48;
  CHECK(plan_for(step, p, device).refusal == "05_tensor_core/1_mma takes head_dim 64, 128, not 48");
  p.dtype = Dtype::fp32;
  CHECK(plan_for(step, p, device).refusal == "05_tensor_core/1_mma takes bf16 or fp16, not fp32");
  device.compute_capability = 75;
  CHECK(plan_for(step, p, device).refusal ==
        "05_tensor_core/1_mma needs a GPU of compute capability 8.0 or newer, and a card has 7.5");

  step.architectures = exactly(90);
  CHECK(plan_for(step, p, device).refusal ==
        "05_tensor_core/1_mma needs a GPU of compute capability 9.0, and a card has 7.5");
  device.compute_capability = 120;
  CHECK(plan_for(step, p, device).refusal ==
        "05_tensor_core/1_mma uses instructions that compute capability 9.0 alone has, and a card has 12.0");

  step.architectures = at_least(75);
  step.plan = [](const Problem& q, const Device&) {
    Plan plan;
    if (q.seqlen_k > 9) plan.refusal = "too many keys";
    plan.workspace_bytes = 7;
    return plan;
  };
  p.dtype = Dtype::bf16, p.head_dim = 64, p.seqlen_k = 10;
  CHECK(plan_for(step, p, device).refusal == "too many keys");
}

TEST_CASE("tiles visit what one of their rows or columns sees") {
  constexpr int kBlockM = 4, kBlockN = 3;
  Problem p;
  for (bool causal : {false, true}) {
    for (int seqlen_q : {1, 3, 8, 11}) {
      for (int seqlen_k : {1, 4, 8, 13}) {
        p.causal = causal, p.seqlen_q = seqlen_q, p.seqlen_k = seqlen_k;
        CAPTURE(causal, seqlen_q, seqlen_k);
        double sum = 0;
        for (int query = 0; query < seqlen_q; query += kBlockM) {
          int keys = 0;
          for (int key = 0; key < seqlen_k; key += kBlockN) {
            if (tile_sees(p, query, kBlockM, key, kBlockN) != Seen::none) keys += std::min(kBlockN, seqlen_k - key);
          }
          CHECK(keys_visited(p, query, kBlockM, kBlockN) == keys);
          sum += keys;
        }
        CHECK(keys_visited_by_all(p, kBlockM, kBlockN) == sum);
        for (int key = 0; key < seqlen_k; key += kBlockN) {
          int queries = 0;
          for (int query = 0; query < seqlen_q; query += kBlockM) {
            if (tile_sees(p, query, kBlockM, key, kBlockN) != Seen::none)
              queries += std::min(kBlockM, seqlen_q - query);
          }
          CHECK(queries_visited(p, key, kBlockM) == queries);
        }
      }
    }
  }
}

TEST_CASE("a block that wants more shared memory than there is gets one sentence") {
  Device device;
  device.shared_bytes_per_block = 64 * 1024;
  CHECK(shared_memory_refusal("04", "a tile", "head_dim 128", 64 * 1024, device) == "");
  CHECK(shared_memory_refusal("04", "a tile", "head_dim 128", 64 * 1024 + 1, device) ==
        "04 keeps a tile in shared memory: head_dim 128 needs 65 KB, this device has 64 KB");
  Plan plan;
  plan.block_m = 64, plan.block_n = 32, plan.shared_bytes = 99 * 1024;
  CHECK(tiles_refusal("04", plan, Problem(), device) ==
        "04 keeps tiles of 64 queries and 32 keys in shared memory: head_dim 64 needs 99 KB, this device has 64 KB");
}
