// 07_hopper: right everywhere, and each landing does what its chapter counts.
#include "common/check/check.h"
#include "common/problem/dtype.h"
#include "common/tests/catch.h"
#include "common/tests/step_tests.h"

using namespace flash;
using tests::make_problem;

namespace {

// On a GPU without these instructions there is nothing to run.
bool other_gpu() {
  if (tests::device().compute_capability == 90) return false;
  WARN("SKIP: " << plan_for(tests::step(), make_problem(64, 64, 64), tests::device()).refusal);
  return true;
}

Problem causal(int seqlen_q, int seqlen_k, int head_dim, Dtype dtype = Dtype::bf16) {
  Problem p = make_problem(seqlen_q, seqlen_k, head_dim, dtype);
  p.causal = true;
  return p;
}

// The step on a device of two SMs, where blocks that draw their tiles get several each.
StepInfo on_two_sms() {
  StepInfo step = tests::step();
  step.plan = [](const Problem& p, const Device& device) {
    Device small = device;
    small.sm_count = 2;
    return tests::step().plan(p, small);
  };
  return step;
}

}  // namespace

TEST_CASE("07 gives the reference's O and LSE on awkward problems") { tests::require_pass_awkward(); }

TEST_CASE("07 is right where a block computes many query tiles") {
  if (other_gpu()) return;
  const StepInfo step = on_two_sms();
  for (int head_dim : {64, 128, 256}) {
    for (Dtype dtype : {Dtype::bf16, Dtype::fp16}) {
      for (bool is_causal : {false, true}) {
        Problem p = make_problem(tests::watched() ? 200 : 500, tests::watched() ? 130 : 700, head_dim, dtype);
        p.causal = is_causal;
        p.heads = tests::watched() ? 3 : 6;
        p.kv_heads = 3;
        tests::require_pass(p, Dist::normal, 3, step);
      }
    }
  }
}

TEST_CASE("07 does not depend on the order of threads, warps and blocks, nor on when copies land") {
  Problem p = causal(300, 330, 64);
  p.heads = 2;
  tests::require_pass_shuffled(p, 5, on_two_sms());
}
