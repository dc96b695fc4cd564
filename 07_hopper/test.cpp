// 07_hopper, all landings: right everywhere, and each does what its chapter counts.
#include "common/check/check.h"
#include "common/problem/dtype.h"
#include "common/tests/catch.h"
#include "common/tests/step_tests.h"

using namespace flash;
using tests::make_problem;

namespace {

// ---- 7.1 ------------------------------------------------------------------------------------------------------------

// On another GPU than Hopper there is nothing to run.
bool no_hopper() {
  if (tests::device().compute_capability == tests::step().architectures.least) return false;
  WARN("SKIP: " << plan_for(tests::step(), make_problem(64, 64, 64), tests::device()).refusal);
  return true;
}
bool is_tma() { return tests::step().number == "07.1"; }
bool counts_tma() { return is_tma() && tests::watched(); }

uint64_t ceil_div(int a, int b) { return uint64_t(a + b - 1) / b; }

Problem causal(int seqlen_q, int seqlen_k, int head_dim, Dtype dtype = tests::step().dtypes.front()) {
  Problem p = make_problem(seqlen_q, seqlen_k, head_dim, dtype);
  p.causal = true;
  return p;
}

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
  uint64_t block_m, block_n, blocks, pairs, warps;  // warps per block, of 32 rows each
};
Meetings meetings_of(const Problem& p) {
  const Plan plan = plan_for(tests::step(), p, tests::device());
  const uint64_t blocks = ceil_div(p.seqlen_q, plan.block_m) * p.heads * p.batch;
  return {uint64_t(plan.block_m), uint64_t(plan.block_n), blocks, blocks * ceil_div(p.seqlen_k, plan.block_n),
          uint64_t(plan.block_m) / 32};
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

TEST_CASE("07.1 gives the reference's O and LSE on awkward problems") {
  if (is_tma()) tests::require_pass_awkward();
}

TEST_CASE("07.1 is right whatever the inputs are drawn from") {
  if (!is_tma() || no_hopper()) return;
  for (Dtype dtype : {Dtype::bf16, Dtype::fp16}) {
    for (Dist dist : {Dist::normal, Dist::uniform, Dist::outliers, Dist::large, Dist::negative}) {
      tests::require_pass(make_problem(40, 130, 64, dtype), dist);
      tests::require_pass(causal(40, 130, 64, dtype), dist);
    }
  }
}

TEST_CASE("07.1 is right around the edges of its tiles") {
  if (!is_tma() || no_hopper()) return;
  for (int seqlen_q : {1, 127, 128, 129, 193}) {
    for (int seqlen_k : {1, 15, 16, 63, 65, 95, 96, 97, 128, 193, 289}) {
      if (tests::watched() && (seqlen_q != 129 || seqlen_k > 97)) continue;
      for (Dtype dtype : {Dtype::bf16, Dtype::fp16}) {
        tests::require_pass(make_problem(seqlen_q, seqlen_k, 64, dtype));
        tests::require_pass(causal(seqlen_q, seqlen_k, 128, dtype));
      }
    }
  }
}

TEST_CASE("07.1 is right where ragged tiles lie beside other heads") {
  if (!is_tma() || no_hopper()) return;
  for (int head_dim : {64, 128}) {
    Problem p = make_problem(130, 75, head_dim);
    p.batch = 2;
    p.heads = 4;
    p.kv_heads = 2;
    for (bool is_causal : {false, true}) {
      p.causal = is_causal;
      tests::require_pass(p, Dist::large);
    }
  }
}

TEST_CASE("07.1 does not depend on the order of threads, warps and blocks, nor on when tiles land") {
  if (!is_tma()) return;
  for (int head_dim : {64, 128}) {
    Problem p = causal(140, 300, head_dim);
    p.heads = 2;
    tests::require_pass_shuffled(p);
  }
}

TEST_CASE("07.1 is right whether the maximum grows at every key tile, never, or too little to rescale") {
  if (!is_tma() || no_hopper()) return;
  for (Dtype dtype : {Dtype::bf16, Dtype::fp16}) {
    const Problem p = make_problem(20, 300, 64, dtype);
    require_scores_pass(p, [](int j) { return 3.0f * j; });
    require_scores_pass(p, [](int j) { return -3.0f * j; });
    require_scores_pass(p, [](int j) { return -0.03f * j; });           // 5.4 nats in 180 keys: a lag of 2^8 is used up
    require_scores_pass(p, [](int j) { return j == 5 ? 5.5f : 0.f; });  // just below e^(8 ln 2) = e^5.55
    require_scores_pass(p, [](int j) { return j == 5 ? 5.6f : 0.f; });  // just above
    require_scores_pass(p, [](int j) { return j % 37 == 0 ? 80.f : -40.f; });
  }
}

TEST_CASE("07.1 asks for the bytes its formula says: of a box, those inside of the tensor") {
  if (!is_tma() || no_hopper()) return;
  for (const Problem& p : counted_problems()) tests::require_traffic(p);
  tests::require_traffic(causal(200, 200, 64));
  tests::require_traffic(causal(150, 40, 128));  // query tiles that see no key
  tests::require_traffic(causal(40, 250, 64));
}

TEST_CASE("07.1 has one thread ask for a tile, one instruction each, and no thread copy") {
  if (!counts_tma()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const Meetings m = meetings_of(p);
    const Counts counts = tests::counts_of(p);
    CHECK(counts.async_copies == 0);
    CHECK(counts.tma_loads == m.blocks + 2 * m.pairs);
    CHECK(counts.tma_stores + counts.tma_reductions == 0);
    CHECK(counts.global_read.requests == 0);
    CHECK(counts.global_read.bytes == counts.tma_global_bytes);
    CHECK(counts.global_read.sectors == counts.global_read.tma_sectors);
    CHECK(counts.global_read.sectors * 32 == counts.global_read.bytes);
    const uint64_t rows = m.blocks * m.block_m + m.pairs * 2 * m.block_n;  // whole boxes
    CHECK(counts.tma_shared_bytes == rows * p.head_dim * 2);
  }
}

TEST_CASE("07.1 reads the bytes that 05's last landing reads: Q once, K and V once a query tile") {
  if (!counts_tma()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const Counts counts = tests::counts_of(p);
    const uint64_t query_tiles = ceil_div(p.seqlen_q, int(meetings_of(p).block_m));
    const uint64_t row = p.head_dim * 2, heads = uint64_t(p.batch) * p.heads;
    CHECK(counts.global_read.bytes == heads * (p.seqlen_q + 2 * query_tiles * p.seqlen_k) * row);
    CHECK(counts.global_write.bytes == heads * p.seqlen_q * (row + 4));
  }
}

TEST_CASE("07.1 waits for a tile by its mbarrier, and for the other warps once per key tile") {
  if (!counts_tma()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const Meetings m = meetings_of(p);
    const Counts counts = tests::counts_of(p);
    CHECK(counts.mbarrier_arrivals == m.pairs);
    const uint64_t for_q = p.head_dim == 64 ? m.blocks : 0;  // before the loop, where fragments of Q are kept
    CHECK(counts.mbarrier_waits == m.warps * 32 * (m.pairs + for_q));
    // The initialisation, a key tile each, and O on its way through shared memory: a warp alone.
    CHECK(counts.barriers == m.warps * (m.blocks + m.pairs + 2 * m.blocks));
  }
}

TEST_CASE("07.1 multiplies as 05's last landing does: the same mmas, ldmatrixes and exponentials") {
  if (!counts_tma()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const Meetings m = meetings_of(p);
    const Counts counts = tests::counts_of(p);
    CHECK(counts.mmas == 2 * m.pairs * m.block_m * m.block_n * p.head_dim / (16 * 8 * 16));
    const uint64_t patches = p.head_dim / 16;  // 16 x 16 patches across a row: one ldmatrix each
    const uint64_t q = (p.head_dim == 64 ? m.blocks : m.pairs) * m.warps * 2 * patches;
    CHECK(counts.ldmatrixes == q + m.pairs * m.warps * 2 * (m.block_n / 16) * patches);
    CHECK(counts.exps == m.pairs * m.block_m * m.block_n + m.blocks * m.warps * 32 * 4);  // and one rescaling
    CHECK(counts.shared_write.bytes == m.blocks * m.block_m * p.head_dim * 2);            // O alone
  }
}

TEST_CASE("07.1 reads what the engine swizzled without bank conflicts") {
  if (!counts_tma()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const Counts counts = tests::counts_of(p);
    CHECK(counts.shared_read.conflicts == 0);
    CHECK(counts.shared_write.conflicts == 0);
  }
}

TEST_CASE("07.1 says how much shared memory its tiles take") {
  if (!is_tma()) return;
  for (int head_dim : {64, 128}) {
    const Problem p = make_problem(64, 64, head_dim);
    const Plan plan = plan_for(tests::step(), p, tests::device());
    CHECK(plan.shared_bytes == (plan.block_m + 4 * plan.block_n) * size_t(head_dim) * 2);
  }
}

TEST_CASE("07.1 runs on compute capability 9.0, and refuses older cards and newer ones by name") {
  if (!is_tma()) return;
  Device device;
  device.name = "a card";
  device.shared_bytes_per_block = 227 * 1024;
  for (int head_dim : {64, 128}) {
    const Problem p = make_problem(64, 64, head_dim);
    device.compute_capability = 90;
    CHECK(plan_for(tests::step(), p, device).refusal.empty());
    for (int capability : {75, 80, 86, 89}) {
      device.compute_capability = capability;
      const std::string refusal = plan_for(tests::step(), p, device).refusal;
      CHECK_THAT(refusal, ContainsSubstring("needs a GPU of compute capability 9.0, and a card has"));
    }
    for (int capability : {100, 103, 120}) {
      device.compute_capability = capability;
      const std::string refusal = plan_for(tests::step(), p, device).refusal;
      CHECK_THAT(refusal, ContainsSubstring("instructions that compute capability 9.0 alone has"));
    }
  }
  device.compute_capability = 90;
  device.shared_bytes_per_block = 48 * 1024;
  for (int head_dim : {64, 128}) {
    const std::string refusal = plan_for(tests::step(), make_problem(64, 64, head_dim), device).refusal;
    CHECK_THAT(refusal, ContainsSubstring("in shared memory"));
  }
}

TEST_CASE("07.1 refuses what it can't do, by name") {
  if (!is_tma() || no_hopper()) return;
  tests::require_refused(make_problem(64, 64, 64, Dtype::fp32), "not fp32");
  tests::require_refused(make_problem(64, 64, 32), "head_dim 64, 128, not 32");
  tests::require_refused(make_problem(64, 64, 256), "head_dim 64, 128, not 256");
}
