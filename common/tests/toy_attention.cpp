#include "common/tests/toy_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/problem/dtype.h"
#include "common/problem/layout.h"
#include "common/problem/mask.h"

namespace flash {
namespace {

const float kInfinity = std::numeric_limits<float>::infinity();

// What outputs hold before a run: bytes of 0xFF, a NaN.
float unwritten(Dtype dtype) { return unpack(dtype, std::vector<unsigned char>(dtype_bytes(dtype), 0xff))[0]; }
const float kLog2e = 1.44269504f;

float toy_dot(DotOrder order, const float* a, const float* b, int n) {
  float sum = 0;
  if (order == DotOrder::in_order) {
    for (int c = 0; c < n; ++c) sum += a[c] * b[c];
  } else if (order == DotOrder::fused) {
    for (int c = 0; c < n; ++c) sum = std::fma(a[c], b[c], sum);
  } else {
    float lanes[32] = {};
    for (int c = 0; c < n; ++c) lanes[c % 32] = std::fma(a[c], b[c], lanes[c % 32]);
    for (int step = 16; step > 0; step /= 2)
      for (int lane = 0; lane < step; ++lane) lanes[lane] += lanes[lane + step];
    sum = lanes[0];
  }
  return sum;
}

// exp() within two ulps, exact at 0: as the GPU's ex2.approx is, with pseudo-random errors.
float sloppy_exp2(float x) {
  const float exact = std::exp2(x);
  if (x == 0) return exact;
  const uint32_t draw = uint32_t(int32_t(x * 65536)) * 2654435761u >> 8;  // 24 bits
  return exact * (1 + 4.0f * 5.96e-8f * (float(draw) / 8388608.0f - 1));
}

// exp(raw * scale - offset), where offset = raw_offset * scale is given in both units (a kernel has one or the other).
float toy_exp(Exp kind, float raw, float scale, float offset, float offset_log2) {
  switch (kind) {
    case Exp::natural: return std::exp(raw * scale - offset);
    case Exp::base2: return std::exp2(std::fma(raw, scale * kLog2e, -offset_log2));
    case Exp::base2_early: return std::exp2(raw * scale * kLog2e - offset * kLog2e);
    case Exp::fast: break;
  }
  return sloppy_exp2((raw * scale - offset) * kLog2e);
}

// The forward's: relative to a maximum of raw scores.
float exp_below(Exp kind, float raw, float maximum, float scale) {
  return toy_exp(kind, raw, scale, maximum * scale, maximum * (scale * kLog2e));
}

void forward_row(const Problem& p, const Inputs& in, const ForwardVariant& variant, int b, int h, int i, float* o,
                 float* lse) {
  const Fault fault = variant.fault;
  const int d = p.head_dim;
  int kv_head = kv_head_of(p, h);
  if (fault == Fault::wrong_kv_head) kv_head = h % p.kv_heads;
  const int q_head = fault == Fault::only_one_head && h == 1 ? 0 : h;
  const float* q = q_row(in.q.data(), p, b, q_head, i);
  const float* k = kv_row((fault == Fault::swapped_kv ? in.v : in.k).data(), p, b, kv_head, 0);
  const float* v = kv_row((fault == Fault::swapped_kv ? in.k : in.v).data(), p, b, kv_head, 0);
  const float scale = fault == Fault::no_scale ? 1.0f : p.softmax_scale;
  int keys = visible_keys(p, i);
  if (p.causal && fault == Fault::causal_one_more)
    keys = std::max(0, std::min(p.seqlen_k, i + p.seqlen_k - p.seqlen_q + 2));
  if (p.causal && fault == Fault::causal_one_less) keys = std::max(0, keys - 1);
  if (p.causal && fault == Fault::causal_top_left) keys = std::min(p.seqlen_k, i + 1);
  if (fault == Fault::causal_ignored) keys = p.seqlen_k;
  if (fault == Fault::skipped_tail_keys) keys = std::min(keys, p.seqlen_k / variant.tile_n * variant.tile_n);

  std::vector<float> s(keys);
  for (int j = 0; j < keys; ++j) s[j] = toy_dot(variant.dots, q, k + size_t(j) * d, d);

  float m = fault == Fault::max_from_zero ? 0 : -kInfinity;
  float l = 0;
  std::vector<float> sum(d, 0.0f);
  const int tile_n = variant.materialised ? std::max(keys, 1) : variant.tile_n;
  for (int start = 0; start < keys; start += tile_n) {
    const int end = std::min(keys, start + tile_n);
    float m_new = m;
    for (int j = start; j < end; ++j) m_new = std::max(m_new, s[j]);
    if (fault == Fault::no_max) m_new = 0;
    const float rescale = m == -kInfinity ? 0 : exp_below(variant.exp, m - m_new, 0, scale);  // exactly 1 if m stays
    float tile_sum = 0;
    for (int j = start; j < end; ++j) tile_sum += s[j] = exp_below(variant.exp, s[j], m_new, scale);
    if (variant.materialised)
      for (int j = start; j < end; ++j) s[j] = s[j] / tile_sum;
    for (float& x : sum)
      if (fault != Fault::unscaled_accumulator) x *= rescale;
    for (int j = start; j < end; ++j) {
      const float probability = round_to(p.dtype, s[j]);
      for (int c = 0; c < d; ++c) sum[c] = std::fma(probability, v[size_t(j) * d + c], sum[c]);
    }
    l = (fault == Fault::unscaled_sum ? l : l * rescale);
    if (fault != Fault::dropped_tile_sum || m_new > m) l += tile_sum;
    m = m_new;
  }
  float divisor = variant.materialised || fault == Fault::no_division ? 1.0f : l;
  if (keys == 0 && fault != Fault::no_key_rows_nan) divisor = 1;
  const int columns = fault == Fault::last_columns ? d - 3 : d;
  for (int c = 0; c < columns; ++c) o[c] = round_to(p.dtype, sum[c] / divisor);
  *lse = keys == 0 && fault != Fault::no_key_rows_nan ? -kInfinity : m * scale + std::log(l);
  if (fault == Fault::lse_in_base2) *lse = *lse * kLog2e;
  if (fault == Fault::lse_without_sum) *lse = m * scale;
}

}  // namespace

void toy_forward(const Problem& p, const Inputs& in, const ForwardVariant& variant, Outputs* out) {
  out->o.assign(q_elements(p), unwritten(p.dtype));
  out->softmax_lse.assign(q_rows(p), unwritten(Dtype::fp32));
  if (variant.fault == Fault::constant || variant.fault == Fault::zeros) {
    out->o.assign(q_elements(p), variant.fault == Fault::zeros ? 0.0f : 0.125f);
    out->softmax_lse.assign(q_rows(p), variant.fault == Fault::zeros ? 0.0f : 4.0f);
    return;
  }
  if (variant.fault == Fault::stale) {
    toy_forward(p, make_inputs(p, Direction::forward, Dist::normal, 987654321), {}, out);
    return;
  }
  const int kTileM = 64;
  const int rows = variant.fault == Fault::unwritten_tail_rows ? p.seqlen_q / kTileM * kTileM : p.seqlen_q;
  for (int b = 0; b < p.batch; ++b)
    for (int h = 0; h < p.heads; ++h)
      for (int i = 0; i < rows; ++i)
        forward_row(p, in, variant, b, h, i, q_row(out->o.data(), p, b, h, i),
                    &out->softmax_lse[q_row_index(p, b, h, i)]);
}

// Adds rows to one, `share` terms at a time or one by one.
class ToySum {
 public:
  ToySum(int columns, int share) : total_(columns), part_(columns), share_(share) {}
  void add(float factor, const float* row) {
    for (size_t c = 0; c < part_.size(); ++c) part_[c] = std::fma(factor, row[c], part_[c]);
    if (share_ != 0 && ++terms_ % share_ == 0) total();
  }
  void clear() {
    std::fill(total_.begin(), total_.end(), 0.0f);
    std::fill(part_.begin(), part_.end(), 0.0f);
  }
  const std::vector<float>& total() {
    for (size_t c = 0; c < part_.size(); ++c) total_[c] += part_[c];
    std::fill(part_.begin(), part_.end(), 0.0f);
    return total_;
  }

