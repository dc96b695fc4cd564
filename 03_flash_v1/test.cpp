// 03_flash_v1: right everywhere, for whatever tiles it was built with; and O goes out and back once a key tile. So is
// plain.cpp, the same algorithm in ordinary C++.
// Tested with TILE=32x16 too.
#include <cmath>

#include "common/check/check.h"
#include "common/tests/catch.h"
#include "common/tests/step_tests.h"

namespace flash::plain {
void flash_v1(const Problem&, const float* q, const float* k, const float* v, float* o, float* softmax_lse, int M);
}

using namespace flash;
using tests::make_problem;

namespace {

// What the kernel was built with, seen from outside: a block has a thread a query row, and a problem of one query and
// one key stores one whole tile of Q, of K and of V.
struct Tiles {
  int block_m, block_n;
};
Tiles tiles_of(int head_dim) {
  const WatchReport report = tests::report_of(make_problem(1, 1, head_dim));
  const int block_m = int(report.kernels.at(0).threads / report.kernels.at(0).blocks);
  const uint64_t stored = tests::counts_at(report, "load-tile").shared_write.bytes;
  return {block_m, (int(stored) / (4 * head_dim) - block_m) / 2};
}

uint64_t ceil_div(int a, int b) { return uint64_t(a + b - 1) / b; }

// Not causal: whole tiles, ragged ends, lengths that differ, groups of heads.
std::vector<Problem> counted_problems() {
  std::vector<Problem> problems;
  for (int head_dim : {32, 64, 128}) {
    problems.push_back(make_problem(128, 128, head_dim));
    problems.push_back(make_problem(70, 150, head_dim));
    Problem grouped = make_problem(130, 33, head_dim);
    grouped.batch = 2;
    grouped.heads = 4;
    grouped.kv_heads = 2;
    problems.push_back(grouped);
  }
  return problems;
}

Problem causal(int seqlen_q, int seqlen_k, int head_dim) {
  Problem p = make_problem(seqlen_q, seqlen_k, head_dim);
  p.causal = true;
  return p;
}

}  // namespace

TEST_CASE("03 gives the reference's O and LSE on awkward problems") { tests::require_pass_awkward(); }

TEST_CASE("03 does not depend on the order of threads, warps and blocks") {
  Problem p = causal(70, 50, 32);
  p.heads = 2;
  tests::require_pass_shuffled(p);
}

TEST_CASE("03 is right around the edges of its tiles") {
  for (int seqlen_q : {64, 96, 129}) {
    for (int seqlen_k : {15, 16, 17, 48, 128}) {
      if (tests::watched() && seqlen_q != 96) continue;
      tests::require_pass(make_problem(seqlen_q, seqlen_k, 64));
      tests::require_pass(causal(seqlen_q, seqlen_k, 128));
    }
  }
}

TEST_CASE("03 is right whether the maximum grows at every key tile or never") {
  for (float slope : {3.0f, -3.0f, 0.01f}) {
    INFO("score of key j: " << slope << " j");
    const Problem p = make_problem(40, 150, 32);
    Inputs inputs = make_inputs(p, Direction::forward, Dist::normal, 7);
    for (int i = 0; i < p.seqlen_q; ++i) {
      for (int x = 0; x < p.head_dim; ++x) inputs.q[i * p.head_dim + x] = x == 0 ? 1.0f : 0.0f;
    }
    for (int j = 0; j < p.seqlen_k; ++j) inputs.k[j * p.head_dim] = slope * j / p.softmax_scale;
    const CheckResult result = check_forward(p, inputs, run_once(tests::step(), p, inputs));
    INFO(result.message);
    REQUIRE(result.verdict == Verdict::pass);
  }
}

TEST_CASE("03 refuses what the shared memory can't hold") {
  Device small = tests::device();
  small.shared_bytes_per_block = 8 * 1024;
  REQUIRE_THAT(plan_for(tests::step(), make_problem(64, 64, 128), small).refusal,
               ContainsSubstring("this device has 8 KB"));
}

TEST_CASE("03 asks for the bytes its formula says") {
  for (const Problem& p : counted_problems()) tests::require_traffic(p);
  for (int head_dim : {32, 64, 128}) {
    tests::require_traffic(causal(130, 130, head_dim));
    tests::require_traffic(causal(70, 150, head_dim));
    tests::require_traffic(causal(150, 70, head_dim));  // queries that see no key
  }
}

