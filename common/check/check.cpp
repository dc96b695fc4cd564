#include "common/check/check.h"

#include <algorithm>
#include <cstdint>

#include "common/base/error.h"
#include "common/base/parallel.h"
#include "common/check/expected.h"
#include "common/check/materialised.h"
#include "common/check/message.h"
#include "common/check/pattern.h"
#include "common/check/rows.h"
#include "common/check/rule.h"
#include "common/check/sample.h"
#include "common/problem/layout.h"

namespace flash {
namespace {

CheckedRows new_rows(const Problem& p, const std::string& tensor, Dtype dtype, int heads, int rows_per_head,
                     int columns) {
  CheckedRows t;
  t.tensor = tensor;
  t.dtype = dtype;
  t.heads = heads;
  t.rows_per_head = rows_per_head;
  t.columns = columns;
  t.rows_total = size_t(p.batch) * heads * rows_per_head;
  t.query_rows = q_rows(p);
  return t;
}

size_t row_position(const CheckedRows& t, const RowIndex& row) {
  return ((size_t(row.b) * t.heads + row.h) * t.rows_per_head + row.i) * t.columns;
}

// Makes room for the rows and takes what the run wrote; set_row() fills in the rest, a row at a time.
void set_rows(CheckedRows* t, const std::vector<RowIndex>& rows, const std::vector<float>& got) {
  t->rows = rows;
  t->expected.resize(t->elements());
  t->unit.resize(t->elements());
  t->plain.resize(t->elements());
  t->got.resize(t->elements());
  for (size_t r = 0; r < rows.size(); ++r)
    std::copy_n(got.begin() + row_position(*t, rows[r]), t->columns, t->got.begin() + r * t->columns);
}

void set_row(CheckedRows* t, size_t r, const ExpectedRow& expected) {
  std::copy(expected.value.begin(), expected.value.end(), t->expected.begin() + r * t->columns);
  std::copy(expected.unit.begin(), expected.unit.end(), t->unit.begin() + r * t->columns);
}

// work(r) for each row; on several threads where that is worth starting them.
template <typename Work>
void in_parallel(const std::vector<RowIndex>& rows, double work_per_row, const Work& work) {
  if (double(rows.size()) * work_per_row > 1e7)
    parallel_for(rows.size(), work);
  else
    for (size_t r = 0; r < rows.size(); ++r) work(r);
}

void require_size(const char* tensor, size_t got, size_t expected) {
  if (got != expected)
    throw Error(kUsage, std::string("check: ") + tensor + " has " + std::to_string(got) + " elements, expected " +
                            std::to_string(expected) + ".");
}

void require_inputs(const Problem& p, const Inputs& in) {
  require_size("Q", in.q.size(), q_elements(p));
  require_size("K", in.k.size(), kv_elements(p));
  require_size("V", in.v.size(), kv_elements(p));
}

struct ForwardRows {
  CheckedRows o, lse;
};

ForwardRows forward_rows(const Problem& p, const Inputs& in, const Outputs& out, uint64_t seed, bool with_lse) {
  require_inputs(p, in);
  require_size("O", out.o.size(), q_elements(p));
  ForwardRows result;
  result.o = new_rows(p, "O", p.dtype, p.heads, p.seqlen_q, p.head_dim);
  result.lse = new_rows(p, "LSE", Dtype::fp32, p.heads, p.seqlen_q, 1);
  std::vector<RowIndex> rows =
      rows_to_check(p.batch, p.heads, p.seqlen_q, double(p.seqlen_k) * p.head_dim, p.head_dim, seed);
  add_conspicuous_rows(p, out.o, false, false, &rows);
  if (with_lse) {
    require_size("LSE", out.softmax_lse.size(), q_rows(p));
    add_conspicuous_rows(p, out.softmax_lse, true, false, &rows);
  }
  set_rows(&result.o, rows, out.o);
  if (with_lse) set_rows(&result.lse, rows, out.softmax_lse);
  const ExpectedForward expected(p, in);
  in_parallel(rows, double(p.seqlen_k) * p.head_dim, [&](size_t r) {
    const RowIndex& row = rows[r];
    const ExpectedForwardRow expected_row = expected.row(row.b, row.h, row.i);
    set_row(&result.o, r, expected_row.o);
    float plain_lse;
    materialised_forward_row(p, in, row.b, row.h, row.i, &result.o.plain[r * p.head_dim], &plain_lse);
    if (!with_lse) return;
    set_row(&result.lse, r, {{expected_row.lse}, {expected_row.lse_unit}});
    result.lse.plain[r] = plain_lse;
  });
  return result;
}

void add_tensor(const Problem& p, const Inputs& in, const Outputs& out, CheckedRows* rows, CheckResult* result) {
  TensorCheck check = judge(rows, rows->expected);
  if (check.verdict == Verdict::fail) check.pattern = find_pattern(p, in, out, *rows);
  result->tensors.push_back(check);
}

Verdict worst_verdict(const std::vector<TensorCheck>& tensors) {
  Verdict verdict = Verdict::pass;
  for (const TensorCheck& t : tensors) {
    if (t.verdict == Verdict::fail) return Verdict::fail;
    if (t.verdict == Verdict::skip) verdict = Verdict::skip;
  }
  return verdict;
}

void conclude(const Problem& p, const std::string& reference, CheckResult* result) {
  result->verdict = worst_verdict(result->tensors);
  result->message = check_message(p, result->tensors, reference);
}

void add_forward(const Problem& p, const Inputs& in, const Outputs& out, uint64_t seed, CheckResult* result) {
  ForwardRows rows = forward_rows(p, in, out, seed, true);
  add_tensor(p, in, out, &rows.o, result);
  add_tensor(p, in, out, &rows.lse, result);
}

}  // namespace

const char* verdict_name(Verdict verdict) {
  return verdict == Verdict::pass ? "pass" : verdict == Verdict::fail ? "fail" : "skip";
}

CheckResult check_forward(const Problem& p, const Inputs& in, const Outputs& out, uint64_t seed) {
  CheckResult result;
  add_forward(p, in, out, seed, &result);
  conclude(p, "fp64", &result);
  return result;
}

CheckResult check_backward(const Problem& p, const Inputs& in, const Outputs& out, uint64_t seed) {
  CheckResult result;
  require_size("dO", in.d_o.size(), q_elements(p));
  require_size("dQ", out.dq.size(), q_elements(p));
  require_size("dK", out.dk.size(), kv_elements(p));
  require_size("dV", out.dv.size(), kv_elements(p));
  add_forward(p, in, out, seed, &result);
  if (worst_verdict(result.tensors) != Verdict::pass) {
    conclude(p, "fp64", &result);
    result.message += "\ndQ, dK and dV weren't checked: they are made from O and LSE.";
    return result;
  }

  const ExpectedBackward expected(p, in, out.o, out.softmax_lse);
  const std::vector<float> row_d = materialised_row_d(p, in, out.o);

  const double dq_work = 2.0 * p.seqlen_k * p.head_dim;
  CheckedRows dq = new_rows(p, "dQ", p.dtype, p.heads, p.seqlen_q, p.head_dim);
  std::vector<RowIndex> rows = rows_to_check(p.batch, p.heads, p.seqlen_q, dq_work, p.head_dim, seed);
  add_conspicuous_rows(p, out.dq, false, false, &rows);
  set_rows(&dq, rows, out.dq);
  in_parallel(rows, dq_work, [&](size_t r) {
    const RowIndex& row = rows[r];
    set_row(&dq, r, expected.dq_row(row.b, row.h, row.i));
    materialised_dq_row(p, in, out.softmax_lse, row_d, row.b, row.h, row.i, &dq.plain[r * p.head_dim]);
  });
  add_tensor(p, in, out, &dq, &result);

  const double dkv_work = 2.0 * group_size(p) * p.seqlen_q * p.head_dim;
  CheckedRows dk = new_rows(p, "dK", p.dtype, p.kv_heads, p.seqlen_k, p.head_dim);
  CheckedRows dv = new_rows(p, "dV", p.dtype, p.kv_heads, p.seqlen_k, p.head_dim);
  rows = rows_to_check(p.batch, p.kv_heads, p.seqlen_k, dkv_work, p.head_dim, seed);
  add_conspicuous_rows(p, out.dk, false, true, &rows);
  add_conspicuous_rows(p, out.dv, false, true, &rows);
  set_rows(&dk, rows, out.dk);
  set_rows(&dv, rows, out.dv);
  in_parallel(rows, dkv_work, [&](size_t r) {
    const RowIndex& row = rows[r];
    ExpectedRow expected_dk, expected_dv;
    expected.dkv_row(row.b, row.h, row.i, &expected_dk, &expected_dv);
    set_row(&dk, r, expected_dk);
    set_row(&dv, r, expected_dv);
    materialised_dkv_row(p, in, out.softmax_lse, row_d, row.b, row.h, row.i, &dk.plain[r * p.head_dim],
                         &dv.plain[r * p.head_dim]);
  });
  add_tensor(p, in, out, &dk, &result);
  add_tensor(p, in, out, &dv, &result);
  conclude(p, "fp64", &result);
  return result;
}

CheckResult check_expected(const Problem& p, const Inputs& in, const Outputs& out,
                           const std::vector<float>& expected_o) {
  require_size("the expected O", expected_o.size(), q_elements(p));
  CheckResult result;
  ForwardRows rows = forward_rows(p, in, out, 0, false);
  const std::vector<double> reference = rows.o.expected;
  for (size_t e = 0; e < rows.o.elements(); ++e) {
    const size_t at = row_position(rows.o, rows.o.rows[e / p.head_dim]) + e % p.head_dim;
    rows.o.expected[e] = expected_o[at];
  }
  result.tensors.push_back(judge(&rows.o, reference, 1));  // the file's values were rounded as well
  if (result.tensors[0].verdict == Verdict::fail) result.tensors[0].pattern = find_pattern(p, in, out, rows.o);
  conclude(p, "the expected file", &result);
  return result;
}

}  // namespace flash
