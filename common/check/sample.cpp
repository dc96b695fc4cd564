#include "common/check/sample.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "common/problem/layout.h"
#include "common/problem/mask.h"

namespace flash {
namespace {

// Checking a row costs its length times head_dim, several times over; this much is about a second on one core.
const double kWorkForAllRows = 3e8;
const double kElementsForAllRows = 1 << 22;
const size_t kLeastSampledRows = 8;

uint64_t scrambled(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// About `count` of 0 .. total-1, ascending: both ends, the edges of tiles (16 to 256 rows) at both ends, and one at
// random from each of as many equal stretches as are left.
std::vector<int> sample(int total, size_t count, uint64_t seed) {
  std::vector<int> chosen;
  if (count >= size_t(total)) {
    for (int i = 0; i < total; ++i) chosen.push_back(i);
    return chosen;
  }
  chosen = {0, total - 1};
  for (int tile : {64, 128, 32, 16, 256}) {
    const int last = (total - 1) / tile * tile;  // where the last, perhaps ragged, tile starts
    for (int edge : {last, last - 1, tile - 1, tile})
      if (edge >= 0 && edge < total && chosen.size() * 2 < count) chosen.push_back(edge);
  }
  const size_t stretches = count - std::min(count, chosen.size());
  for (size_t n = 0; n < stretches; ++n) {
    const size_t begin = n * size_t(total) / stretches, end = (n + 1) * size_t(total) / stretches;
    chosen.push_back(int(begin + scrambled(seed * 1000003 + n) % (end - begin)));
  }
  std::sort(chosen.begin(), chosen.end());
  chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
  return chosen;
}

void merge(std::vector<RowIndex>* rows, const std::vector<RowIndex>& more) {
  auto before = [](const RowIndex& x, const RowIndex& y) {
    return x.b != y.b ? x.b < y.b : x.h != y.h ? x.h < y.h : x.i < y.i;
  };
  auto same = [](const RowIndex& x, const RowIndex& y) { return x.b == y.b && x.h == y.h && x.i == y.i; };
  rows->insert(rows->end(), more.begin(), more.end());
  std::sort(rows->begin(), rows->end(), before);
  rows->erase(std::unique(rows->begin(), rows->end(), same), rows->end());
}

}  // namespace

std::vector<RowIndex> rows_to_check(int batch, int heads, int rows_per_head, double work_per_row, int columns,
                                    uint64_t seed) {
  const double total = double(batch) * heads * rows_per_head;
  size_t per_head = rows_per_head;
  int head_step = 1;
  if (total * work_per_row > kWorkForAllRows || total * columns > kElementsForAllRows) {
    const double rows =
        std::max(double(kLeastSampledRows), std::min(kWorkForAllRows / work_per_row, kElementsForAllRows / columns));
    per_head = size_t(std::max(2.0, rows / (double(batch) * heads)));
    head_step = int(std::max(1.0, std::ceil(double(batch) * heads * per_head / rows)));
  }
  std::vector<RowIndex> rows;
  const long long all_heads = (long long)batch * heads;
  for (long long at = 0; at < all_heads; ++at) {
    if (at % head_step != 0 && at != all_heads - 1) continue;
    for (int i : sample(rows_per_head, per_head, scrambled(seed + uint64_t(at))))
      rows.push_back({int(at / heads), int(at % heads), i});
  }
  return rows;
}

void add_conspicuous_rows(const Problem& p, const std::vector<float>& values, bool is_lse, bool is_keys,
                          std::vector<RowIndex>* rows) {
  const size_t kEnough = 64;
  const int heads = is_keys ? p.kv_heads : p.heads;
  const int rows_per_head = is_keys ? p.seqlen_k : p.seqlen_q;
  const int columns = is_lse ? 1 : p.head_dim;
  std::vector<RowIndex> found;
  const float* value = values.data();
  for (int b = 0; b < p.batch; ++b) {
    for (int h = 0; h < heads; ++h) {
      for (int i = 0; i < rows_per_head; ++i) {
        const bool no_key = !is_keys && visible_keys(p, i) == 0;
        bool good = true;
        for (int c = 0; c < columns; ++c, ++value) {
          if (no_key)
            good = good && (is_lse ? *value == -std::numeric_limits<float>::infinity() : *value == 0);
          else
            good = good && std::isfinite(*value);
        }
        if (!good && found.size() < kEnough) found.push_back({b, h, i});
      }
    }
  }
  merge(rows, found);
}

}  // namespace flash
