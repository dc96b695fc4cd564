#include "common/kernel/tiles_seen.h"

#include <algorithm>

#include "common/problem/mask.h"

namespace flash {

int keys_visited(const Problem& p, int query, int block_m, int block_n) {
  const int last = std::min(query + block_m, p.seqlen_q) - 1;  // it sees most
  const long long tiles = (visible_keys(p, last) + block_n - 1ll) / block_n;
  return int(std::min<long long>(tiles * block_n, p.seqlen_k));
}

double keys_visited_by_all(const Problem& p, int block_m, int block_n) {
  double keys = 0;
  for (long long query = 0; query < p.seqlen_q; query += block_m) keys += keys_visited(p, int(query), block_m, block_n);
  return keys;
}

int queries_visited(const Problem& p, int key, int block_m) {
  return p.seqlen_q - first_query(p, key) / block_m * block_m;
}

}  // namespace flash
