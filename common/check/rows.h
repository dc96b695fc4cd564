// One tensor under check: its checked rows, what they should hold and what they hold. Shared by the verdict (rule.cpp)
// and the words about it (pattern.cpp).
#pragma once
#include <string>
#include <vector>

#include "common/problem/problem.h"

namespace flash {

struct RowIndex {
  int b, h, i;  // h: a query head (O, LSE, dQ) or a key/value head (dK, dV); i: a query or a key
};

struct CheckedRows {
  std::string tensor;  // "O", "LSE", "dQ", "dK", "dV"
  Dtype dtype = Dtype::fp32;
  int heads = 1, rows_per_head = 1;  // of the whole tensor
  int columns = 1;                   // head_dim; 1 for LSE
  size_t rows_total = 0;
  size_t query_rows = 0;             // of the problem
  std::vector<RowIndex> rows;        // the checked ones, in order
  std::vector<double> expected;      // [rows][columns], as the three below
  std::vector<double> unit;          // the error that rounding explains: expected.h
  std::vector<float> plain;          // the materialised computation's
  std::vector<float> got;            // the run's
  std::vector<double> scale;         // [rows] what errors are divided by
  std::vector<double> bound;         // [rows][columns] largest error allowed
  std::vector<unsigned char> wrong;  // [rows][columns]

  size_t elements() const { return rows.size() * columns; }
  bool row_is_wrong(size_t r) const {
    for (int c = 0; c < columns; ++c)
      if (wrong[r * columns + c]) return true;
    return false;
  }
};

}  // namespace flash
