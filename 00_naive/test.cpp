// 00_naive: right everywhere, and as wasteful as its chapter says.
#include "common/tests/catch.h"
#include "common/tests/step_tests.h"

using namespace flash;
using tests::make_problem;

namespace {

// Unequal lengths, a ragged run of keys, several rows per block of the softmax, grouped heads.
std::vector<Problem> counted_problems() {
  std::vector<Problem> problems;
  for (int head_dim : {32, 64, 128}) {
    problems.push_back(make_problem(32, 32, head_dim));
    problems.push_back(make_problem(5, 150, head_dim));
    Problem grouped = make_problem(21, 9, head_dim);  // causal: rows that see no key
    grouped.batch = 2;
    grouped.heads = 4;
    grouped.kv_heads = 2;
    grouped.causal = true;
    problems.push_back(grouped);
  }
  return problems;
}

const KernelCounts& kernel(const WatchReport& report, const std::string& name) {
  for (const KernelCounts& k : report.kernels) {
    if (k.name == name) return k;
  }
  FAIL("no kernel " << name << " in the report");
  throw 0;
}

}  // namespace

TEST_CASE("00 gives the reference's O and LSE on awkward problems") { tests::require_pass_awkward(); }

TEST_CASE("00 is right whatever the inputs are drawn from") {
  // Scores far below zero, or so large that exp() of one overflows.
  for (Dist dist : {Dist::normal, Dist::uniform, Dist::outliers, Dist::large, Dist::negative}) {
    Problem p = make_problem(3, 19, 64);
    p.softmax_scale = 4.0f;
    tests::require_pass(p, dist);
  }
}

TEST_CASE("00 does not depend on the order of threads, warps and blocks") {
  Problem p = make_problem(19, 37, 32);
  p.heads = 2;
  p.causal = true;
  tests::require_pass_shuffled(p);
}

TEST_CASE("00 refuses what a grid or the memory can't hold") {
  tests::require_refused(make_problem(1, 2000000000, 64), "00_naive");
  tests::require_refused(make_problem(2000000000, 2000000000, 64), "00_naive keeps every score in global memory");
  if (tests::device().global_bytes > size_t(9) << 30) {
    tests::require_refused(make_problem(1, 65535 * 128 + 1, 32), "CUDA allows 65535 rows");
  }
}

TEST_CASE("00's workspace is one float per pair of query and key") {
  Problem p = make_problem(1000, 3000, 64);
  p.batch = 2;
  p.heads = 8;
  REQUIRE(plan_for(tests::step(), p, tests::device()).workspace_bytes == size_t(2) * 8 * 1000 * 3000 * 4);
  const Problem long_one = make_problem(100000, 100000, 64);  // N * N is more than an int holds
  REQUIRE(plan_for(tests::step(), long_one, tests::device()).workspace_bytes == size_t(40000000000));
}

TEST_CASE("00 asks for the bytes its formula says") {
  for (const Problem& p : counted_problems()) tests::require_traffic(p);
}

TEST_CASE("00 writes N x N scores twice and reads them back twice") {
  if (!tests::watched()) return;
  for (const Problem& p : counted_problems()) {
    INFO(tests::describe(p, Dist::normal));
    const WatchReport report = tests::report_of(p);
    const uint64_t rows = q_rows(p);
    const uint64_t matrix = rows * p.seqlen_k * 4;  // bytes of S, and of P
    const KernelCounts scores = kernel(report, "scores_kernel");
    const KernelCounts softmax = kernel(report, "softmax_kernel");
    const KernelCounts output = kernel(report, "output_kernel");

    CHECK(scores.total.global_write.bytes == matrix);                  // S goes out
    CHECK(softmax.distinct_read_bytes == matrix);                      // and comes back
    CHECK(softmax.total.global_write.bytes == matrix + rows * 4);      // P goes out, and the LSE
    CHECK(output.distinct_read_bytes == matrix + kv_elements(p) * 4);  // and comes back, with V
    CHECK(output.total.global_write.bytes == q_elements(p) * 4);

    // What the threads ask for is more: the softmax reads S three times, and every column of O reads P again.
    CHECK(softmax.total.global_read.bytes == 3 * matrix);
    CHECK(scores.total.global_read.bytes == 2 * p.head_dim * matrix);
    CHECK(output.total.global_read.bytes == 2 * p.head_dim * matrix);
    CHECK(report.total().exps == 2 * matrix / 4);
  }
}

TEST_CASE("00 reads K without coalescing: a sector for every lane") {
  if (!tests::watched()) return;
  for (int head_dim : {32, 64, 128}) {
    const Problem p = make_problem(6, 96, head_dim);
    INFO(tests::describe(p, Dist::normal));
    const WatchReport report = tests::report_of(p);

    const AccessCounts scores = kernel(report, "scores_kernel").total.global_read;
    const uint64_t k_requests = 6 * 96 / 32 * head_dim, q_requests = k_requests;
    CHECK(scores.requests == k_requests + q_requests);
    CHECK(scores.sectors == 32 * k_requests + q_requests);  // of Q all lanes ask for the same float

    const AccessCounts output = kernel(report, "output_kernel").total.global_read;
    const uint64_t v_requests = uint64_t(6) * head_dim / 32 * 96, p_requests = v_requests;
    CHECK(output.requests == v_requests + p_requests);
    CHECK(output.sectors == 4 * v_requests + p_requests);  // of V 32 lanes read side by side: 128 bytes
  }
}
