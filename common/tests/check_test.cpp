// The checker itself: right kernels pass, however they sum and round; wrong ones are refused in words that help.
#include "common/check/check.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/problem/dtype.h"
#include "common/problem/layout.h"
#include "common/problem/reference.h"
#include "common/tests/catch.h"
#include "common/tests/toy_attention.h"

using namespace flash;

namespace {

const Dtype kDtypes[] = {Dtype::fp32, Dtype::fp16, Dtype::bf16};
const Dist kDists[] = {Dist::normal, Dist::uniform, Dist::outliers, Dist::large, Dist::negative};

Problem problem(int batch, int heads, int kv_heads, int seqlen_q, int seqlen_k, int head_dim = 64) {
  Problem p;
  p.batch = batch;
  p.heads = heads;
  p.kv_heads = kv_heads;
  p.seqlen_q = seqlen_q;
  p.seqlen_k = seqlen_k;
  p.head_dim = head_dim;
  p.softmax_scale = float(1 / std::sqrt(double(head_dim)));
  return p;
}

std::string describe(const Problem& p, Dist dist, uint64_t seed) {
  return std::string(dtype_name(p.dtype)) + " " + dist_name(dist) + " batch " + std::to_string(p.batch) + " heads " +
         std::to_string(p.heads) + "/" + std::to_string(p.kv_heads) + " seqlen " + std::to_string(p.seqlen_q) + "/" +
         std::to_string(p.seqlen_k) + " head_dim " + std::to_string(p.head_dim) + (p.causal ? " causal" : "") +
         " scale " + std::to_string(p.softmax_scale) + " seed " + std::to_string(seed);
}

const TensorCheck& tensor(const CheckResult& result, const std::string& name) {
  for (const TensorCheck& t : result.tensors)
    if (t.tensor == name) return t;
  FAIL("no tensor " << name);
  throw 0;
}

// How many times the bound the worst element of the tensor is off.
double excess(const TensorCheck& t) {
  if (t.max_bound == 0) return t.max_error == 0 ? 0 : std::numeric_limits<double>::infinity();
  return t.max_error / t.max_bound;
}

CheckResult check_fault(const Problem& p, Fault fault, Dist dist = Dist::normal) {
  const Inputs in = make_inputs(p, Direction::forward, dist, 5);
  ForwardVariant variant;
  variant.fault = fault;
  Outputs out;
  toy_forward(p, in, variant, &out);
  return check_forward(p, in, out);
}

CheckResult check_backward_fault(const Problem& p, BackwardFault fault, Dist dist = Dist::normal) {
  const Inputs in = make_inputs(p, Direction::backward, dist, 5);
  Outputs out;
  toy_forward(p, in, {}, &out);
  BackwardVariant variant;
  variant.fault = fault;
  toy_backward(p, in, variant, &out);
  return check_backward(p, in, out);
}

// Refused by far, with these words.
void require_refused(const CheckResult& result, const std::string& tensor_name, const std::string& words) {
  INFO(result.message);
  REQUIRE(result.verdict == Verdict::fail);
  const TensorCheck t = tensor(result, tensor_name);
  REQUIRE(t.verdict == Verdict::fail);
  CHECK(excess(t) > 10);
  CHECK(t.wrong > 0);
  CHECK_THAT(result.message, ContainsSubstring(tensor_name + " is wrong: "));
  CHECK_THAT(result.message, ContainsSubstring(words));
}

}  // namespace

// ---- right kernels ----

