// The closed forms of attention.cpp against counting, and the sentences of why_not().
#include "common/problem/problem.h"

#include "common/tests/catch.h"

using namespace flash;

static double counted_pairs(const Problem& p) {
  double pairs = 0;
  for (int i = 0; i < p.seqlen_q; ++i) {
    for (int j = 0; j < p.seqlen_k; ++j) pairs += !p.causal || j <= i + p.seqlen_k - p.seqlen_q;
  }
  return pairs;
}

TEST_CASE("flops counts the query-key pairs that the mask leaves") {
  for (bool causal : {false, true}) {
    for (int seqlen_q : {1, 2, 7, 64, 65}) {
      for (int seqlen_k : {1, 2, 7, 64, 65}) {
        Problem p;
        p.batch = 3, p.heads = 4, p.head_dim = 32, p.causal = causal;
        p.seqlen_q = seqlen_q, p.seqlen_k = seqlen_k;
        CAPTURE(causal, seqlen_q, seqlen_k);
        CHECK(flops(p, Direction::forward) == 4.0 * 3 * 4 * 32 * counted_pairs(p));
        CHECK(flops(p, Direction::backward) == 2.5 * flops(p, Direction::forward));
      }
    }
  }
}

TEST_CASE("least_traffic reads every input once and writes every output once") {
  Problem p;
  p.batch = 2, p.heads = 6, p.kv_heads = 3, p.seqlen_q = 5, p.seqlen_k = 7, p.head_dim = 64, p.dtype = Dtype::bf16;
  const double q = 2.0 * 6 * 5 * 64 * 2, kv = 2.0 * 3 * 7 * 64 * 2, lse = 2.0 * 6 * 5 * 4;
  CHECK(least_traffic(p, Direction::forward).read_bytes == q + 2 * kv);
  CHECK(least_traffic(p, Direction::forward).write_bytes == q + lse);
  CHECK(least_traffic(p, Direction::backward).read_bytes == 3 * q + 2 * kv + lse);
  CHECK(least_traffic(p, Direction::backward).write_bytes == q + 2 * kv);
}

TEST_CASE("why_not names what a step can't take") {
  StepInfo step;
  step.name = "05_tensor_core/1_mma";
  step.dtypes = {Dtype::bf16, Dtype::fp16};
  step.head_dims = {64, 128};
  step.min_compute_capability = 80;
  Device device;
  device.name = "a card";
  device.compute_capability = 80;
  Problem p;
  p.dtype = Dtype::bf16;
  CHECK(why_not(step, p, device) == "");

  p.head_dim = 48;
  CHECK(why_not(step, p, device) == "05_tensor_core/1_mma takes head_dim 64, 128, not 48");
  p.dtype = Dtype::fp32;
  CHECK(why_not(step, p, device) == "05_tensor_core/1_mma takes bf16 or fp16, not fp32");
  device.compute_capability = 75;
  CHECK(why_not(step, p, device) ==
        "05_tensor_core/1_mma needs a GPU of compute capability 8.0 or newer, and a card has 7.5");

  step.min_compute_capability = 75;
  step.supports = [](const Problem& q, const Device&) { return std::string(q.seqlen_k > 9 ? "too many keys" : ""); };
  p.dtype = Dtype::bf16, p.head_dim = 64, p.seqlen_k = 10;
  CHECK(why_not(step, p, device) == "too many keys");
}
