// Which rows of a tensor are checked.
#pragma once
#include <cstdint>
#include <vector>

#include "common/check/rows.h"
#include "common/problem/problem.h"

namespace flash {

// All rows of a small tensor, else as many as the work allows (work_per_row: multiplications), spread over the batch and
// the heads: the ends of each head, the edges of tiles, and others drawn by the seed.
std::vector<RowIndex> rows_to_check(int batch, int heads, int rows_per_head, double work_per_row, int columns,
                                    uint64_t seed);

// Adds rows that no sample may miss: NaN or infinity where none belongs, and rows without a key that aren't exact. A few
// are enough to tell the story. `is_keys`: rows are keys (dK, dV), not queries.
void add_conspicuous_rows(const Problem&, const std::vector<float>& values, bool is_lse, bool is_keys,
                          std::vector<RowIndex>* rows);

}  // namespace flash