TEST_CASE("checker: right kernels pass, whatever their order of sums and their exp()") {
  const int shapes[][5] = {{1, 1, 1, 1, 1},  {1, 2, 1, 1, 2},  {1, 1, 1, 2, 2},   {2, 2, 1, 3, 1},  {1, 3, 3, 33, 31},
                           {1, 4, 2, 5, 65}, {1, 2, 1, 40, 7}, {1, 1, 1, 1, 257}, {1, 1, 1, 65, 2}, {1, 1, 1, 70, 129}};
  double worst_max = 0, worst_rms = 0;
  std::string worst_max_case;
  int run = 0;
  for (Dtype dtype : kDtypes) {
    for (Dist dist : kDists) {
      for (const int* s : shapes) {
        for (int head_dim : {32, 128}) {
          for (float factor : {1.0f, 0.05f, 8.0f}) {
            if (factor != 1.0f && s[3] * s[4] > 5000) continue;
            Problem p = problem(s[0], s[1], s[2], s[3], s[4], head_dim);
            p.dtype = dtype;
            p.softmax_scale *= factor;
            p.causal = run % 2 == 1;
            const uint64_t seed = uint64_t(run);
            const Inputs in = make_inputs(p, Direction::backward, dist, seed);
            ForwardVariant forward;
            BackwardVariant backward;
            forward.dots = backward.dots = DotOrder(run % 3);
            forward.exp = backward.exp = Exp(run / 2 % 4);
            const int tiles[] = {1, 16, 32, 64, 128};
            forward.tile_n = tiles[run % 5];
            forward.materialised = run % 7 == 0;
            backward.backwards = run % 3 == 0;
            backward.scale_early = run % 11 == 0;
            ++run;
            Outputs out;
            toy_forward(p, in, forward, &out);
            toy_backward(p, in, backward, &out);
            const CheckResult result = check_backward(p, in, out);
            INFO(describe(p, dist, seed) << "\n" << result.message);
            REQUIRE(result.verdict == Verdict::pass);
            REQUIRE(result.tensors.size() == 5);
            for (const TensorCheck& t : result.tensors) {
              REQUIRE(t.rows_checked == t.rows_total);
              if (excess(t) > worst_max) worst_max_case = t.tensor + " of " + describe(p, dist, seed);
              worst_max = std::max(worst_max, excess(t));
              if (t.rms_bound > 0) worst_rms = std::max(worst_rms, t.rms_error / t.rms_bound);
            }
          }
        }
      }
    }
  }
  INFO("the closest came to " << worst_max << " of its bound (" << worst_max_case << "), in RMS to " << worst_rms);
  CHECK(worst_max > 0.1);  // the bounds mean something
}

TEST_CASE("checker: the exact answer, rounded, passes") {
  for (Dtype dtype : kDtypes) {
    for (bool causal : {false, true}) {
      Problem p = problem(2, 4, 2, 37, 29);
      p.dtype = dtype;
      p.causal = causal;
      const Inputs in = make_inputs(p, Direction::backward, Dist::outliers, 1);
      const ReferenceForward r = reference_forward(p, in);
      const ReferenceBackward g = reference_backward(p, in);
      Outputs out;
      for (double x : r.o) out.o.push_back(round_to(dtype, float(x)));
      for (double x : r.softmax_lse) out.softmax_lse.push_back(float(x));
      CHECK(check_forward(p, in, out).verdict == Verdict::pass);
    }
  }
}

TEST_CASE("checker: passing says so in one line") {
  const Problem p = problem(1, 2, 1, 20, 30);
  const CheckResult result = check_fault(p, Fault::none);
  CHECK(result.verdict == Verdict::pass);
  CHECK(result.message.find('\n') == std::string::npos);
  CHECK_THAT(result.message, ContainsSubstring("all 40 rows checked against fp64"));
  CHECK(std::string(verdict_name(result.verdict)) == "pass");
}

// ---- wrong kernels: forward ----

const std::string kFirstNan = "hold the NaN that memory starts with: never written, or computed from what nobody wrote";

TEST_CASE("checker refuses constants, stale output and what was never written") {
  for (Dtype dtype : kDtypes) {
    Problem p = problem(2, 4, 2, 150, 133);
    p.dtype = dtype;
    require_refused(check_fault(p, Fault::constant), "O", "every wrong element is 0.125 (constant output)");
    require_refused(check_fault(p, Fault::constant), "LSE", "every wrong element is 4 (constant output)");
    require_refused(check_fault(p, Fault::zeros), "O", "every wrong element is 0: was anything written there?");
    require_refused(check_fault(p, Fault::stale), "O",
                    "nothing to do with the expected ones: left over from another run");
  }
  const Problem p = problem(2, 4, 2, 150, 133);
  require_refused(check_fault(p, Fault::unwritten_tail_rows), "O",
                  "every row past 127 is wrong; all wrong elements " + kFirstNan);
  require_refused(check_fault(p, Fault::last_columns), "O",
                  "only the last 3 columns are wrong; all wrong elements " + kFirstNan);
  require_refused(check_fault(p, Fault::last_columns), "O", "LSE is right, so the scores, the maximum and the sum are");
}

