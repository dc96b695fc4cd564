// 04_flash_v2: right everywhere, for whatever tiles it was built with; and O never comes back to the chip.
// Tested with TILE=32x16 too.
#include "common/check/check.h"
#include "common/tests/catch.h"
#include "common/tests/step_tests.h"

using namespace flash;
using tests::make_problem;

namespace {

// What the kernel was built with, seen from outside: a block has one thread per query row, and a problem of one
// query and one key stores one whole tile of Q, of K and of V.
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

TEST_CASE("04 gives the reference's O and LSE on awkward problems") { tests::require_pass_awkward(); }

TEST_CASE("04 does not depend on the order of threads, warps and blocks") {
  Problem p = causal(70, 50, 32);
  p.heads = 2;
  tests::require_pass_shuffled(p);
}

TEST_CASE("04 is right around the edges of its tiles") {
  for (int seqlen_q : {64, 96, 129}) {
    for (int seqlen_k : {15, 16, 17, 48, 128}) {
      if (tests::watched() && seqlen_q != 96) continue;
      tests::require_pass(make_problem(seqlen_q, seqlen_k, 64));
      tests::require_pass(causal(seqlen_q, seqlen_k, 128));
    }
  }
}

TEST_CASE("04 is right whether the maximum grows at every key tile or never") {
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

TEST_CASE("04 refuses what a grid or the shared memory can't hold") {
  tests::require_refused(make_problem(65535 * 1024 + 1, 1, 32), "CUDA allows 65535 rows");
  Device small = tests::device();
  small.shared_bytes_per_block = 8 * 1024;
  REQUIRE_THAT(plan_for(tests::step(), make_problem(64, 64, 128), small).refusal,
               ContainsSubstring("this device has 8 KB"));
}

TEST_CASE("04 asks for the bytes its formula says") {
  for (const Problem& p : counted_problems()) tests::require_traffic(p);
  for (int head_dim : {32, 64, 128}) {
    tests::require_traffic(causal(130, 130, head_dim));
    tests::require_traffic(causal(70, 150, head_dim));
    tests::require_traffic(causal(150, 70, head_dim));  // queries that see no key
  }
}

TEST_CASE("04 writes O once, never reads it, and writes no score") {
  if (!tests::watched()) return;
  REQUIRE(plan_for(tests::step(), make_problem(1000, 1000, 64), tests::device()).workspace_bytes == 0);
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const WatchReport report = tests::report_of(p);
    CHECK(report.total().global_write.bytes == (q_elements(p) + q_rows(p)) * 4);  // O and the LSE
    const uint64_t loaded = tests::counts_at(report, "load-tile").global_read.bytes;
    CHECK(report.total().global_read.bytes == loaded);  // of Q, K and V: nothing else is read
  }
}

TEST_CASE("04 reads Q once, and K and V once per query tile") {
  if (!tests::watched()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const uint64_t query_tiles = ceil_div(p.seqlen_q, tiles_of(p.head_dim).block_m);
    const uint64_t kv_rows = query_tiles * p.batch * p.heads * p.seqlen_k;
    const WatchReport report = tests::report_of(p);
    CHECK(report.total().global_read.bytes == (q_elements(p) + 2 * kv_rows * p.head_dim) * 4);
    CHECK(report.kernels.at(0).blocks == query_tiles * p.heads * p.batch);
  }
}

TEST_CASE("04 has no bank conflict, and loads whole sectors") {
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

TEST_CASE("04's barriers: two per key tile") {
  if (!tests::watched()) return;
  for (const Problem& p : counted_problems()) {
    const Tiles tiles = tiles_of(p.head_dim);
    const uint64_t warps = tiles.block_m / 32 * ceil_div(p.seqlen_q, tiles.block_m) * p.heads * p.batch;
    // The __syncwarp after P is a barrier too, of one warp.
    CHECK(tests::counts_of(p).barriers == warps * 3 * ceil_div(p.seqlen_k, tiles.block_n));
  }
}

TEST_CASE("04 causal reads half of the K and V tiles and the diagonal's") {
  if (!tests::watched()) return;
  for (int head_dim : {32, 64, 128}) {
    const Tiles tiles = tiles_of(head_dim);
    const int query_tiles = 3;
    const Problem p = causal(query_tiles * tiles.block_m, query_tiles * tiles.block_m, head_dim);
    const uint64_t loaded = tests::counts_of(p).global_read.bytes / 4 - q_elements(p);  // elements of K and V
    uint64_t keys = 0;  // the last query of tile t sees (t + 1) * block_m keys, in whole tiles
    for (int t = 1; t <= query_tiles; ++t) {
      keys += std::min<uint64_t>(ceil_div(t * tiles.block_m, tiles.block_n) * tiles.block_n, p.seqlen_k);
    }
    CHECK(loaded == keys * 2 * head_dim);
    // Half of all, and for each query tile at most the half of it that its own rows span, rounded up to a key tile.
    const uint64_t all = uint64_t(query_tiles) * p.seqlen_k, diagonal = tiles.block_m / 2 + tiles.block_n;
    CHECK(keys <= all / 2 + query_tiles * diagonal);
  }
}
