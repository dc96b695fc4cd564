#include "common/problem/inputs.h"

#include <algorithm>
#include <cmath>

#include "common/problem/dtype.h"
#include "common/tests/catch.h"

using namespace flash;

namespace {

Problem problem(int heads, int seqlen, Dtype dtype = Dtype::fp32) {
  Problem p;
  p.heads = heads;
  p.kv_heads = heads;
  p.seqlen_q = p.seqlen_k = seqlen;
  p.dtype = dtype;
  return p;
}

struct Moments {
  double mean = 0, deviation = 0, least = 0, greatest = 0;
};

Moments moments(const std::vector<float>& values) {
  Moments m;
  for (float x : values) m.mean += x / double(values.size());
  for (float x : values) m.deviation += (x - m.mean) * (x - m.mean) / double(values.size());
  m.deviation = std::sqrt(m.deviation);
  m.least = *std::min_element(values.begin(), values.end());
  m.greatest = *std::max_element(values.begin(), values.end());
  return m;
}

// FNV-1a over the bytes.
uint64_t fingerprint(const std::vector<float>& values) {
  uint64_t hash = 14695981039346656037ull;
  for (unsigned char byte : pack(Dtype::fp32, values)) hash = (hash ^ byte) * 1099511628211ull;
  return hash;
}

}  // namespace

TEST_CASE("inputs are the same on every machine") {
  const Inputs in = make_inputs(problem(2, 33), Direction::backward, Dist::normal, 7);
  CHECK(in.q[0] == -0.3881988525390625f);
  CHECK(in.q[1] == -2.650482177734375f);
  CHECK(fingerprint(in.q) == 0x113e1c6d1ae1f779ull);
  CHECK(fingerprint(in.d_o) == 0x9d33871889af6077ull);
  const Inputs again = make_inputs(problem(2, 33), Direction::backward, Dist::normal, 7);
  CHECK(in.q == again.q);
  CHECK(in.v == again.v);
}

TEST_CASE("tensors and seeds differ") {
  const Inputs in = make_inputs(problem(1, 64), Direction::backward, Dist::normal, 0);
  CHECK(in.q != in.k);
  CHECK(in.k != in.v);
  CHECK(in.q != in.d_o);
  CHECK(in.q != make_inputs(problem(1, 64), Direction::forward, Dist::normal, 1).q);
  CHECK(make_inputs(problem(1, 64), Direction::forward, Dist::normal, 0).d_o.empty());
}

TEST_CASE("distributions are what they are called") {
  const Problem p = problem(4, 1024);  // 262,144 values
  const Inputs normal = make_inputs(p, Direction::forward, Dist::normal, 1);
  for (const std::vector<float>* tensor : {&normal.q, &normal.k, &normal.v}) {
    const Moments m = moments(*tensor);
    CHECK(std::fabs(m.mean) < 0.01);
    CHECK(m.deviation == Approx(1).epsilon(0.01));
    CHECK(m.greatest > 3.5);
    CHECK(m.least < -3.5);
    const double inside =
        double(std::count_if(tensor->begin(), tensor->end(), [](float x) { return std::fabs(x) < 1; }));
    CHECK(inside / double(tensor->size()) == Approx(0.6827).epsilon(0.01));
  }
  const Moments uniform = moments(make_inputs(p, Direction::forward, Dist::uniform, 1).q);
  CHECK(uniform.least >= -1);
  CHECK(uniform.greatest < 1);
  CHECK(uniform.deviation == Approx(1 / std::sqrt(3.0)).epsilon(0.01));

  const std::vector<float> outliers = make_inputs(p, Direction::forward, Dist::outliers, 1).v;
  const double far = double(std::count_if(outliers.begin(), outliers.end(), [](float x) { return std::fabs(x) > 7; }));
  CHECK(far / double(outliers.size()) == Approx(0.00073).epsilon(0.2));  // one in a thousand, 73% of them past 7

  const Inputs large = make_inputs(p, Direction::forward, Dist::large, 1);
  CHECK(moments(large.q).deviation == Approx(8).epsilon(0.01));
  CHECK(moments(large.k).deviation == Approx(8).epsilon(0.01));
}

TEST_CASE("negative: every score underflows exp() at the default scale") {
  for (int head_dim : {32, 64, 128}) {
    Problem p = problem(1, 300);
    p.head_dim = head_dim;
    p.softmax_scale = float(1 / std::sqrt(double(head_dim)));
    const Inputs in = make_inputs(p, Direction::forward, Dist::negative, 3);
    float greatest = -1e30f;
    for (int i = 0; i < p.seqlen_q; ++i) {
      for (int j = 0; j < p.seqlen_k; ++j) {
        float score = 0;
        for (int c = 0; c < head_dim; ++c) score += in.q[i * head_dim + c] * in.k[j * head_dim + c];
        greatest = std::max(greatest, score * p.softmax_scale);
      }
    }
    CHECK(greatest < -104);  // exp(-104) is 0 in fp32
  }
}

TEST_CASE("values are held exactly by the dtype") {
  for (Dtype dtype : {Dtype::fp16, Dtype::bf16}) {
    for (Dist dist : {Dist::normal, Dist::uniform, Dist::outliers, Dist::large, Dist::negative}) {
      const Inputs in = make_inputs(problem(1, 100, dtype), Direction::backward, dist, 5);
      for (const std::vector<float>* tensor : {&in.q, &in.k, &in.v, &in.d_o})
        for (float x : *tensor) REQUIRE((x == round_to(dtype, x) && std::isfinite(x)));
    }
  }
}

TEST_CASE("names of distributions") {
  for (Dist dist : {Dist::normal, Dist::uniform, Dist::outliers, Dist::large, Dist::negative}) {
    Dist parsed = Dist::normal;
    REQUIRE(parse_dist(dist_name(dist), &parsed));
    CHECK(parsed == dist);
  }
  Dist untouched = Dist::large;
  CHECK_FALSE(parse_dist("gaussian", &untouched));
  CHECK_FALSE(parse_dist("", &untouched));
  CHECK(untouched == Dist::large);
}
