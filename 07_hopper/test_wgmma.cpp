// 07.2 and later: right everywhere, and each landing does what its chapter counts. (07.1: test.cpp.)
#include "common/check/check.h"
#include "common/problem/dtype.h"
#include "common/problem/mask.h"
#include "common/tests/catch.h"
#include "common/tests/step_tests.h"

using namespace flash;
using tests::make_problem;

namespace {

int landing() { return std::stoi(tests::step().number.substr(3)); }
// On another GPU than Hopper there is nothing to run.
bool other_device() {
  if (tests::device().compute_capability == 90) return false;
  WARN("SKIP: " << plan_for(tests::step(), make_problem(64, 64, 64), tests::device()).refusal);
  return true;
}
bool runs() { return landing() >= 2 && !other_device(); }
bool counts() { return landing() >= 2 && tests::watched(); }
bool has_producer() { return landing() >= 3; }
bool draws_tiles() { return landing() >= 4; }

uint64_t ceil_div(int a, int b) { return uint64_t(a + b - 1) / b; }

Problem with_mask(Problem p, bool is_causal) {
  p.causal = is_causal;
  return p;
}
Problem with_heads(Problem p, int heads, int kv_heads) {
  p.heads = heads;
  p.kv_heads = kv_heads;
  return p;
}

// The step on a device of two SMs: blocks that draw their tiles compute several each.
StepInfo on_two_sms() {
  StepInfo step = tests::step();
  step.plan = [](const Problem& p, const Device& device) {
    Device small = device;
    small.sm_count = 2;
    return tests::step().plan(p, small);
  };
  return step;
}

// Ragged ends, lengths that differ, groups of heads; every head_dim.
std::vector<Problem> counted_problems() {
  return {make_problem(128, 256, 64, Dtype::bf16), with_heads(make_problem(70, 300, 64, Dtype::fp16), 4, 2),
          make_problem(130, 150, 128, Dtype::fp16), with_heads(make_problem(129, 33, 128), 2, 1),
          make_problem(65, 130, 256)};
}

// How often the tiles of a problem that is not causal meet.
struct Meetings {
  Plan plan;
  uint64_t query_tiles, pairs, consumers, slabs;  // of all heads; of a query tile and a key tile
};
Meetings meetings_of(const Problem& p) {
  const Plan plan = plan_for(tests::step(), p, tests::device());
  const uint64_t query_tiles = ceil_div(p.seqlen_q, plan.block_m) * p.heads * p.batch;
  return {plan, query_tiles, query_tiles * ceil_div(p.seqlen_k, plan.block_n), uint64_t(plan.block_m) / 64,
          uint64_t(p.head_dim) / 64};
}

Inputs inputs_with_scores(const Problem& p, float (*score)(int)) {
  Inputs inputs = make_inputs(p, Direction::forward, Dist::normal, 7);
  for (int i = 0; i < p.seqlen_q; ++i) {
    for (int x = 0; x < p.head_dim; ++x) inputs.q[i * p.head_dim + x] = x == 0 ? 1.0f : 0.0f;
  }
  for (int j = 0; j < p.seqlen_k; ++j) inputs.k[j * p.head_dim] = round_to(p.dtype, score(j) / p.softmax_scale);
  return inputs;
}
void require_scores_pass(const Problem& p, float (*score)(int)) {
  const Inputs inputs = inputs_with_scores(p, score);
  const CheckResult result = check_forward(p, inputs, run_once(tests::step(), p, inputs));
  INFO(result.message);
  REQUIRE(result.verdict == Verdict::pass);
}

}  // namespace

TEST_CASE("07.2 and later give the reference's O and LSE on awkward problems") {
  if (landing() >= 2) tests::require_pass_awkward();
}

TEST_CASE("07.2 and later are right whatever the inputs are drawn from") {
  if (!runs()) return;
  for (Dtype dtype : {Dtype::bf16, Dtype::fp16}) {
    for (Dist dist : {Dist::normal, Dist::uniform, Dist::outliers, Dist::large, Dist::negative}) {
      for (bool is_causal : {false, true})
        tests::require_pass(with_mask(make_problem(40, 140, 64, dtype), is_causal), dist);
    }
  }
}

