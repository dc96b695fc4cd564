// Attention as a kernel computes it, in plain C++: tiles of keys, an online softmax, fp32 sums in a kernel's order, 16-bit
// operands rounded where tensor cores take them. Right in several ways, and wrong in each way the checker must refuse.
#pragma once
#include "common/check/check.h"
#include "common/problem/inputs.h"
#include "common/problem/problem.h"

namespace flash {

enum class DotOrder { in_order, fused, lanes };  // a thread's a*b+c, its fma, 32 lanes and a shuffle tree
enum class Exp {
  natural,      // exp(s * scale - m)
  base2,        // exp2(s * (scale * log2(e)) - m * (scale * log2(e))), one fma
  base2_early,  // s * scale * log2(e) rounded first, then the difference
  fast          // as __expf: exp2 of a rounded product, off by up to two ulps more
};

enum class Fault {
  none,
  constant,
  zeros,
  stale,                 // what another problem left there
  unwritten_tail_rows,   // the last, ragged tile of rows is NaN
  skipped_tail_keys,     // the last, ragged tile of keys is left out
  no_max,                // exp(s) as it is
  unscaled_accumulator,  // the maximum moves, O isn't rescaled
  unscaled_sum,          // the maximum moves, l isn't rescaled
  max_from_zero,         // m starts at 0 instead of -infinity
  causal_one_more,
  causal_one_less,
  causal_top_left,
  causal_ignored,
  wrong_kv_head,  // h % kv_heads instead of h / (heads / kv_heads)
  swapped_kv,
  lse_in_base2,
  lse_without_sum,
  dropped_tile_sum,  // l_new = e^(m - m_new) l, the new tile's own sum left out unless it brought the maximum
  no_division,
  no_scale,
  last_columns,    // the last three columns aren't written
  only_one_head,   // head 1 reads head 0's Q
  no_key_rows_nan  // 0 / 0 where a row sees no key
};

struct ForwardVariant {
  int tile_n = 32;
  DotOrder dots = DotOrder::fused;
  Exp exp = Exp::natural;
  bool materialised = false;  // whole row: maximum first, P divided before P V, as 00 and 01 do
  Fault fault = Fault::none;
};
void toy_forward(const Problem&, const Inputs&, const ForwardVariant&, Outputs*);

enum class BackwardFault {
  none,
  d_of_d_o,  // D = rowsum(dO * dO)
  d_left_out,
  group_not_summed,  // dK, dV of the last query head of a group alone
  dq_without_scale,
  dk_without_scale,
  p_not_normalised,  // exp(s - max) instead of exp(s - LSE)
  swapped_outputs,   // dK where dV belongs
  dq_of_last_tile,   // stored, not accumulated, a key tile at a time
  causal_ignored,
  lse_as_base2,  // exp2(s * log2(e) - LSE)
  unwritten_tail_keys
};

struct BackwardVariant {
  int tile_n = 32;
  DotOrder dots = DotOrder::fused;
  Exp exp = Exp::natural;
  bool scale_early = false;  // scale folded into dS before it is rounded
  bool backwards = false;    // key tiles (dQ) and queries (dK, dV) in falling order, as atomics may
  int share = 0;             // terms of a gradient that are summed up apart, then added; 0: one running sum
  BackwardFault fault = BackwardFault::none;
};
// Takes O and LSE from `out`, writes dq, dk, dv.
void toy_backward(const Problem&, const Inputs&, const BackwardVariant&, Outputs* out);

}  // namespace flash