TEST_CASE("checker refuses a skipped last tile of keys") {
  for (Dtype dtype : kDtypes) {
    Problem p = problem(1, 2, 1, 50, 133);
    p.dtype = dtype;
    const CheckResult result = check_fault(p, Fault::skipped_tail_keys);
    require_refused(result, "O", "if the keys past 127 (a last tile of fewer than 128 keys) are left out");
    require_refused(result, "LSE", "if the keys past 127 (a last tile of fewer than 128 keys) are left out");
    p.seqlen_k = 129;  // one key of 129
    require_refused(check_fault(p, Fault::skipped_tail_keys), "LSE", "if the keys past 127");
  }
}

TEST_CASE("checker refuses exponentials without the maximum, and says so where it can be known") {
  Problem p = problem(1, 2, 1, 40, 90);
  const CheckResult overflow = check_fault(p, Fault::no_max, Dist::large);
  require_refused(overflow, "O", "in the rows with a score above 88, where exp() overflows, and in no other");
  require_refused(overflow, "O", "was the row's maximum subtracted before exp()?");
  const CheckResult underflow = check_fault(p, Fault::max_from_zero, Dist::negative);
  require_refused(underflow, "O", "does the running maximum start at -infinity?");
  require_refused(underflow, "LSE", "infinity in all wrong elements");
  // NaN for another reason isn't blamed on the maximum.
  const Inputs in = make_inputs(p, Direction::forward, Dist::large, 1);
  Outputs out;
  toy_forward(p, in, {}, &out);
  out.o[64 * 3 + 7] = -std::numeric_limits<float>::infinity() + std::numeric_limits<float>::infinity();
  const CheckResult one = check_forward(p, in, out);
  require_refused(one, "O", "NaN in all wrong elements");
  CHECK(one.message.find("maximum subtracted") == std::string::npos);
  CHECK(tensor(one, "O").wrong == 1);
  CHECK(tensor(one, "O").first_index == std::vector<int>{0, 0, 3, 7});
  // Without the maximum scores of a few are no problem: the same kernel passes on N(0, 1).
  CHECK(check_fault(p, Fault::no_max, Dist::normal).verdict == Verdict::pass);
}

TEST_CASE("checker refuses an online softmax that rescales wrongly") {
  for (Dtype dtype : kDtypes) {
    Problem p = problem(1, 2, 2, 60, 100);
    p.dtype = dtype;
    const CheckResult accumulator = check_fault(p, Fault::unscaled_accumulator);
    require_refused(accumulator, "O", "look at what O alone goes through");
    CHECK(tensor(accumulator, "LSE").verdict == Verdict::pass);
    require_refused(check_fault(p, Fault::unscaled_sum), "O", "right up to a factor of its own");
    require_refused(check_fault(p, Fault::unscaled_sum), "LSE", "LSE is wrong");
    require_refused(check_fault(p, Fault::dropped_tile_sum), "O",
                    "look at the division by the row's sum, and at what rescales it");
    require_refused(check_fault(p, Fault::no_division), "O", "right up to a factor of its own");
    // One tile: nothing to rescale, nothing wrong.
    p.seqlen_k = 32;
    CHECK(check_fault(p, Fault::unscaled_accumulator).verdict == Verdict::pass);
  }
}