TEST_CASE("07.2 and later are right around the edges of their tiles") {
  if (!runs()) return;
  for (int head_dim : {64, 128, 256}) {
    for (int seqlen_q : {1, 64, 65, 129, 193}) {
      for (int seqlen_k : {1, 63, 65, 128, 129, 257}) {
        if (tests::watched() && (seqlen_q != 129 || (seqlen_k != 65 && seqlen_k != 129))) continue;
        tests::require_pass(make_problem(seqlen_q, seqlen_k, head_dim, Dtype::bf16));
        tests::require_pass(with_mask(make_problem(seqlen_q, seqlen_k, head_dim, Dtype::fp16), true));
      }
    }
  }
}

TEST_CASE("07.2 and later: a ragged tile never brings rows of the head behind it, nor writes there") {
  if (!runs()) return;
  for (int head_dim : {64, 128}) {
    Problem p = with_heads(make_problem(130, 75, head_dim), 4, 2);
    p.batch = 2;
    for (bool is_causal : {false, true}) tests::require_pass(with_mask(p, is_causal), Dist::large);
  }
}

TEST_CASE("07.2 and later do not depend on the order of threads, warps and blocks, nor on when tiles land") {
  if (landing() < 2) return;
  for (int head_dim : {64, 128, 256}) {
    const int seqlen = head_dim == 256 ? 140 : 260;
    tests::require_pass_shuffled(with_heads(with_mask(make_problem(seqlen, seqlen, head_dim), true), 2, 1), 3,
                                 on_two_sms());
  }
}

TEST_CASE("07.2 and later are right whether the maximum grows at every key tile, never, or a little") {
  if (!runs()) return;
  for (Dtype dtype : {Dtype::bf16, Dtype::fp16}) {
    // Keys are walked from the last to the first. 5.55 is ln 2^8, 9.01 is ln 2^13.
    const Problem p = make_problem(20, 300, 64, dtype);
    require_scores_pass(p, [](int j) { return 3.0f * j; });
    require_scores_pass(p, [](int j) { return -3.0f * j; });
    require_scores_pass(p, [](int j) { return -0.03f * j; });
    require_scores_pass(p, [](int j) { return j == 5 ? 5.5f : 0.f; });
    require_scores_pass(p, [](int j) { return j == 5 ? 5.6f : 0.f; });
    require_scores_pass(p, [](int j) { return j == 5 ? 8.9f : 0.f; });
    require_scores_pass(p, [](int j) { return j == 5 ? 9.1f : 0.f; });
    require_scores_pass(p, [](int j) { return j < 60 ? 8.5f : 0.f; });  // each weight fits, their sum is large
    require_scores_pass(p, [](int j) { return j == 5 ? 12.f : 0.f; });  // fp16 would overflow
    require_scores_pass(p, [](int j) { return j % 37 == 0 ? 80.f : -40.f; });
    require_scores_pass(p, [](int j) { return j == 5 ? 4000.f : -4000.f; });
  }
}

TEST_CASE("07.4 and later are right where a block computes many query tiles, and twice the same") {
  if (!runs() || !draws_tiles()) return;
  const StepInfo step = on_two_sms();
  for (int head_dim : {64, 128, 256}) {
    for (bool is_causal : {false, true}) {
      Problem p = make_problem(tests::watched() ? 140 : 260, tests::watched() ? 200 : 300, head_dim,
                               is_causal ? Dtype::fp16 : Dtype::bf16);
      p = with_heads(with_mask(p, is_causal), tests::watched() ? 3 : 6, 3);
      INFO(tests::describe(p, Dist::normal));
      const Inputs inputs = make_inputs(p, Direction::forward, Dist::normal, 3);
      Execution execution(step, p, inputs);
      execution.run();
      const Outputs first = execution.outputs();
      const CheckResult result = check_forward(p, inputs, first);
      INFO(result.message);
      REQUIRE(result.verdict == Verdict::pass);
      execution.run();  // with the counter as the first run left it
      const Outputs second = execution.outputs();
      CHECK(first.o == second.o);
      CHECK(first.softmax_lse == second.softmax_lse);
    }
  }
}

