#include "common/check/materialised.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/check/blocks.h"
#include "common/problem/dtype.h"
#include "common/problem/layout.h"
#include "common/problem/mask.h"
#include "common/problem/row_math.h"

namespace flash {
namespace {

// products[r] = x . rows[r] in fp32, each summed in index order; eight rows at once to hide the additions' latency.
void dots_in_order(const float* x, const float* rows, int row_count, int n, float* products) {
  const int kLanes = 8;
  int r = 0;
  for (; r + kLanes <= row_count; r += kLanes) {
    const float* first = rows + size_t(r) * n;
    float sums[kLanes] = {};
    for (int c = 0; c < n; ++c)
      for (int lane = 0; lane < kLanes; ++lane) sums[lane] += x[c] * first[size_t(lane) * n + c];
    std::copy(sums, sums + kLanes, products + r);
  }
  for (; r < row_count; ++r) {
    float sum = 0;
    for (int c = 0; c < n; ++c) sum += x[c] * rows[size_t(r) * n + c];
    products[r] = sum;
  }
}

// Rows added to one, in index order and block by block.
class BlockedSum {
 public:
  BlockedSum(float* sum, int columns, int block) : sum_(sum), block_(block), share_(columns) {
    std::fill(sum, sum + columns, 0.0f);
  }
  void add(float factor, const float* row) {
    if (factor != 0) add_scaled(share_.data(), factor, row, int(share_.size()));
    if (++terms_ % block_ == 0) finish();
  }
  void finish() {
    for (size_t c = 0; c < share_.size(); ++c) sum_[c] += share_[c];
    std::fill(share_.begin(), share_.end(), 0.0f);
  }

 private:
  float* sum_;
  int block_;
  long long terms_ = 0;
  std::vector<float> share_;
};

void round_row(Dtype dtype, float factor, float* row, int n) {
  for (int c = 0; c < n; ++c) row[c] = round_to(dtype, factor * row[c]);
}

}  // namespace

void materialised_forward_row(const Problem& p, const Inputs& in, int b, int h, int i, float* o, float* softmax_lse) {
  const int d = p.head_dim;
  const int keys = visible_keys(p, i);
  std::fill(o, o + d, 0.0f);
  *softmax_lse = -std::numeric_limits<float>::infinity();
  if (keys == 0) return;
  const float* v = kv_row(in.v.data(), p, b, kv_head_of(p, h), 0);
  std::vector<float> s(keys);
  dots_in_order(q_row(in.q.data(), p, b, h, i), kv_row(in.k.data(), p, b, kv_head_of(p, h), 0), keys, d, s.data());
  for (float& score : s) score *= p.softmax_scale;
  const float maximum = *std::max_element(s.begin(), s.end());
  float sum = 0;
  for (float& score : s) sum += score = std::exp(score - maximum);
  for (int j = 0; j < keys; ++j) {
    const float probability = round_to(p.dtype, s[j] / sum);
    if (probability != 0) add_scaled(o, probability, v + size_t(j) * d, d);
  }
  round_row(p.dtype, 1.0f, o, d);
  *softmax_lse = maximum + std::log(sum);
}

std::vector<float> materialised_row_d(const Problem& p, const Inputs& in, const std::vector<float>& o) {
  std::vector<float> row_d(q_rows(p));
  for (size_t row = 0; row < row_d.size(); ++row)
    dots_in_order(&in.d_o[row * p.head_dim], &o[row * p.head_dim], 1, p.head_dim, &row_d[row]);
  return row_d;
}

void materialised_dq_row(const Problem& p, const Inputs& in, const std::vector<float>& softmax_lse,
                         const std::vector<float>& row_d, int b, int h, int i, float* dq) {
  const int d = p.head_dim;
  const int keys = visible_keys(p, i);
  const size_t row = q_row_index(p, b, h, i);
  const float* k = kv_row(in.k.data(), p, b, kv_head_of(p, h), 0);
  BlockedSum sum(dq, d, block_of_keys(keys));
  std::vector<float> s(keys), dp(keys);
  dots_in_order(q_row(in.q.data(), p, b, h, i), k, keys, d, s.data());
  dots_in_order(q_row(in.d_o.data(), p, b, h, i), kv_row(in.v.data(), p, b, kv_head_of(p, h), 0), keys, d, dp.data());
  for (int j = 0; j < keys; ++j) {
    const float probability = std::exp(s[j] * p.softmax_scale - softmax_lse[row]);
    const float ds = round_to(p.dtype, probability * (dp[j] - row_d[row]));
    sum.add(ds, k + size_t(j) * d);
  }
  sum.finish();
  round_row(p.dtype, p.softmax_scale, dq, d);
}

void materialised_dkv_row(const Problem& p, const Inputs& in, const std::vector<float>& softmax_lse,
                          const std::vector<float>& row_d, int b, int kv_head, int j, float* dk, float* dv) {
  const int d = p.head_dim;
  const float* k = kv_row(in.k.data(), p, b, kv_head, j);
  const float* v = kv_row(in.v.data(), p, b, kv_head, j);
  const int first = first_query(p, j);
  const int queries = p.seqlen_q - first;
  const int block = block_of_queries(double(group_size(p)) * queries);
  BlockedSum dk_sum(dk, d, block), dv_sum(dv, d, block);
  std::vector<float> s(queries), dp(queries);
  for (int h = kv_head * group_size(p); h < (kv_head + 1) * group_size(p); ++h) {
    const size_t row = q_row_index(p, b, h, first);
    const float* q = &in.q[row * d];
    const float* d_o = &in.d_o[row * d];
    dots_in_order(k, q, queries, d, s.data());
    dots_in_order(v, d_o, queries, d, dp.data());
    for (int i = 0; i < queries; ++i) {
      const float probability = std::exp(s[i] * p.softmax_scale - softmax_lse[row + i]);
      const float rounded = round_to(p.dtype, probability);
      const float ds = round_to(p.dtype, probability * (dp[i] - row_d[row + i]));
      dv_sum.add(rounded, d_o + size_t(i) * d);
      dk_sum.add(ds, q + size_t(i) * d);
    }
  }
  dk_sum.finish();
  dv_sum.finish();
  round_row(p.dtype, p.softmax_scale, dk, d);
  round_row(p.dtype, 1.0f, dv, d);
}

}  // namespace flash
