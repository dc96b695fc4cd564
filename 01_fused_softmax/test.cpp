// 01_fused_softmax: right everywhere, S and P never reach global memory, K and V are read whole sectors at a time.
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
    Problem grouped = make_problem(11, 5, head_dim);  // causal: rows that see no key
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

// The longest row of scores that leaves room for the warps' own arrays.
int most_keys(int head_dim) {
  const int arrays = (kWarps * (head_dim + 2) * 4 + 127) / 128 * 128;
  return (int(tests::device().shared_bytes_per_block) - arrays) / 4;
}

}  // namespace

TEST_CASE("01 gives the reference's O and LSE on awkward problems") { tests::require_pass_awkward(); }

TEST_CASE("01 is right whatever the inputs are drawn from") {
  // Scores far below zero, or so large that exp() of one overflows.
  for (Dist dist : {Dist::normal, Dist::uniform, Dist::outliers, Dist::large, Dist::negative}) {
    Problem p = make_problem(3, 19, 64);
    p.softmax_scale = 4.0f;
    tests::require_pass(p, dist);
  }
}

TEST_CASE("01 does not depend on the order of threads, warps and blocks") {
  Problem p = make_problem(4, 37, 32);
  p.heads = 2;
  p.causal = true;
  tests::require_pass_shuffled(p);
}

TEST_CASE("01 takes every row that fits shared memory, and refuses the next longer one by name") {
  for (int head_dim : {32, 128}) {
    const Problem longest = make_problem(1, most_keys(head_dim), head_dim);
    REQUIRE(plan_for(tests::step(), longest, tests::device()).refusal == "");
    if (!tests::watched()) tests::require_pass(longest);  // slow when watched
    tests::require_refused(make_problem(1, most_keys(head_dim) + 1, head_dim),
                           "keeps a row of scores in shared memory");
  }
  tests::require_refused(make_problem(1, 70000, 64), "shared memory: seqlen_k 70000 needs 276 KB, this device has ");
  tests::require_pass(make_problem(1, 12000, 128));  // less than 48 KB of scores, more with the warps' arrays
}

TEST_CASE("01 asks for the bytes its formula says") {
  for (const Problem& p : counted_problems()) tests::require_traffic(p);
}

TEST_CASE("01 writes O and the LSE to global memory and nothing else") {
  if (!tests::watched()) return;
  REQUIRE(plan_for(tests::step(), make_problem(1000, 1000, 64), tests::device()).workspace_bytes == 0);
  for (const Problem& p : counted_problems()) {
    const Counts counts = tests::counts_of(p);
    CHECK(counts.global_write.bytes == (q_elements(p) + q_rows(p)) * 4);
    CHECK(counts.global_read.bytes == visible_pairs(p) * 2 * p.head_dim * 4 + q_elements(p) * kWarps * 4);
    CHECK(counts.exps == visible_pairs(p));
    CHECK(counts.barriers == 4 * kWarps * q_rows(p));
  }
}

TEST_CASE("01 reads K and V coalesced: four sectors per request, every byte of them used") {
  if (!tests::watched()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const WatchReport report = tests::report_of(p);
    for (const char* label : {"load-k", "load-v"}) {
      const AccessCounts read = tests::counts_at(report, label).global_read;
      CHECK(read.requests == visible_pairs(p) * p.head_dim / 32);
      CHECK(read.sectors == 4 * read.requests);
      CHECK(read.bytes == 32 * read.sectors);
    }
  }
}
