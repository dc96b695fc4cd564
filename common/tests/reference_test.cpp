#include "common/problem/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/check/expected.h"
#include "common/problem/layout.h"
#include "common/tests/catch.h"

using namespace flash;

namespace {

Problem problem(int batch, int heads, int kv_heads, int seqlen_q, int seqlen_k, int head_dim, bool causal = false) {
  Problem p;
  p.batch = batch;
  p.heads = heads;
  p.kv_heads = kv_heads;
  p.seqlen_q = seqlen_q;
  p.seqlen_k = seqlen_k;
  p.head_dim = head_dim;
  p.causal = causal;
  p.softmax_scale = float(1 / std::sqrt(double(head_dim)));
  return p;
}

std::vector<Problem> small_problems() {
  return {problem(1, 1, 1, 1, 1, 4),         problem(2, 2, 1, 3, 5, 8),       problem(1, 4, 2, 6, 4, 4),
          problem(1, 2, 2, 5, 5, 8, true),   problem(2, 4, 2, 3, 7, 4, true), problem(1, 2, 1, 7, 3, 4, true),
          problem(1, 3, 3, 4, 1, 32, false), problem(1, 6, 2, 1, 6, 8, true)};
}

}  // namespace

TEST_CASE("reference: equal keys give the mean of the values and log of their number") {
  const Problem p = problem(2, 2, 1, 3, 5, 8);
  Inputs in = make_inputs(p, Direction::forward, Dist::normal, 1);
  for (int b = 0; b < p.batch; ++b)
    for (int j = 1; j < p.seqlen_k; ++j)
      std::copy_n(kv_row(in.k.data(), p, b, 0, 0), p.head_dim, kv_row(in.k.data(), p, b, 0, j));
  const ReferenceForward r = reference_forward(p, in);
  for (int b = 0; b < p.batch; ++b) {
    for (int h = 0; h < p.heads; ++h) {
      for (int i = 0; i < p.seqlen_q; ++i) {
        double score = 0;
        for (int c = 0; c < p.head_dim; ++c)
          score += double(q_row(in.q.data(), p, b, h, i)[c]) * kv_row(in.k.data(), p, b, 0, 0)[c];
        CHECK(r.softmax_lse[q_row_index(p, b, h, i)] == Approx(score * p.softmax_scale + std::log(5.0)).epsilon(1e-13));
        for (int c = 0; c < p.head_dim; ++c) {
          double mean = 0;
          for (int j = 0; j < p.seqlen_k; ++j) mean += kv_row(in.v.data(), p, b, 0, j)[c] / 5.0;
          CHECK(q_row(r.o.data(), p, b, h, i)[c] == Approx(mean).epsilon(1e-12).margin(1e-14));
        }
      }
    }
  }
}

TEST_CASE("reference: one key gives its value and its score") {
  const Problem p = problem(1, 4, 2, 3, 1, 8);
  const Inputs in = make_inputs(p, Direction::backward, Dist::large, 2);
  const ReferenceForward r = reference_forward(p, in);
  const ReferenceBackward g = reference_backward(p, in);
  for (int h = 0; h < p.heads; ++h)
    for (int i = 0; i < p.seqlen_q; ++i)
      for (int c = 0; c < p.head_dim; ++c) {
        CHECK(q_row(r.o.data(), p, 0, h, i)[c] == kv_row(in.v.data(), p, 0, h / 2, 0)[c]);
        CHECK(q_row(g.dq.data(), p, 0, h, i)[c] == 0);  // softmax of one score doesn't move
      }
  for (int kv_head = 0; kv_head < 2; ++kv_head)
    for (int c = 0; c < p.head_dim; ++c) {
      double sum = 0;  // dV: dO summed over the rows of the group's two heads
      for (int h = 2 * kv_head; h < 2 * kv_head + 2; ++h)
        for (int i = 0; i < p.seqlen_q; ++i) sum += q_row(in.d_o.data(), p, 0, h, i)[c];
      CHECK(kv_row(g.dv.data(), p, 0, kv_head, 0)[c] == Approx(sum).epsilon(1e-12).margin(1e-13));
      CHECK(kv_row(g.dk.data(), p, 0, kv_head, 0)[c] == 0);
    }
}

TEST_CASE("reference: a key far ahead of the others takes the row") {
  Problem p = problem(1, 1, 1, 1, 6, 4);
  Inputs in = make_inputs(p, Direction::forward, Dist::normal, 3);
  std::fill(in.q.begin(), in.q.end(), 0.0f);
  in.q[0] = 100;
  for (int j = 0; j < 6; ++j) in.k[j * 4] = j == 4 ? 100.0f : 0.0f;
  const ReferenceForward r = reference_forward(p, in);
  CHECK(r.softmax_lse[0] == 5000);
  for (int c = 0; c < 4; ++c) CHECK(r.o[c] == in.v[4 * 4 + c]);
}

TEST_CASE("reference: causal is aligned to the bottom right, and rows may see no key") {
  const Problem p = problem(1, 1, 1, 5, 3, 4, true);  // rows 0 and 1 see nothing, row 2 sees key 0
  const Inputs in = make_inputs(p, Direction::backward, Dist::normal, 4);
  const ReferenceForward r = reference_forward(p, in);
  const ReferenceBackward g = reference_backward(p, in);
  for (int i = 0; i < 2; ++i) {
    CHECK(r.softmax_lse[i] == -std::numeric_limits<double>::infinity());
    for (int c = 0; c < 4; ++c) {
      CHECK(r.o[i * 4 + c] == 0);
      CHECK(g.dq[i * 4 + c] == 0);
    }
  }
  for (int c = 0; c < 4; ++c) CHECK(r.o[2 * 4 + c] == in.v[c]);
  // The last row sees every key: as without the mask.
  Problem full = p;
  full.causal = false;
  const ReferenceForward unmasked = reference_forward(full, in);
  for (int c = 0; c < 4; ++c) CHECK(r.o[4 * 4 + c] == unmasked.o[4 * 4 + c]);
  CHECK(r.o[3 * 4] != unmasked.o[3 * 4]);
}