TEST_CASE("checker refuses a wrong causal edge and names it") {
  for (Dtype dtype : kDtypes) {
    for (int seqlen_k : {70, 90, 50}) {
      Problem p = problem(1, 2, 1, 70, seqlen_k);
      p.causal = true;
      p.dtype = dtype;
      require_refused(check_fault(p, Fault::causal_one_more), "O",
                      "the causal mask lets each row see one key too many");
      require_refused(check_fault(p, Fault::causal_one_less), "O", "the causal mask takes one key too many");
      require_refused(check_fault(p, Fault::causal_ignored), "O", "the causal mask is left out");
      if (seqlen_k != 70)
        require_refused(check_fault(p, Fault::causal_top_left), "O", "the causal mask is aligned to the top left");
      else
        CHECK(check_fault(p, Fault::causal_top_left).verdict == Verdict::pass);
    }
    Problem p = problem(1, 1, 1, 60, 40);
    p.causal = true;
    p.dtype = dtype;
    require_refused(check_fault(p, Fault::no_key_rows_nan), "O", "only the rows that see no key are wrong");
  }
}

TEST_CASE("checker refuses wrong heads, swapped K and V, wrong scales") {
  for (Dtype dtype : kDtypes) {
    Problem p = problem(2, 4, 2, 40, 50);
    p.dtype = dtype;
    require_refused(check_fault(p, Fault::wrong_kv_head), "O", "query head h reads key/value head h % kv_heads");
    require_refused(check_fault(p, Fault::swapped_kv), "O", "K and V are swapped");
    require_refused(check_fault(p, Fault::no_scale), "O", "softmax_scale is left out");
    require_refused(check_fault(p, Fault::only_one_head), "O", "only head 1 is wrong, and every row of it");
  }
}

TEST_CASE("checker refuses a wrong LSE though O is right") {
  for (Dtype dtype : kDtypes) {
    Problem p = problem(1, 2, 1, 40, 50);
    p.dtype = dtype;
    const CheckResult base2 = check_fault(p, Fault::lse_in_base2);
    require_refused(base2, "LSE", "LSE is in base 2: multiply by log(2) = 0.6931");
    CHECK(tensor(base2, "O").verdict == Verdict::pass);
    require_refused(check_fault(p, Fault::lse_without_sum), "LSE",
                    "LSE is the row's maximum alone: log(sum) is missing");
  }
}

// ---- wrong kernels: backward ----

TEST_CASE("checker refuses wrong gradients") {
  for (Dtype dtype : kDtypes) {
    Problem p = problem(1, 4, 2, 70, 75);
    p.causal = true;
    p.dtype = dtype;
    const CheckResult d_of_d_o = check_backward_fault(p, BackwardFault::d_of_d_o);
    require_refused(d_of_d_o, "dQ", "dV is right, so P is: look at dS = P (dP - D), at D and at softmax_scale");
    require_refused(d_of_d_o, "dK", "dK is wrong");
    require_refused(check_backward_fault(p, BackwardFault::d_left_out), "dQ", "D is left out");
    const CheckResult group = check_backward_fault(p, BackwardFault::group_not_summed);
    require_refused(group, "dK", "only the last query head of a group is counted");
    require_refused(group, "dV", "only the last query head of a group is counted");
    CHECK(tensor(group, "dQ").verdict == Verdict::pass);
    const CheckResult scale = check_backward_fault(p, BackwardFault::dq_without_scale);
    require_refused(scale, "dQ", "softmax_scale is left out of the gradient");
    CHECK(tensor(scale, "dK").verdict == Verdict::pass);
    require_refused(check_backward_fault(p, BackwardFault::dk_without_scale), "dK", "softmax_scale is left out");
    require_refused(check_backward_fault(p, BackwardFault::p_not_normalised), "dQ", "is P = exp(S - LSE)?");
    require_refused(check_backward_fault(p, BackwardFault::p_not_normalised), "dV", "dV is wrong");
    require_refused(check_backward_fault(p, BackwardFault::lse_as_base2), "dV", "dV is wrong");
    require_refused(check_backward_fault(p, BackwardFault::swapped_outputs), "dK", "dV is written where dK belongs");
    require_refused(check_backward_fault(p, BackwardFault::dq_of_last_tile), "dQ", "dK is right, so dS is");
    require_refused(check_backward_fault(p, BackwardFault::causal_ignored), "dV", "the causal mask is left out");
    require_refused(check_backward_fault(p, BackwardFault::unwritten_tail_keys), "dK",
                    "every key past 63 is wrong; all wrong elements " + kFirstNan);
  }
}

