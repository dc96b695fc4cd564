// 06 backward: gradients that are right everywhere, in memory that grows with the rows and not with their pairs, from
// P's that are computed again and never stored.
#include <cmath>
#include <cstdlib>
#include <string>

#include "common/check/check.h"
#include "common/device/memory.h"
#include "common/tests/catch.h"
#include "common/tests/step_tests.h"

using namespace flash;
using tests::make_problem;

namespace {

bool tensor_cores() { return tests::step().uses_tensor_cores; }  // 06.2 to 06.4
bool two_teams() { return tests::step().number >= "06.3"; }
bool takes_deterministic() { return tests::step().number == "06.4"; }

// A problem with every unevenness: batch, groups, lengths that no tile divides, and causal rows that see no key.
Problem uneven(int head_dim, int seqlen_q = 75, int seqlen_k = 41) {
  Problem p = make_problem(seqlen_q, seqlen_k, head_dim);
  p.batch = 2;
  p.heads = 4;
  p.kv_heads = 2;
  p.causal = true;
  return p;
}

Outputs run(const Problem& p, uint64_t seed = 1) {
  return run_once(tests::step(), p, make_inputs(p, Direction::backward, Dist::normal, seed));
}

// Pairs of a query and a key that it sees.
uint64_t visible_pairs(const Problem& p) {
  return uint64_t(std::llround(flops(p, Direction::forward) / 4 / p.head_dim));
}

// The CPU back end as another card, for as long as it lives.
class OnDevice {
 public:
  explicit OnDevice(const std::string& name) { setenv("EMU_DEVICE", name.c_str(), 1); }
  ~OnDevice() { before_ ? setenv("EMU_DEVICE", saved_.c_str(), 1) : unsetenv("EMU_DEVICE"); }

 private:
  const char* before_ = std::getenv("EMU_DEVICE");
  std::string saved_ = before_ ? before_ : "";
};

// How far apart two tensors are at most, against the largest element.
double difference(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double most = 0, scale = 1e-30;
  for (size_t i = 0; i < a.size(); ++i) {
    REQUIRE(std::isfinite(a[i]));
    most = std::fmax(most, std::fabs(double(a[i]) - b[i]));
    scale = std::fmax(scale, std::fabs(double(b[i])));
  }
  return most / scale;
}

}  // namespace

TEST_CASE("06 gives the reference's dQ, dK and dV on awkward problems") { tests::require_pass_awkward(); }

TEST_CASE("06 does not depend on the order of threads, warps and blocks") {
  Problem p = make_problem(35, 40, 64);
  p.heads = 2;
  p.kv_heads = 1;
  p.causal = true;
  tests::require_pass_shuffled(p, tests::watched() ? 2 : 5);
}

TEST_CASE("06 runs on every card it claims to, with the tiles that fit there") {
  if (tests::on_gpu()) return;
  for (const char* card : {"sm_75", "sm_80", "sm_86", "sm_89", "sm_90"}) {
    INFO(card);
    const OnDevice on(card);
    for (int head_dim : {64, 128}) {
      const std::string reason = plan_for(tests::step(), uneven(head_dim), query_device()).refusal;
      if (tensor_cores() && std::string(card) == "sm_75") {
        CHECK_THAT(reason, ContainsSubstring("8.0"));
        continue;
      }
      REQUIRE(reason.empty());
      tests::require_pass(uneven(head_dim, 70, tests::watched() ? 45 : 131));
      if (tests::watched()) tests::require_traffic(uneven(head_dim, 70, tests::watched() ? 45 : 131));
    }
  }
}

TEST_CASE("06 asks for the bytes its formula says") {
  if (!tests::watched()) return;
  for (int head_dim : tests::step().head_dims) {
    for (bool deterministic : {false, true}) {
      if (deterministic && !takes_deterministic()) continue;
      for (Problem p : {uneven(head_dim), uneven(head_dim, 33, 150), make_problem(1, 1, head_dim),
                        make_problem(128, 128, head_dim), make_problem(5, 130, head_dim)}) {
        p.deterministic = deterministic;
        tests::require_traffic(p);
      }
    }
  }
}

