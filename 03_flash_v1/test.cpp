// 03_flash_v1, both landings: right everywhere, for whatever tiles they were built with; and O goes out and back once per
// key tile. plain.cpp, the same algorithm in ordinary C++, is right too.
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

bool is_tiles() { return tests::step().number == "03.1"; }  // else 03.2, register_blocks

// What the kernel was built with. 03.1 has one size of tiles; 03.2's is seen from outside: a block has one thread per
// query row, and a problem of one query and one key stores one whole tile of Q, of K and of V.
struct Tiles {
  int block_m, block_n;
};
Tiles tiles_of(int head_dim) {
  if (is_tiles()) return {64, 2048 / head_dim};
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

TEST_CASE("03.2 refuses what the shared memory can't hold, and 03.1 fits everywhere") {
  Device small = tests::device();
  small.shared_bytes_per_block = 8 * 1024;
  const std::string refusal = plan_for(tests::step(), make_problem(64, 64, 128), small).refusal;
  if (is_tiles()) {
    CHECK(refusal.empty());  // its arrays are static: at most 32 KB, and every GPU has 48
  } else {
    REQUIRE_THAT(refusal, ContainsSubstring("this device has 8 KB"));
  }
}

TEST_CASE("03 asks for the bytes its formula says") {
  for (const Problem& p : counted_problems()) tests::require_traffic(p);
  for (int head_dim : {32, 64, 128}) {
    tests::require_traffic(causal(130, 130, head_dim));
    tests::require_traffic(causal(70, 150, head_dim));
    tests::require_traffic(causal(150, 70, head_dim));  // queries that see no key
  }
}

TEST_CASE("03 writes O once per key tile, reads it back for all but the first, and writes no score") {
  if (!tests::watched()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const uint64_t key_tiles = ceil_div(p.seqlen_k, tiles_of(p.head_dim).block_n);
    const uint64_t o_bytes = q_elements(p) * 4, rows = q_rows(p);
    const WatchReport report = tests::report_of(p);
    CHECK(report.total().global_write.bytes == key_tiles * (o_bytes + 12 * rows));  // 12: LSE, maximum and sum of a row
    uint64_t qkv_read = tests::counts_at(report, "load-tile").global_read.bytes;
    if (is_tiles()) qkv_read += tests::counts_at(report, "load-q").global_read.bytes;
    CHECK(report.total().global_read.bytes - qkv_read == (key_tiles - 1) * (o_bytes + 8 * rows));
  }
}

TEST_CASE("03 reads K and V once, and Q once per key tile") {
  if (!tests::watched()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const uint64_t key_tiles = ceil_div(p.seqlen_k, tiles_of(p.head_dim).block_n);
    const uint64_t kv_rows = uint64_t(p.batch) * p.heads * p.seqlen_k;  // once a query head: groups don't share a tile
    const WatchReport report = tests::report_of(p);
    uint64_t qkv_read = tests::counts_at(report, "load-tile").global_read.bytes;
    if (is_tiles()) qkv_read += tests::counts_at(report, "load-q").global_read.bytes;
    CHECK(qkv_read == (key_tiles * q_elements(p) + 2 * kv_rows * p.head_dim) * 4);
  }
}

TEST_CASE("03 has one block per head, whatever the seqlen, and a maximum and a sum per row for workspace") {
  for (const Problem& p : counted_problems()) {
    CHECK(plan_for(tests::step(), p, tests::device()).workspace_bytes == q_rows(p) * 8);
    if (tests::watched()) CHECK(tests::report_of(p).kernels.at(0).blocks == uint64_t(p.batch) * p.heads);
  }
}

TEST_CASE("03 has no bank conflict, and loads its tiles in whole sectors") {
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

TEST_CASE("03.1 asks shared memory for a float per multiply-add, 03.2 for a patch's") {
  if (!tests::watched()) return;
  for (int head_dim : {32, 64, 128}) {
    const int seqlen = 128;
    const WatchReport report = tests::report_of(make_problem(seqlen, seqlen, head_dim));
    const uint64_t multiply_adds = uint64_t(seqlen) * seqlen * head_dim / 32;  // of each product; a warp at a time
    if (is_tiles()) {
      CHECK(tests::counts_at(report, "scores").shared_read.requests == multiply_adds);
      CHECK(tests::counts_at(report, "output").shared_read.requests == multiply_adds);
      continue;
    }
    // A thread's patches: 8 rows x keys of S, four columns of Q and K at a time; 8 rows x columns of O, four keys.
    const uint64_t rows = 8, keys = tiles_of(head_dim).block_n / 8, columns = head_dim / 8;
    const uint64_t scores = multiply_adds / (4 * rows * keys) * (rows + keys);
    const uint64_t output = multiply_adds / (4 * rows * columns) * (rows + columns);
    CHECK(report.total().shared_read.requests == scores + output);
  }
}

TEST_CASE("03.1's neighbouring threads read different rows of Q, and a request takes 32 sectors") {
  if (!tests::watched() || !is_tiles()) return;
  for (int head_dim : {32, 64, 128}) {
    const AccessCounts q = tests::counts_at(tests::report_of(make_problem(64, 64, head_dim)), "load-q").global_read;
    CHECK(q.sectors == 32 * q.requests);
  }
}

TEST_CASE("03 causal skips what lies above the diagonal: 03.1 rows, 03.2 query tiles") {
  if (!tests::watched()) return;
  for (int head_dim : {32, 64, 128}) {
    const Tiles tiles = tiles_of(head_dim);
    const int query_tiles = 3;
    const Problem p = causal(query_tiles * tiles.block_m, query_tiles * tiles.block_m, head_dim);
    const int step = is_tiles() ? 1 : tiles.block_m;  // rows that are skipped together: row i sees keys up to i
    uint64_t visits = 0;                              // of query rows by key tiles
    for (int row = step; row <= p.seqlen_q; row += step) visits += step * ceil_div(row, tiles.block_n);
    CHECK(tests::counts_of(p).global_write.bytes == visits * (head_dim * 4 + 12));  // O; LSE, maximum and sum
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