TEST_CASE("checker refuses gradients that drift with the length of a running sum") {
  const auto check = [](const Problem& p, int share) {
    const Inputs in = make_inputs(p, Direction::backward, Dist::normal, 5);
    Outputs out;
    toy_forward(p, in, {}, &out);
    BackwardVariant variant;
    variant.share = share;
    toy_backward(p, in, variant, &out);
    return check_backward(p, in, out);
  };
  const int kRunning = 0, kLong = 65536;
  Problem many_queries = problem(1, 2, 1, kLong / 2, 3, 32), many_keys = problem(1, 1, 1, 3, kLong, 32);

  const CheckResult drift = check(many_queries, kRunning);  // as 06.1 once was
  CHECK(drift.verdict == Verdict::fail);
  CHECK(tensor(drift, "dK").verdict == Verdict::fail);
  CHECK(tensor(drift, "dV").verdict == Verdict::fail);
  CHECK(tensor(drift, "dQ").verdict == Verdict::pass);
  CHECK(tensor(drift, "dV").max_error > 3 * tensor(drift, "dV").max_bound);
  const CheckResult keys_drift = check(many_keys, kRunning);
  CHECK(tensor(keys_drift, "dQ").verdict == Verdict::fail);
  CHECK(tensor(keys_drift, "dK").verdict == Verdict::pass);

  CHECK(check(many_queries, 512).verdict == Verdict::pass);  // as 06.1 sums now
  CHECK(check(many_keys, 32).verdict == Verdict::pass);      // a tile's share at a time
  many_queries.dtype = many_keys.dtype = Dtype::fp16;        // rounding to 16 bits hides it: tensor cores sum in one go
  CHECK(check(many_queries, kRunning).verdict == Verdict::pass);
  CHECK(check(many_keys, kRunning).verdict == Verdict::pass);
}

TEST_CASE("checker: dQ of one key is zero; noise passes there, garbage doesn't") {
  for (Dtype dtype : kDtypes) {
    for (Dist dist : kDists) {
      Problem p = problem(1, 2, 1, 20, 1);
      p.dtype = dtype;
      REQUIRE(check_backward_fault(p, BackwardFault::none, dist).verdict == Verdict::pass);
      const CheckResult garbage = check_backward_fault(p, BackwardFault::d_left_out, dist);
      require_refused(garbage, "dQ", "D is left out");
      require_refused(garbage, "dK", "D is left out");
      // In the first causal row as well, among rows that see more.
      p.seqlen_k = 20;
      p.causal = true;
      const Inputs in = make_inputs(p, Direction::backward, dist, 3);
      Outputs out;
      toy_forward(p, in, {}, &out);
      toy_backward(p, in, {}, &out);
      REQUIRE(check_backward(p, in, out).verdict == Verdict::pass);
      for (int c = 0; c < p.head_dim; ++c) out.dq[c] = 0.001f * in.k[c];
      const CheckResult first_row = check_backward(p, in, out);
      INFO(first_row.message);
      REQUIRE(first_row.verdict == Verdict::fail);
      CHECK_THAT(first_row.message, ContainsSubstring("only row 0 is wrong"));
    }
  }
}

TEST_CASE("checker: gradients aren't judged by a wrong O or LSE") {
  const Problem p = problem(1, 1, 1, 20, 20);
  const Inputs in = make_inputs(p, Direction::backward, Dist::normal, 1);
  Outputs out;
  toy_forward(p, in, {}, &out);
  toy_backward(p, in, {}, &out);
  out.softmax_lse[3] += 0.01f;
  const CheckResult result = check_backward(p, in, out);
  CHECK(result.verdict == Verdict::fail);
  CHECK(result.tensors.size() == 2);
  CHECK_THAT(result.message, ContainsSubstring("dQ, dK and dV weren't checked: they are made from O and LSE."));
}