 private:
  std::vector<float> total_, part_;
  int share_, terms_ = 0;
};

void toy_backward(const Problem& p, const Inputs& in, const BackwardVariant& variant, Outputs* out) {
  const BackwardFault fault = variant.fault;
  const int d = p.head_dim;
  std::vector<float> dq(q_elements(p)), dk(kv_elements(p)), dv(kv_elements(p));
  std::vector<ToySum> dk_sums(kv_elements(p) / d, ToySum(d, variant.share)), dv_sums = dk_sums;
  for (int b = 0; b < p.batch; ++b) {
    for (int h = 0; h < p.heads; ++h) {
      const int kv_head = kv_head_of(p, h);
      if (fault == BackwardFault::group_not_summed) {  // this head's sums replace the one's before
        for (int j = 0; j < p.seqlen_k; ++j) {
          dk_sums[kv_row_index(p, b, kv_head, j)].clear();
          dv_sums[kv_row_index(p, b, kv_head, j)].clear();
        }
      }
      for (int step = 0; step < p.seqlen_q; ++step) {
        const int i = variant.backwards ? p.seqlen_q - 1 - step : step;
        const size_t row = q_row_index(p, b, h, i);
        const float* q = &in.q[row * d];
        const float* d_o = &in.d_o[row * d];
        float row_d =
            toy_dot(variant.dots == DotOrder::lanes ? DotOrder::fused : DotOrder::lanes, d_o, &out->o[row * d], d);
        if (fault == BackwardFault::d_of_d_o) row_d = toy_dot(variant.dots, d_o, d_o, d);
        if (fault == BackwardFault::d_left_out) row_d = 0;
        const float lse = out->softmax_lse[row];
        const int keys = fault == BackwardFault::causal_ignored ? p.seqlen_k : visible_keys(p, i);
        std::vector<float> s(keys);
        float maximum = -kInfinity;
        for (int j = 0; j < keys; ++j) {
          s[j] = toy_dot(variant.dots, q, kv_row(in.k.data(), p, b, kv_head, j), d);
          maximum = std::max(maximum, s[j]);
        }
        ToySum dq_sum(d, variant.share);
        for (int at = 0; at < keys; ++at) {
          const int j = variant.backwards ? keys - 1 - at : at;
          const float* k = kv_row(in.k.data(), p, b, kv_head, j);
          const float* v = kv_row(in.v.data(), p, b, kv_head, j);
          float probability = toy_exp(variant.exp, s[j], p.softmax_scale, lse, lse * kLog2e);
          if (fault == BackwardFault::lse_as_base2) probability = std::exp2(s[j] * p.softmax_scale * kLog2e - lse);
          if (fault == BackwardFault::p_not_normalised) probability = std::exp((s[j] - maximum) * p.softmax_scale);
          const float dp = toy_dot(variant.dots, d_o, v, d);
          float ds = probability * (dp - row_d);
          if (variant.scale_early) ds *= p.softmax_scale;
          ds = round_to(p.dtype, ds);
          const float rounded = round_to(p.dtype, probability);
          if (fault == BackwardFault::dq_of_last_tile && j % variant.tile_n == 0) dq_sum.clear();
          dq_sum.add(ds, k);
          dk_sums[kv_row_index(p, b, kv_head, j)].add(ds, q);
          dv_sums[kv_row_index(p, b, kv_head, j)].add(rounded, d_o);
        }
        std::copy_n(dq_sum.total().data(), d, &dq[row * d]);
      }
    }
  }
  for (size_t row = 0; row < dk_sums.size(); ++row) {
    std::copy_n(dk_sums[row].total().data(), d, &dk[row * d]);
    std::copy_n(dv_sums[row].total().data(), d, &dv[row * d]);
  }
  const float late_scale = variant.scale_early ? 1.0f : p.softmax_scale;
  for (float& x : dq) x = round_to(p.dtype, fault == BackwardFault::dq_without_scale ? x : x * late_scale);
  for (float& x : dk) x = round_to(p.dtype, fault == BackwardFault::dk_without_scale ? x : x * late_scale);
  for (float& x : dv) x = round_to(p.dtype, x);
  if (fault == BackwardFault::swapped_outputs) std::swap(dk, dv);
  if (fault == BackwardFault::unwritten_tail_keys) {
    for (int j = p.seqlen_k / variant.tile_n * variant.tile_n; j < p.seqlen_k; ++j)
      for (int b = 0; b < p.batch; ++b)
        for (int h = 0; h < p.kv_heads; ++h) std::fill_n(kv_row(dk.data(), p, b, h, j), d, unwritten(p.dtype));
  }
  out->dq = dq;
  out->dk = dk;
  out->dv = dv;
}

}  // namespace flash
