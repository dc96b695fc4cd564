// 05_tensor_core, all six landings: right everywhere, and each does what its chapter counts.
#include "common/check/check.h"
#include "common/problem/dtype.h"
#include "common/tests/catch.h"
#include "common/tests/step_tests.h"

using namespace flash;
using tests::make_problem;

namespace {

// The landings are in the order of their numbers: what one of them brings, all later ones have.
enum Landing { mma = 1, ldmatrix, cp_async, reuse, lazy_max, lean_loop };
Landing landing() { return Landing(tests::step().number.back() - '0'); }

// What the kernel was built with, seen from outside: a warp has 16 or 32 query rows, and a problem of one query and one
// key stores one whole tile of Q, of K and of V, and (05.6) one of O.
struct Tiles {
  int warp_rows, block_m, block_n;
};
Tiles tiles_of(int head_dim) {
  const WatchReport report = tests::report_of(make_problem(1, 1, head_dim));
  const int warp_rows = landing() >= reuse ? 32 : 16;
  const int block_m = int(report.kernels.at(0).threads / report.kernels.at(0).blocks) / 32 * warp_rows;
  const int tiles_of_m = landing() >= lean_loop ? 2 : 1;
  const int rows = int(report.total().shared_write.bytes) / (2 * head_dim);
  return {warp_rows, block_m, (rows - tiles_of_m * block_m) / 2};
}

uint64_t ceil_div(int a, int b) { return uint64_t(a + b - 1) / b; }

// Not causal: whole tiles, ragged ends, lengths that differ, groups of heads; both dtypes.
std::vector<Problem> counted_problems() {
  std::vector<Problem> problems;
  for (int head_dim : {64, 128}) {
    problems.push_back(make_problem(128, 192, head_dim, Dtype::bf16));
    problems.push_back(make_problem(70, 150, head_dim, Dtype::fp16));
    Problem grouped = make_problem(130, 33, head_dim);
    grouped.heads = 4;
    grouped.kv_heads = 2;
    problems.push_back(grouped);
  }
  return problems;
}

// How often the tiles of a problem meet: blocks, and pairs of a block and a key tile.
struct Meetings {
  Tiles tiles;
  uint64_t blocks, pairs, warps;  // warps per block
};
Meetings meetings_of(const Problem& p) {
  const Tiles t = tiles_of(p.head_dim);
  const uint64_t blocks = ceil_div(p.seqlen_q, t.block_m) * p.heads * p.batch;
  return {t, blocks, blocks * ceil_div(p.seqlen_k, t.block_n), uint64_t(t.block_m / t.warp_rows)};
}

Problem causal(int seqlen_q, int seqlen_k, int head_dim) {
  Problem p = make_problem(seqlen_q, seqlen_k, head_dim);
  p.causal = true;
  return p;
}

// On a GPU without these instructions there is nothing to run.
bool too_old() {
  if (tests::device().compute_capability >= tests::step().architectures.least) return false;
  WARN("SKIP: " << plan_for(tests::step(), make_problem(64, 64, 64), tests::device()).refusal);
  return true;
}

void require_scores_pass(const Problem& p, float (*score)(int)) {
  Inputs inputs = make_inputs(p, Direction::forward, Dist::normal, 7);
  for (int i = 0; i < p.seqlen_q; ++i) {
    for (int x = 0; x < p.head_dim; ++x) inputs.q[i * p.head_dim + x] = x == 0 ? 1.0f : 0.0f;
  }
  for (int j = 0; j < p.seqlen_k; ++j) inputs.k[j * p.head_dim] = round_to(p.dtype, score(j) / p.softmax_scale);
  const CheckResult result = check_forward(p, inputs, run_once(tests::step(), p, inputs));
  INFO(result.message);
  REQUIRE(result.verdict == Verdict::pass);
}

}  // namespace

TEST_CASE("05 gives the reference's O and LSE on awkward problems") { tests::require_pass_awkward(); }

TEST_CASE("05 is right whatever the inputs are drawn from") {
  if (too_old()) return;
  for (Dtype dtype : {Dtype::bf16, Dtype::fp16}) {
    for (Dist dist : {Dist::normal, Dist::uniform, Dist::outliers, Dist::large, Dist::negative}) {
      for (bool is_causal : {false, true}) {
        Problem p = make_problem(40, 130, 64, dtype);
        p.causal = is_causal;
        tests::require_pass(p, dist);
      }
    }
  }
}

TEST_CASE("05 is right around the edges of its tiles") {
  if (too_old()) return;
  for (int seqlen_q : {127, 128, 129, 193}) {
    for (int seqlen_k : {15, 16, 63, 65, 95, 96, 97, 128, 193}) {
      if (tests::watched() && (seqlen_q != 129 || seqlen_k > 97)) continue;
      for (Dtype dtype : {Dtype::bf16, Dtype::fp16}) {
        tests::require_pass(make_problem(seqlen_q, seqlen_k, 64, dtype));
        Problem p = causal(seqlen_q, seqlen_k, 128);
        p.dtype = dtype;
        tests::require_pass(p);
      }
    }
  }
}