TEST_CASE("07.2 and later ask for the bytes their formula says: of a box, those inside of the tensor") {
  if (!runs()) return;
  for (const Problem& p : counted_problems()) tests::require_traffic(p);
  tests::require_traffic(with_mask(make_problem(200, 200, 64), true));
  tests::require_traffic(
      with_mask(make_problem(150, 40, 128), true));  // query tiles that see no key: one key tile each
  tests::require_traffic(with_mask(make_problem(40, 250, 64), true));
}

TEST_CASE("07.2 and later: no thread copies or reads a tile, and no mma.sync is left") {
  if (!counts()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const Meetings m = meetings_of(p);
    const Counts c = tests::counts_of(p);
    CHECK(c.tma_loads == m.query_tiles + 2 * m.pairs);
    CHECK(c.global_read.requests == 0);
    CHECK(c.global_read.bytes ==
          c.tma_global_bytes - (draws_tiles() ? p.batch * p.heads * p.seqlen_q * p.head_dim * 2 : 0));
    CHECK(c.async_copies + c.mmas == 0);
    // Q to registers, once a query tile: 16 x 16 elements each.
    const bool keeps_q = landing() >= 7 && p.head_dim == 128;
    CHECK(c.ldmatrixes == (keeps_q ? m.query_tiles * m.consumers * 4 * p.head_dim / 16 : 0));
    // S and P never: O alone, on its way out.
    CHECK(c.stmatrixes == (draws_tiles() ? m.query_tiles * m.consumers * 4 * m.slabs * 4 : 0));
    CHECK(c.tma_stores == (draws_tiles() ? m.query_tiles * m.consumers * 4 * m.slabs : 0));
    CHECK(c.shared_read.conflicts + c.shared_write.conflicts == 0);
  }
}

TEST_CASE("07.3 and later: mbarriers in the place of __syncthreads") {
  if (!counts()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const Meetings m = meetings_of(p);
    const Counts c = tests::counts_of(p);
    if (!has_producer()) {
      CHECK(c.barriers == m.consumers * 4 * (m.query_tiles + m.pairs));  // once, and for each key tile
      CHECK(c.mbarrier_arrivals == m.query_tiles + 2 * m.pairs);         // K, V and Q have been asked for
      continue;
    }
    // A load each; and each consumer releases each K and V.
    const uint64_t tiles = m.query_tiles + 2 * m.pairs + m.consumers * 2 * m.pairs;
    if (!draws_tiles()) {
      CHECK(c.barriers == (m.consumers + 1) * 4 * m.query_tiles);
      CHECK(c.mbarrier_arrivals == tiles);
      continue;
    }
    // Each thread releases each Q; and every block gets the message that there is no more.
    const uint64_t blocks = uint64_t(m.plan.blocks);
    CHECK(c.mbarrier_arrivals == tiles + m.consumers * 128 * m.query_tiles + blocks);
    // Once a block; and before and after O is stored.
    CHECK(c.barriers == (m.consumers + 1) * 4 * blocks + m.consumers * 4 * m.query_tiles * 2 * m.slabs);
  }
}

TEST_CASE("07.4 and later: a block an SM at most, and a draw a query tile") {
  if (!counts() || !draws_tiles()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const Meetings m = meetings_of(p);
    CHECK(tests::counts_of(p).atomics == m.query_tiles + 1);  // and one that clears the counter
    const WatchReport report = tests::report_of(p, on_two_sms());
    CHECK(report.kernels.at(0).blocks == std::min<uint64_t>(2, m.query_tiles));
    CHECK(report.total().atomics == m.query_tiles + 1);
  }
}