TEST_CASE("03 writes O once a key tile, reads it back for all but the first, and writes no score") {
  if (!tests::watched()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const uint64_t key_tiles = ceil_div(p.seqlen_k, tiles_of(p.head_dim).block_n);
    const uint64_t o_bytes = q_elements(p) * 4, rows = q_rows(p);
    const WatchReport report = tests::report_of(p);
    CHECK(report.total().global_write.bytes == key_tiles * (o_bytes + 12 * rows));        // 12: LSE, m and l of a row
    const uint64_t tiles_read = tests::counts_at(report, "load-tile").global_read.bytes;  // Q, K and V
    CHECK(report.total().global_read.bytes - tiles_read == (key_tiles - 1) * (o_bytes + 8 * rows));
  }
}

TEST_CASE("03 reads K and V once, and Q once a key tile") {
  if (!tests::watched()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const uint64_t key_tiles = ceil_div(p.seqlen_k, tiles_of(p.head_dim).block_n);
    const uint64_t kv_rows = uint64_t(p.batch) * p.heads * p.seqlen_k;  // once a query head: groups don't share a tile
    const WatchReport report = tests::report_of(p);
    CHECK(tests::counts_at(report, "load-tile").global_read.bytes ==
          (key_tiles * q_elements(p) + 2 * kv_rows * p.head_dim) * 4);
  }
}

TEST_CASE("03 has a block a head, whatever the seqlen, and m and l for workspace") {
  for (const Problem& p : counted_problems()) {
    CHECK(plan_for(tests::step(), p, tests::device()).workspace_bytes == q_rows(p) * 8);
    if (tests::watched()) CHECK(tests::report_of(p).kernels.at(0).blocks == uint64_t(p.batch) * p.heads);
  }
}

TEST_CASE("03 has no bank conflict, and loads whole sectors") {
  if (!tests::watched()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const WatchReport report = tests::report_of(p);
    const Counts total = report.total();
    for (const AccessCounts& shared : {total.shared_read, total.shared_write}) {
      CHECK(shared.requests > 0);
      CHECK(shared.conflicts == 0);
    }
    const AccessCounts load = tests::counts_at(report, "load-tile").global_read;
    CHECK(load.sectors * 32 == load.bytes);
  }
}

TEST_CASE("03 causal skips the query tiles above the diagonal") {
  if (!tests::watched()) return;
  for (int head_dim : {32, 64, 128}) {
    const Tiles tiles = tiles_of(head_dim);
    const int query_tiles = 3;
    const Problem p = causal(query_tiles * tiles.block_m, query_tiles * tiles.block_m, head_dim);
    uint64_t visits = 0;  // of query rows by key tiles: query tile t sees keys up to (t + 1) * block_m
    for (int t = 1; t <= query_tiles; ++t) visits += tiles.block_m * ceil_div(t * tiles.block_m, tiles.block_n);
    CHECK(tests::counts_of(p).global_write.bytes == visits * (head_dim * 4 + 12));  // O; LSE, m and l
  }
}

TEST_CASE("plain.cpp, Algorithm 1 in ordinary C++, gives the reference's O and LSE on awkward problems") {
  if (tests::watched()) return;  // the other test binary has more cases
  for (const tests::Case& c : tests::awkward_cases()) {
    for (int M : {1, 1000, 16384}) {  // floats of fast memory: tiles of one key; of a few; of up to 128
      INFO(tests::describe(c.problem, c.dist) << " seed " << c.seed << " M " << M);
      const Inputs inputs = make_inputs(c.problem, Direction::forward, c.dist, c.seed);
      Outputs outputs;
      outputs.o.assign(q_elements(c.problem), NAN);
      outputs.softmax_lse.assign(q_rows(c.problem), NAN);
      plain::flash_v1(c.problem, inputs.q.data(), inputs.k.data(), inputs.v.data(), outputs.o.data(),
                      outputs.softmax_lse.data(), M);
      const CheckResult result = check_forward(c.problem, inputs, outputs, c.seed);
      INFO(result.message);
      REQUIRE(result.verdict == Verdict::pass);
    }
  }
}