TEST_CASE("05 does not depend on the order of threads, warps and blocks, nor on when copies land") {
  Problem p = causal(70, 200, 64);
  p.heads = 2;
  tests::require_pass_shuffled(p);
}

TEST_CASE("05 is right whether the maximum grows at every key tile, never, or too little to rescale") {
  if (too_old()) return;
  // From 05.5 on it rescales only when the exponent has grown by more than 8, base 2; 05.6 walks the keys backwards.
  for (Dtype dtype : {Dtype::bf16, Dtype::fp16}) {
    const Problem p = make_problem(20, 300, 64, dtype);
    require_scores_pass(p, [](int j) { return 3.0f * j; });
    require_scores_pass(p, [](int j) { return -3.0f * j; });
    require_scores_pass(p, [](int j) { return 0.03f * j; });
    require_scores_pass(p, [](int j) { return -0.03f * j; });           // 5.4 nats in 180 keys: a lag of 2^8 is used up
    require_scores_pass(p, [](int j) { return j == 5 ? 5.5f : 0.f; });  // just below e^(8 ln 2) = e^5.55
    require_scores_pass(p, [](int j) { return j == 5 ? 5.6f : 0.f; });  // just above
    require_scores_pass(p, [](int j) { return j == 5 ? 12.f : 0.f; });  // without rescaling fp16 would overflow
    require_scores_pass(p, [](int j) { return j % 37 == 0 ? 80.f : -40.f; });
  }
}

TEST_CASE("05 asks for the bytes its formula says") {
  if (too_old()) return;
  for (const Problem& p : counted_problems()) tests::require_traffic(p);
  tests::require_traffic(causal(200, 200, 64));
  tests::require_traffic(causal(150, 40, 128));  // query tiles that see no key
  tests::require_traffic(causal(40, 250, 64));
}

TEST_CASE("05 reads Q once, and K and V once a query tile") {
  if (!tests::watched()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const Counts counts = tests::counts_of(p);
    const uint64_t query_tiles = ceil_div(p.seqlen_q, tiles_of(p.head_dim).block_m);
    const uint64_t row = p.head_dim * 2, heads = uint64_t(p.batch) * p.heads;
    CHECK(counts.global_read.bytes == heads * (p.seqlen_q + 2 * query_tiles * p.seqlen_k) * row);
    CHECK(counts.global_write.bytes == heads * p.seqlen_q * (row + 4));
  }
}

TEST_CASE("05 copies to global memory and from it in whole sectors") {
  if (!tests::watched()) return;
  for (const Problem& p : counted_problems()) {
    const Counts counts = tests::counts_of(p);
    CHECK(counts.global_read.sectors * 32 == counts.global_read.bytes);
  }
}

TEST_CASE("05.3 and later copy by cp.async alone, 16 bytes at a time") {
  if (!tests::watched()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const Meetings m = meetings_of(p);
    const uint64_t rows = m.blocks * m.tiles.block_m + m.pairs * 2 * m.tiles.block_n;
    CHECK(tests::counts_of(p).async_copies == (landing() >= cp_async ? rows * p.head_dim / 8 / 32 : 0));
  }
}

TEST_CASE("05.6 writes O 16 bytes at a time, the others 4") {
  if (!tests::watched()) return;
  const Problem p = make_problem(128, 64, 64);
  const uint64_t rows_per_request = landing() >= lean_loop ? 4 : 8,
                 requests_per_row_of_o = landing() >= lean_loop ? 1 : 8;
  const uint64_t lse = 128 / 8;  // a request of a warp for 8 rows
  CHECK(tests::counts_of(p).global_write.requests == 128 / rows_per_request * requests_per_row_of_o + lse);
}

TEST_CASE("05's products are all on tensor cores") {
  if (!tests::watched()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const Meetings m = meetings_of(p);
    // Both products of a pair of tiles: block_m x block_n x head_dim multiply-adds each, 16 x 8 x 16 an mma.
    const uint64_t macs = 2 * m.pairs * m.tiles.block_m * m.tiles.block_n * p.head_dim;
    CHECK(tests::counts_of(p).mmas == macs / (16 * 8 * 16));
  }
}

TEST_CASE("05 keeps S and P in registers: shared memory is written with tiles of Q, K and V alone") {
  if (!tests::watched()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const Meetings m = meetings_of(p);
    // 05.6 stages O where Q was.
    const uint64_t rows_of_m = landing() >= lean_loop ? 2 * m.tiles.block_m : m.tiles.block_m;
    const uint64_t rows = m.blocks * rows_of_m + m.pairs * 2 * m.tiles.block_n;
    CHECK(tests::counts_of(p).shared_write.bytes == rows * p.head_dim * 2);
  }
}