TEST_CASE("reference: query heads share key/value heads in groups") {
  const Problem grouped = problem(1, 6, 2, 3, 4, 8);
  const Problem separate = problem(1, 6, 6, 3, 4, 8);
  const Inputs in = make_inputs(grouped, Direction::backward, Dist::normal, 5);
  Inputs repeated = in;
  repeated.k.clear();
  repeated.v.clear();
  for (int h = 0; h < 6; ++h) {
    const size_t head = size_t(h / 3) * 4 * 8;
    repeated.k.insert(repeated.k.end(), &in.k[head], &in.k[head] + 4 * 8);
    repeated.v.insert(repeated.v.end(), &in.v[head], &in.v[head] + 4 * 8);
  }
  CHECK(reference_forward(grouped, in).o == reference_forward(separate, repeated).o);
  const ReferenceBackward g = reference_backward(grouped, in), s = reference_backward(separate, repeated);
  CHECK(g.dq == s.dq);
  for (size_t e = 0; e < g.dk.size(); ++e) {
    const size_t head = e / 32, rest = e % 32;
    double dk = 0, dv = 0;
    for (size_t h = 3 * head; h < 3 * head + 3; ++h) {
      dk += s.dk[h * 32 + rest];
      dv += s.dv[h * 32 + rest];
    }
    CHECK(g.dk[e] == Approx(dk).epsilon(1e-12).margin(1e-14));
    CHECK(g.dv[e] == Approx(dv).epsilon(1e-12).margin(1e-14));
  }
}

TEST_CASE("reference: the backward agrees with finite differences of the forward") {
  for (const Problem& p : small_problems()) {
    Inputs in = make_inputs(p, Direction::backward, Dist::uniform, 6);
    const ReferenceBackward g = reference_backward(p, in);
    // loss = sum of dO * O
    auto loss = [&] {
      const ReferenceForward r = reference_forward(p, in);
      double sum = 0;
      for (size_t e = 0; e < r.o.size(); ++e) sum += in.d_o[e] * r.o[e];
      return sum;
    };
    auto compare = [&](std::vector<float>* tensor, const std::vector<double>& gradient) {
      for (size_t e = 0; e < tensor->size(); ++e) {
        const float before = (*tensor)[e];
        const float h = 1.0f / 1024;  // inputs are multiples of 2^-23 below 1: before + h is exact
        (*tensor)[e] = before + h;
        const double above = loss();
        (*tensor)[e] = before - h;
        const double below = loss();
        (*tensor)[e] = before;
        REQUIRE(gradient[e] == Approx((above - below) / (2 * double(h))).epsilon(1e-5).margin(1e-6));
      }
    };
    compare(&in.q, g.dq);
    compare(&in.k, g.dk);
    compare(&in.v, g.dv);
  }
}

TEST_CASE("reference: rows on their own are rows of the whole") {
  for (const Problem& p : small_problems()) {
    const Inputs in = make_inputs(p, Direction::backward, Dist::normal, 7);
    const ReferenceForward r = reference_forward(p, in);
    const ReferenceBackward g = reference_backward(p, in);
    const std::vector<float> o(r.o.begin(), r.o.end()), lse(r.softmax_lse.begin(), r.softmax_lse.end());
    const ExpectedForward expected_forward(p, in);
    const ExpectedBackward expected(p, in, o, lse);
    for (int b = 0; b < p.batch; ++b) {
      for (int h = 0; h < p.heads; ++h) {
        for (int i = 0; i < p.seqlen_q; ++i) {
          const ReferenceRow row = reference_forward_row(p, in, b, h, i);
          const ExpectedForwardRow checked = expected_forward.row(b, h, i);
          const ExpectedRow dq = expected.dq_row(b, h, i);
          CHECK(row.softmax_lse == r.softmax_lse[q_row_index(p, b, h, i)]);
          CHECK(checked.lse == row.softmax_lse);
          for (int c = 0; c < p.head_dim; ++c) {
            CHECK(row.o[c] == q_row(r.o.data(), p, b, h, i)[c]);
            CHECK(checked.o.value[c] == Approx(row.o[c]).epsilon(1e-13).margin(1e-15));
            // O and LSE went through fp32
            CHECK(dq.value[c] == Approx(q_row(g.dq.data(), p, b, h, i)[c]).epsilon(1e-5).margin(1e-6));
          }
        }
      }
      for (int kv_head = 0; kv_head < p.kv_heads; ++kv_head) {
        for (int j = 0; j < p.seqlen_k; ++j) {
          ExpectedRow dk, dv;
          expected.dkv_row(b, kv_head, j, &dk, &dv);
          for (int c = 0; c < p.head_dim; ++c) {
            CHECK(dk.value[c] == Approx(kv_row(g.dk.data(), p, b, kv_head, j)[c]).epsilon(1e-5).margin(1e-6));
            CHECK(dv.value[c] == Approx(kv_row(g.dv.data(), p, b, kv_head, j)[c]).epsilon(1e-5).margin(1e-6));
          }
        }
      }
    }
  }
}