TEST_CASE("07.5 and later: consumers take turns, once for each key tile that goes with another") {
  if (!counts()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const Meetings m = meetings_of(p);
    const uint64_t blocks = uint64_t(m.plan.blocks);
    uint64_t turns = m.pairs - m.query_tiles;  // but the first of a query tile
    if (landing() >= 8 && p.head_dim < 256) turns += m.query_tiles - blocks;
    // Each to take a turn and to pass it; and the last consumer passes the first.
    const uint64_t expected = m.consumers * 4 * 2 * turns + 4 * blocks;
    CHECK(tests::counts_of(p).named_barriers == (landing() >= 5 ? expected : 0));
  }
}

TEST_CASE("07.8: a block that computes many query tiles takes turns between them as well") {
  if (!counts() || landing() < 8) return;
  const auto named_barriers = [](const Problem& p) { return tests::report_of(p, on_two_sms()).total().named_barriers; };
  for (int head_dim : {64, 128}) {
    const Problem p = with_heads(make_problem(64, 140, head_dim), 6, 6);  // two key tiles, three query tiles a block
    const Meetings m = meetings_of(p);
    CHECK(named_barriers(p) == m.consumers * 4 * 2 * (6 * 1 + 6 - 2) + 4 * 2);
  }
}

TEST_CASE("07.6 computes the weights of a tile again where its maximum has grown by much, and there alone") {
  if (!counts()) return;
  const Problem p = make_problem(64, 384, 64);  // three key tiles
  const auto exps = [&](float (*score)(int)) {
    const Inputs inputs = inputs_with_scores(p, score);
    reset_watch_report();
    run_once(tests::step(), p, inputs);
    return take_watch_report().total().exps;
  };
  const uint64_t rows = uint64_t(meetings_of(p).plan.block_m), rescaling = rows / 64 * 128 * 2;
  const uint64_t ordinary = 3 * rows * 128 + rescaling;
  CHECK(exps([](int) { return 1.f; }) == ordinary);
  CHECK(exps([](int j) { return j < 128 ? 5.f : 0.f; }) == ordinary);  // 2^7.2
  // Rows of Q past the end are zeros, and all their scores too: one consumer's maxima alone grow.
  const uint64_t again = landing() >= 6 ? 64 * 128 : 0, once_more = again + 128 * 2;
  CHECK(exps([](int j) { return j < 128 ? 20.f : 0.f; }) == ordinary + once_more);
  CHECK(exps([](int j) { return -0.5f * j; }) == ordinary + 2 * once_more);
}

TEST_CASE("07.2 and later run on compute capability 9.0, and refuse older cards and newer ones by name") {
  if (landing() < 2) return;
  Device device;
  device.name = "a card";
  device.sm_count = 132;
  device.shared_bytes_per_block = 227 * 1024;
  for (int head_dim : {64, 128, 256}) {
    const Problem p = make_problem(64, 64, head_dim);
    device.compute_capability = 90;
    CHECK(plan_for(tests::step(), p, device).refusal.empty());
    for (int capability : {75, 80, 89}) {
      device.compute_capability = capability;
      CHECK_THAT(plan_for(tests::step(), p, device).refusal,
                 ContainsSubstring("needs a GPU of compute capability 9.0"));
    }
    for (int capability : {100, 120}) {
      device.compute_capability = capability;
      CHECK_THAT(plan_for(tests::step(), p, device).refusal,
                 ContainsSubstring("that compute capability 9.0 alone has"));
    }
  }
  device.compute_capability = 90;
  device.shared_bytes_per_block = 64 * 1024;
  CHECK_THAT(plan_for(tests::step(), make_problem(64, 64, 128), device).refusal, ContainsSubstring("in shared memory"));
}

TEST_CASE("07.2 and later refuse what they can't do, by name") {
  if (!runs()) return;
  tests::require_refused(make_problem(64, 64, 64, Dtype::fp32), "not fp32");
  tests::require_refused(make_problem(64, 64, 32), "head_dim 64, 128, 256, not 32");
}