// ---- exactness, indices, samples ----

TEST_CASE("checker: rows that see no key are held to the bit") {
  Problem p = problem(1, 1, 1, 8, 5, 32);
  p.causal = true;
  const Inputs in = make_inputs(p, Direction::backward, Dist::normal, 1);
  Outputs right;
  toy_forward(p, in, {}, &right);
  toy_backward(p, in, {}, &right);
  REQUIRE(check_backward(p, in, right).verdict == Verdict::pass);
  Outputs out = right;
  out.o[1] = 1e-40f;
  CHECK_THAT(check_forward(p, in, out).message,
             ContainsSubstring("O[b 0, h 0, row 0, column 1] is 9.99995e-41, expected 0"));
  out = right;
  out.softmax_lse[2] = -1e30f;
  CHECK_THAT(check_forward(p, in, out).message, ContainsSubstring("LSE[b 0, h 0, row 2] is -1e+30, expected -inf"));
  out = right;
  out.softmax_lse[2] = std::numeric_limits<float>::infinity();
  CHECK(check_forward(p, in, out).verdict == Verdict::fail);
  out = right;
  out.dq[2 * 32 + 31] = -1e-40f;
  CHECK_THAT(check_backward(p, in, out).message, ContainsSubstring("dQ[b 0, h 0, row 2, column 31]"));
  out = right;
  out.softmax_lse[3] = -std::numeric_limits<float>::infinity();  // row 3 sees a key
  CHECK(check_forward(p, in, out).verdict == Verdict::fail);
}

TEST_CASE("checker: first and worst element, their number and their place") {
  const Problem p = problem(2, 3, 3, 10, 12, 32);
  const Inputs in = make_inputs(p, Direction::forward, Dist::normal, 1);
  Outputs out;
  toy_forward(p, in, {}, &out);
  auto element = [&](int b, int h, int i, int c) -> float& { return q_row(out.o.data(), p, b, h, i)[c]; };
  element(0, 2, 4, 5) += 0.01f;
  element(1, 0, 9, 31) += 5;
  element(1, 2, 0, 0) += 0.1f;
  const CheckResult result = check_forward(p, in, out);
  const TensorCheck o = tensor(result, "O");
  CHECK(o.wrong == 3);
  CHECK(o.first_index == std::vector<int>{0, 2, 4, 5});
  CHECK(o.worst_index == std::vector<int>{1, 0, 9, 31});
  CHECK(o.worst_got - o.worst_expected == Approx(5).epsilon(1e-4));
  CHECK_THAT(result.message, ContainsSubstring("O is wrong: 3 of 1920 elements; all 60 rows were checked."));
  CHECK_THAT(result.message, ContainsSubstring("first: O[b 0, h 2, row 4, column 5] is "));
  CHECK_THAT(result.message, ContainsSubstring("worst: O[b 1, h 0, row 9, column 31] is "));
  CHECK(tensor(result, "LSE").verdict == Verdict::pass);
}

TEST_CASE("checker: errors a little past what rounding explains are refused") {
  for (Dtype dtype : kDtypes) {
    Problem p = problem(1, 2, 1, 64, 64);
    p.dtype = dtype;
    const Inputs in = make_inputs(p, Direction::backward, Dist::normal, 2);
    Outputs right;
    toy_forward(p, in, {}, &right);
    toy_backward(p, in, {}, &right);
    const CheckResult passes = check_backward(p, in, right);
    REQUIRE(passes.verdict == Verdict::pass);
    // Bounds are a few units in the last place, not percents.
    const double ulp = ulp_at(dtype, 1.0);
    for (const char* name : {"O", "dQ", "dK", "dV"}) CHECK(tensor(passes, name).max_bound < 32 * ulp);
    CHECK(tensor(passes, "LSE").max_bound < 16 * ulp_at(Dtype::fp32, 1.0));
    for (std::vector<float> Outputs::*member : {&Outputs::o, &Outputs::dq, &Outputs::dk, &Outputs::dv}) {
      Outputs out = right;
      for (float& x : out.*member) x = round_to(dtype, x * float(1 + 16 * ulp));
      CHECK(check_backward(p, in, out).verdict == Verdict::fail);
    }
    Outputs out = right;
    for (float& x : out.softmax_lse) x += 4e-6f;
    CHECK(check_forward(p, in, out).verdict == Verdict::fail);
  }
}

