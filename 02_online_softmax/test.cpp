// 02_online_softmax: right everywhere, at any seqlen, with no memory that grows with it.
#include "common/check/check.h"
#include "common/tests/catch.h"
#include "common/tests/step_tests.h"

using namespace flash;
using tests::make_problem;

namespace {

constexpr int kWarps = 8;  // as in the kernel

std::vector<Problem> counted_problems() {
  std::vector<Problem> problems;
  for (int head_dim : {32, 64, 128}) {
    problems.push_back(make_problem(6, 96, head_dim));
    problems.push_back(make_problem(3, 41, head_dim));
    Problem grouped = make_problem(11, 5, head_dim);  // causal: rows that see no key, warps that see none
    grouped.batch = 2;
    grouped.heads = 4;
    grouped.kv_heads = 2;
    grouped.causal = true;
    problems.push_back(grouped);
  }
  return problems;
}

// Pairs of a query and a key that it sees, counted one row at a time.
uint64_t visible_pairs(const Problem& p) {
  uint64_t pairs = 0;
  for (int i = 0; i < p.seqlen_q; ++i) {
    const int last = p.causal ? i + p.seqlen_k - p.seqlen_q : p.seqlen_k - 1;
    pairs += last < 0 ? 0 : last + 1;
  }
  return pairs * p.batch * p.heads;
}

}  // namespace

TEST_CASE("02 gives the reference's O and LSE on awkward problems") { tests::require_pass_awkward(); }

TEST_CASE("02 is right whatever the inputs are drawn from") {
  // Scores far below zero, or so large that exp() of one overflows.
  for (Dist dist : {Dist::normal, Dist::uniform, Dist::outliers, Dist::large, Dist::negative}) {
    Problem p = make_problem(3, 19, 64);
    p.softmax_scale = 4.0f;
    tests::require_pass(p, dist);
  }
}

TEST_CASE("02 does not depend on the order of threads, warps and blocks") {
  Problem p = make_problem(4, 37, 32);
  p.heads = 2;
  p.causal = true;
  tests::require_pass_shuffled(p);
}

TEST_CASE("02 is right whatever order the scores come in") {
  // Key j's score is its rank times a step, so the running maximum grows at every key, at none, or now and then.
  const Problem p = make_problem(2, 120, 32);
  enum class Order { rising, falling, zigzag };
  for (Order order : {Order::rising, Order::falling, Order::zigzag}) {
    for (float step : {0.01f, 3.0f}) {
      INFO("order " << int(order) << " step " << step);
      Inputs inputs = make_inputs(p, Direction::forward, Dist::normal, 7);
      for (int i = 0; i < p.seqlen_q; ++i) {
        for (int x = 0; x < p.head_dim; ++x) inputs.q[i * p.head_dim + x] = x == 0 ? 1.0f : 0.0f;
      }
      for (int j = 0; j < p.seqlen_k; ++j) {
        const int rank = order == Order::rising ? j : order == Order::falling ? -j : (j * 37) % 120;
        inputs.k[j * p.head_dim] = rank * step / p.softmax_scale;
      }
      const CheckResult result = check_forward(p, inputs, run_once(tests::step(), p, inputs));
      INFO(result.message);
      REQUIRE(result.verdict == Verdict::pass);
    }
  }
}

TEST_CASE("02 takes rows that 01 can't hold in shared memory") {
  const int too_long_for_01 = int(tests::device().shared_bytes_per_block) / 4 + 1;
  if (tests::watched()) {
    const Problem p = make_problem(1, too_long_for_01, 32);
    CHECK(tests::counts_of(p).global_write.bytes == (q_elements(p) + q_rows(p)) * 4);
  } else {
    tests::require_pass(make_problem(1, too_long_for_01, 32));
    tests::require_pass(make_problem(1, too_long_for_01, 128));
  }
}

TEST_CASE("02 asks for the bytes its formula says") {
  for (const Problem& p : counted_problems()) tests::require_traffic(p);
}

TEST_CASE("02 writes O and the LSE to global memory and nothing else") {
  if (!tests::watched()) return;
  REQUIRE(plan_for(tests::step(), make_problem(1000, 1000, 64), tests::device()).workspace_bytes == 0);
  for (const Problem& p : counted_problems()) {
    const Counts counts = tests::counts_of(p);
    CHECK(counts.global_write.bytes == (q_elements(p) + q_rows(p)) * 4);
    CHECK(counts.global_read.bytes == visible_pairs(p) * 2 * p.head_dim * 4 + q_elements(p) * kWarps * 4);
  }
}

TEST_CASE("02's shared memory holds one partial softmax per warp, whatever the seqlen") {
  if (!tests::watched()) return;
  for (int head_dim : {32, 64, 128}) {
    for (int seqlen_k : {1, 40, 200}) {
      const Problem p = make_problem(3, seqlen_k, head_dim);
      const Counts counts = tests::counts_of(p);
      CHECK(counts.shared_write.bytes == q_rows(p) * kWarps * (2 + head_dim) * 4);  // m, l and o
      CHECK(counts.barriers == q_rows(p) * kWarps);
    }
  }
}

TEST_CASE("02 pays for one pass with two exponentials per key and lane") {
  if (!tests::watched()) return;
  for (const Problem& p : {make_problem(3, 8, 32), make_problem(5, 41, 64)}) {  // no warp without a key
    const uint64_t merges = visible_pairs(p) + (kWarps - 1) * q_rows(p);  // one per key, and the warps' at the end
    CHECK(tests::counts_of(p).exps == 2 * 32 * merges);
  }
}

TEST_CASE("02 reads K and V coalesced, as 01 does") {
  if (!tests::watched()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const WatchReport report = tests::report_of(p);
    for (const char* label : {"load-k", "load-v"}) {
      const AccessCounts read = tests::counts_at(report, label).global_read;
      CHECK(read.requests == visible_pairs(p) * p.head_dim / 32);
      CHECK(read.sectors == 4 * read.requests);
    }
  }
}