TEST_CASE("06 keeps no array of scores: memory grows with the rows") {
  for (int head_dim : tests::step().head_dims) {
    size_t bytes_before = 0;
    for (int seqlen : {256, 512}) {
      const Problem p = make_problem(seqlen, seqlen, head_dim);
      Execution execution(tests::step(), p, make_inputs(p, Direction::backward, Dist::normal, 1));
      const size_t row_floats = tensor_cores() ? head_dim + 2 : 1;  // dQ in fp32, LSE and D; 06.1: D
      size_t bytes = 0, workspace = 0;
      for (const LedgerEntry& entry : device_ledger()) {
        bytes += entry.bytes;
        if (entry.label == "workspace") workspace += entry.bytes;
      }
      CHECK(workspace == seqlen * row_floats * 4);
      CHECK(workspace == execution.plan().workspace_bytes);
      // Q, K, V, O, dO, dQ, dK, dV, the LSE and the workspace, and nothing else.
      CHECK(bytes == seqlen * (8 * head_dim * dtype_bytes(p.dtype) + 4) + workspace);
      if (bytes_before) CHECK(bytes == 2 * bytes_before);
      bytes_before = bytes;
    }
  }
}

TEST_CASE("06 gives rows that see no key a gradient of exactly zero") {
  for (int head_dim : tests::step().head_dims) {
    const Problem p = uneven(head_dim);
    const Outputs out = run(p);
    const int blind = p.seqlen_q - p.seqlen_k;
    for (size_t i = 0; i < out.dq.size(); ++i) {
      if (int(i / head_dim % p.seqlen_q) < blind) REQUIRE(out.dq[i] == 0);
    }
    Problem all_blind = make_problem(70, 1, head_dim);  // keys that only the last query sees: P = 1, so dQ = dK = 0
    all_blind.causal = true;
    const Outputs one = run(all_blind);
    const Inputs inputs = make_inputs(all_blind, Direction::backward, Dist::normal, 1);
    for (int c = 0; c < head_dim; ++c) CHECK(std::fabs(one.dv[c] - inputs.d_o[69 * head_dim + c]) < 0.02);
  }
}

TEST_CASE("06 sums dK and dV over the query heads that share a key head") {
  for (int head_dim : tests::step().head_dims) {
    Problem shared = make_problem(40, 37, head_dim);
    shared.heads = 3;
    const Inputs inputs = make_inputs(shared, Direction::backward, Dist::normal, 5);
    const Outputs grouped = run_once(tests::step(), shared, inputs);

    Problem own = shared;  // every query head has a copy of the keys
    own.kv_heads = 3;
    Inputs repeated = inputs;
    for (int copy = 1; copy < 3; ++copy) {
      repeated.k.insert(repeated.k.end(), inputs.k.begin(), inputs.k.end());
      repeated.v.insert(repeated.v.end(), inputs.v.begin(), inputs.v.end());
    }
    const Outputs single = run_once(tests::step(), own, repeated);
    std::vector<float> dk(inputs.k.size()), dv(inputs.v.size());
    for (size_t i = 0; i < single.dk.size(); ++i) {
      dk[i % dk.size()] += single.dk[i];
      dv[i % dv.size()] += single.dv[i];
    }
    const double tolerance = shared.dtype == Dtype::fp32 ? 1e-5 : 1e-2;  // the three are rounded before they are summed
    CHECK(difference(grouped.dk, dk) < tolerance);
    CHECK(difference(grouped.dv, dv) < tolerance);
    CHECK(difference(grouped.dq, single.dq) < tolerance);
  }
}