TEST_CASE("checker: rows of every magnitude, down to the subnormal, don't widen each other's bounds") {
  for (Dtype dtype : kDtypes) {
    for (uint64_t seed = 0; seed < 5; ++seed) {
      Problem p = problem(1, 2, 2, 1, 129);
      p.dtype = dtype;
      p.softmax_scale = 2;  // P from 1 down to nothing
      const Inputs in = make_inputs(p, Direction::backward, Dist::outliers, seed);
      Outputs out;
      toy_forward(p, in, {}, &out);
      toy_backward(p, in, {}, &out);
      const CheckResult passes = check_backward(p, in, out);
      INFO(passes.message);
      REQUIRE(passes.verdict == Verdict::pass);
      // The elements that matter: scores of a hundred cost fp32 a hundred ulps; fp16 and bf16 none.
      const double ulps = dtype == Dtype::fp32 ? 2048 : 16;
      for (float& x : out.dv) x = round_to(dtype, x * float(1 + ulps * ulp_at(dtype, 1.0)));
      CHECK(tensor(check_backward(p, in, out), "dV").verdict == Verdict::fail);
      toy_backward(p, in, {}, &out);
      const float largest = *std::max_element(out.dk.begin(), out.dk.end());
      if (largest < 0.01f) continue;  // one key takes the row: dK is zero but for what is left of it
      for (float& x : out.dk) x = round_to(dtype, x * float(1 + ulps * ulp_at(dtype, 1.0)));
      CHECK(tensor(check_backward(p, in, out), "dK").verdict == Verdict::fail);
    }
  }
}

TEST_CASE("checker: errors too small to break the bound alone are refused together") {
  const Problem p = problem(1, 2, 1, 200, 64);
  const Inputs in = make_inputs(p, Direction::forward, Dist::uniform, 2);
  Outputs out;
  toy_forward(p, in, {}, &out);
  const TensorCheck before = tensor(check_forward(p, in, out), "O");
  REQUIRE(before.verdict == Verdict::pass);
  for (size_t row = 0; row < q_rows(p); ++row) {
    float* o = &out.o[row * p.head_dim];
    double square = 0;
    for (int c = 0; c < p.head_dim; ++c) square += double(o[c]) * o[c] / p.head_dim;
    const double error = 1.05 * before.rms_bound * std::sqrt(square);
    for (int c = 0; c < p.head_dim; ++c) o[c] += float(c % 2 ? error : -error);
  }
  const CheckResult result = check_forward(p, in, out);
  INFO(result.message);
  REQUIRE(tensor(result, "O").verdict == Verdict::fail);
  CHECK(tensor(result, "O").wrong == 0);
  CHECK_THAT(result.message, ContainsSubstring("O is wrong: no element alone, but the errors together are too large"));
}

TEST_CASE("checker: right kernels pass on one row, which is one draw of luck") {
  for (Dtype dtype : kDtypes) {
    for (Dist dist : {Dist::normal, Dist::negative}) {
      for (uint64_t seed = 0; seed < 100; ++seed) {
        Problem p = problem(1, 1, 1, 1, 1 + int(seed % 40), 32);
        p.dtype = dtype;
        const Inputs in = make_inputs(p, Direction::backward, dist, seed);
        ForwardVariant forward;
        BackwardVariant backward;
        forward.dots = backward.dots = DotOrder(seed % 3);
        forward.exp = backward.exp = Exp(seed / 2 % 4);
        Outputs out;
        toy_forward(p, in, forward, &out);
        toy_backward(p, in, backward, &out);
        const CheckResult result = check_backward(p, in, out);
        INFO(describe(p, dist, seed) << "\n" << result.message);
        REQUIRE(result.verdict == Verdict::pass);
      }
    }
  }
}

