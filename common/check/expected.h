// What the checker compares with: rows in double precision, and beside each element its *unit*: the size of error that
// rounding explains there, by first-order analysis. Roundings are taken as independent, so their effects add as squares:
//
//   a sum of n terms in fp32: each of n partial sums is rounded. They are about as large as the larger of the result and
//     the root of the terms' summed squares (a random walk): u32 sqrt(n / 2) of both. u32 = 2^-24
//   the gradients' sums, over queries or over keys, may be summed up in blocks (blocks.h): b terms in a block, then n / b
//     blocks, so b + n / b for n. With b = 1024 that is 23 u32 up to 65536 terms, where a running sum has grown to
//     u32 sqrt(n / 2), eight times as much: a kernel that drifts is refused. O and LSE are sums over keys of n terms in
//     one go, as an online softmax has them: it rescales its running sum
//   so a dot product x . y of d terms: u32 sqrt((|x|^2 |y|^2 + d (x . y)^2) / 2), |x| the Euclidean norm
//   P and dS, and then the output, are rounded to the dtype: u |P|, u |dS|, u |O|; u = 2^-24, 2^-11 (fp16), 2^-8 (bf16)
//   an error e in a score is a relative error e in its P
//   tensor cores (so: fp16, bf16) don't round a sum, they cut it off, after every 16 terms or more often. That is up to
//     2 u32 of a partial sum, and always towards zero: it adds up over the d / 16 steps of a score, whose partial sums
//     are half as large as the score on average, and it moves all scores of a row alike, so LSE as well, by up to
//     u32 d / 16 |score|. (On an H200, fp16, d = 128, all products of one sign: 0.83 of that.) It is no random error, but
//     nearly the same in every row: so it counts twice
//
// The constants are such that the standard deviation of a right kernel's error is about half a unit.
// Units differ from row to row where one figure for all rows would not do: dQ of a row that sees one key is exactly
// zero, the difference of two equal dot products, and what a right kernel leaves there is the rounding of those.
// A unit is zero only where every term is zero.
#pragma once
#include <vector>

#include "common/problem/inputs.h"
#include "common/problem/problem.h"

namespace flash {

struct ExpectedRow {
  std::vector<double> value, unit;  // [head_dim]
};

// Row (b, h, i) of O and its LSE.
struct ExpectedForwardRow {
  ExpectedRow o;
  double lse, lse_unit;
};
class ExpectedForward {
 public:
  ExpectedForward(const Problem&, const Inputs&);
  ExpectedForwardRow row(int b, int h, int i) const;

 private:
  const Problem& p_;
  const Inputs& in_;
  std::vector<double> k_norm_;
};

// Gradients, as a function of O and LSE as the run under test computed them (checked by themselves): what the backward
// step was given is what it answers for.
class ExpectedBackward {
 public:
  ExpectedBackward(const Problem&, const Inputs&, const std::vector<float>& o, const std::vector<float>& softmax_lse);
  ExpectedRow dq_row(int b, int h, int i) const;
  void dkv_row(int b, int kv_head, int j, ExpectedRow* dk, ExpectedRow* dv) const;

 private:
  struct Pair;  // what query row i and key j contribute
  Pair pair(size_t q_row, size_t kv_row) const;

  const Problem& p_;
  const Inputs& in_;
  const std::vector<float>& softmax_lse_;
  std::vector<double> row_d_, q_norm_, k_norm_, v_norm_, d_o_norm_, d_error2_;  // a row each
};

}  // namespace flash