TEST_CASE("05.1 fights over banks as its chapter predicts; the others don't at all") {
  if (!tests::watched()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const WatchReport report = tests::report_of(p);
    const Counts total = report.total();
    CHECK(total.shared_write.conflicts == 0);
    if (landing() != mma) {
      CHECK(total.shared_read.conflicts == 0);
      continue;
    }
    const Meetings m = meetings_of(p);
    // Q and K: the eight groups of lanes read one word each of eight rows, which begin in the same bank: 8 passes for 1.
    const AccessCounts pairs = tests::counts_at(report, "load-pair").shared_read;
    const uint64_t k_loads = m.pairs * m.warps * (m.tiles.block_n / 8) * (p.head_dim / 16) * 2;
    const uint64_t q_loads = m.blocks * m.warps * (p.head_dim / 16) * 4;
    CHECK(pairs.requests == k_loads + q_loads);
    CHECK(pairs.conflicts == 7 * pairs.requests);
    // V: the four lanes of a group read one element each of four rows: 4 passes for 1.
    const AccessCounts columns = tests::counts_at(report, "load-column-pair").shared_read;
    CHECK(columns.requests == m.pairs * m.warps * (m.tiles.block_n / 16) * (p.head_dim / 8) * 4);
    CHECK(columns.conflicts == 3 * columns.requests);
  }
}

TEST_CASE("05.4's fragments of K and V serve 32 rows, those of 05.2 and 05.3 serve 16") {
  if (!tests::watched()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const Meetings m = meetings_of(p);
    const uint64_t patches = p.head_dim / 16;  // 16 x 16 patches across a row: one ldmatrix each
    const uint64_t kv = m.pairs * m.warps * 2 * (m.tiles.block_n / 16) * patches;
    // Q: read once, or (05.4 and 05.5, and 05.6 at head_dim 128) again for every key tile.
    const bool reads_q_again =
        landing() == reuse || landing() == lazy_max || (landing() == lean_loop && p.head_dim == 128);
    const uint64_t q = (reads_q_again ? m.pairs : m.blocks) * m.warps * (m.tiles.warp_rows / 16) * patches;
    const uint64_t expected = landing() == mma ? 0 : kv + q;
    CHECK(tests::counts_of(p).ldmatrixes == expected);
  }
}

TEST_CASE("05.3 and later wait for the other warps once per key tile, 05.1 and 05.2 twice") {
  if (!tests::watched()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const Meetings m = meetings_of(p);
    const bool keeps_q = landing() < reuse || (landing() == lean_loop && p.head_dim == 64);
    const uint64_t at_start = keeps_q ? m.blocks : 0;  // Q to registers
    const uint64_t per_tile = landing() >= cp_async ? 1 : 2;
    const uint64_t at_end = landing() >= lean_loop ? 2 * m.blocks : 0;  // O to shared memory: a warp alone
    CHECK(tests::counts_of(p).barriers == m.warps * (at_start + per_tile * m.pairs + at_end));
  }
}

TEST_CASE("05.5 and later rescale once where the scores are ordinary, the others at every key tile") {
  if (!tests::watched()) return;
  for (int head_dim : {64, 128}) {
    const Problem p = make_problem(128, 480, head_dim);
    const Meetings m = meetings_of(p);
    // One exponential per score, and one per rescaling for each of a lane's rows.
    const uint64_t scores = m.pairs * m.tiles.block_m * m.tiles.block_n;
    const uint64_t lanes_rows = m.warps * 32 * (m.tiles.warp_rows / 8);
    const uint64_t rescalings = landing() >= lazy_max ? m.blocks : m.pairs;
    CHECK(tests::counts_of(p).exps == scores + rescalings * lanes_rows);
  }
}

TEST_CASE("05 needs tensor cores that take bf16, and no more shared memory than a consumer card has") {
  Device device;
  device.name = "a card";
  device.shared_bytes_per_block = 99 * 1024;
  for (int head_dim : {64, 128}) {
    const Problem p = make_problem(64, 64, head_dim);
    for (int capability : {80, 86, 89, 90}) {
      device.compute_capability = capability;
      CHECK(plan_for(tests::step(), p, device).refusal.empty());
    }
    device.compute_capability = 75;
    CHECK_THAT(plan_for(tests::step(), p, device).refusal, ContainsSubstring("8.0 or newer"));
  }
  device.compute_capability = 80;
  device.shared_bytes_per_block = 16 * 1024;
  CHECK_THAT(plan_for(tests::step(), make_problem(64, 64, 128), device).refusal, ContainsSubstring("in shared memory"));
}

TEST_CASE("05 refuses what it can't do, by name") {
  if (too_old()) return;
  tests::require_refused(make_problem(64, 64, 64, Dtype::fp32), "not fp32");
  tests::require_refused(make_problem(64, 64, 32), "head_dim 64, 128, not 32");
}