TEST_CASE("checker: a sample holds the first and the last row and the edges of tiles") {
  const Problem p = problem(1, 1, 1, 140000, 2, 32);
  const Inputs in = make_inputs(p, Direction::forward, Dist::normal, 1);
  Outputs right;
  toy_forward(p, in, {}, &right);
  const CheckResult passes = check_forward(p, in, right);
  REQUIRE(passes.verdict == Verdict::pass);
  REQUIRE(tensor(passes, "O").rows_checked < tensor(passes, "O").rows_total);
  for (int row : {64, 139999}) {
    Outputs out = right;
    out.o[size_t(row) * 32 + 5] += 1;
    const CheckResult result = check_forward(p, in, out);
    CHECK_THAT(result.message, ContainsSubstring("only row " + std::to_string(row) + " is wrong"));
  }
}

TEST_CASE("checker: a large problem is sampled, and nothing that isn't a number hides between the samples") {
  const Problem p = problem(2, 8, 4, 3001, 1100, 32);
  const Inputs in = make_inputs(p, Direction::forward, Dist::normal, 1);
  Outputs out;
  out.o.assign(q_elements(p), 0.0f);
  out.softmax_lse.assign(q_rows(p), 0.0f);
  q_row(out.o.data(), p, 1, 3, 1234)[17] = std::numeric_limits<float>::quiet_NaN();
  const CheckResult result = check_forward(p, in, out);
  const TensorCheck o = tensor(result, "O");
  CHECK(o.rows_checked < o.rows_total);
  CHECK(o.rows_checked >= 1000);
  CHECK(o.rows_total == 48016);
  CHECK_THAT(result.message, ContainsSubstring("worst: O[b 1, h 3, row 1234, column 17] is NaN"));
}

TEST_CASE("checker: a problem that overflows any fp32 computation is skipped, never passed") {
  Problem p = problem(1, 1, 1, 4, 4, 32);
  p.softmax_scale = 1e38f;
  const Inputs in = make_inputs(p, Direction::forward, Dist::normal, 1);
  Outputs out;
  out.o.assign(q_elements(p), 0.0f);
  out.softmax_lse.assign(q_rows(p), 0.0f);
  const CheckResult result = check_forward(p, in, out);
  CHECK(result.verdict == Verdict::skip);
  CHECK_THAT(result.message, ContainsSubstring("can't be checked: a plain computation in this precision overflows"));
}

TEST_CASE("checker: O against values from a file") {
  for (Dtype dtype : kDtypes) {
    Problem p = problem(1, 2, 1, 30, 40);
    p.dtype = dtype;
    const Inputs in = make_inputs(p, Direction::forward, Dist::normal, 1);
    Outputs out, other;
    toy_forward(p, in, {}, &out);
    ForwardVariant variant;
    variant.materialised = true;
    variant.dots = DotOrder::lanes;
    toy_forward(p, in, variant, &other);
    CHECK(check_expected(p, in, out, other.o).verdict == Verdict::pass);
    variant.fault = Fault::wrong_kv_head;
    std::vector<float> wrong = other.o;
    wrong[100] += 0.5f;
    const CheckResult result = check_expected(p, in, out, wrong);
    CHECK(result.verdict == Verdict::fail);
    CHECK(result.tensors.size() == 1);
    CHECK(result.tensors[0].wrong == 1);
    // A file of nonsense doesn't widen the bounds.
    CHECK(check_expected(p, in, out, std::vector<float>(out.o.size(), 1e6f)).verdict == Verdict::fail);
  }
}

TEST_CASE("checker: sizes that don't fit are refused") {
  const Problem p = problem(1, 1, 1, 4, 4, 32);
  const Inputs in = make_inputs(p, Direction::forward, Dist::normal, 1);
  Outputs out;
  CHECK_THROWS(check_forward(p, in, out));
  toy_forward(p, in, {}, &out);
  CHECK_THROWS(check_backward(p, in, out));
  CHECK_THROWS(check_expected(p, in, out, {1.0f}));
}