TEST_CASE("06 computes each weight once per key tile, and stores none") {
  if (!tests::watched()) return;
  const Problem p = uneven(64);
  const Counts counts = tests::counts_of(p);
  if (!tensor_cores()) {
    CHECK(counts.exps == visible_pairs(p));
  } else {
    CHECK(counts.exps == uint64_t(p.batch * p.heads) * 128 * 128);  // one tile of 128 x 128 per head
    Problem two = make_problem(256, 256, 64);
    CHECK(tests::counts_of(two).exps == 256 * 256);
    two.causal = true;  // of four tiles three are seen
    CHECK(tests::counts_of(two).exps == 3 * 128 * 128);
  }
}

TEST_CASE("06 has no bank conflicts") {
  if (!tests::watched()) return;
  for (int head_dim : tests::step().head_dims) {
    const Counts counts = tests::counts_of(make_problem(128, 128, head_dim));
    CHECK(counts.shared_read.conflicts == 0);
    CHECK(counts.shared_write.conflicts == 0);
  }
}

TEST_CASE("06.1 moves dK and dV out of its registers every 512 queries") {
  if (tensor_cores()) return;
  Problem p = make_problem(tests::watched() ? 530 : 16384, 5, 64);
  if (tests::watched()) {
    tests::require_traffic(p);  // 34 query tiles: two moves
    p.heads = 2;                // of 265 queries, one move
    p.seqlen_q = 256;           // 32 query tiles: exactly one
    tests::require_traffic(p);
  } else {
    tests::require_pass(p);  // in one running sum, dK and dV would be refused
  }
}

TEST_CASE("06.1 to 06.3 refuse --deterministic by name") {
  if (takes_deterministic()) return;
  Problem p = make_problem(8, 8, 64);
  p.deterministic = true;
  tests::require_refused(p, "4_deterministic");
}

TEST_CASE("06.4 --deterministic gives the same bits whatever runs first") {
  if (!takes_deterministic() || !plan_for(tests::step(), uneven(64), tests::device()).refusal.empty()) return;
  for (Dtype dtype : {Dtype::bf16, Dtype::fp16}) {
    for (int head_dim : {64, 128}) {
      Problem p = tests::watched() ? uneven(head_dim) : uneven(head_dim, 140, 150);
      p.batch = 1;
      p.dtype = dtype;
      p.deterministic = true;
      tests::require_pass(p);
      const Outputs first = run(p);
      for (int again = 1; again <= 2; ++again) {
        setenv("EMU_SEED", std::to_string(again).c_str(), 1);  // the CPU back end's order of threads and blocks
        const Outputs next = run(p);
        unsetenv("EMU_SEED");
        CHECK(next.dq == first.dq);
        CHECK(next.dk == first.dk);
        CHECK(next.dv == first.dv);
      }
    }
  }
}

TEST_CASE("06.4 --deterministic passes where the other order does") {
  if (!takes_deterministic()) return;
  for (const tests::Case& c : tests::awkward_cases()) {
    Problem p = c.problem;
    if (p.dtype == Dtype::fp16) continue;
    p.deterministic = true;
    tests::require_pass(p, c.dist, c.seed);
  }
}

TEST_CASE("06.2 to 06.4 multiply five times per tile; --deterministic seven times and without atomics") {
  if (!tests::watched() || !tensor_cores()) return;
  for (int head_dim : {64, 128}) {
    Problem p = make_problem(256, 256, head_dim);
    const uint64_t product = uint64_t(2) * 256 * 256 * head_dim / 4096;  // an m16n8k16 is 4096 operations
    Counts counts = tests::counts_of(p);
    CHECK(counts.mmas == 5 * product);
    CHECK(counts.atomics == uint64_t(2) * 256 * head_dim / 32);  // dQ once per key tile of 128, a warp at a time
    if (!takes_deterministic()) continue;
    p.deterministic = true;
    counts = tests::counts_of(p);
    CHECK(counts.mmas == 7 * product);
    CHECK(counts.atomics == 0);
  }
}
