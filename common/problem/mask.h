// Who sees whom. Causal is aligned to the bottom right: query i sees the keys j <= i + seqlen_k - seqlen_q, so the last
// query sees every key. Reference, checker and kernels ask here, about a pair, a row, a column or a whole tile.
#pragma once
#include "common/problem/problem.h"

#ifdef __CUDACC__
#define HOST_DEVICE __host__ __device__
#else
#define HOST_DEVICE
#endif

namespace flash {

// Does query i see key j? No query sees a key past the end.
HOST_DEVICE inline bool visible(const Problem& p, int i, int j) {
  return j < p.seqlen_k && !(p.causal && j > i + p.seqlen_k - p.seqlen_q);
}

// Query i sees the keys 0 <= j < visible_keys(i). (In 64 bits: i may lie up to a tile past the end.)
HOST_DEVICE inline int visible_keys(const Problem& p, int i) {
  if (!p.causal) return p.seqlen_k;
  const long long end = 1ll + i + p.seqlen_k - p.seqlen_q;
  return end < 0 ? 0 : end < p.seqlen_k ? int(end) : p.seqlen_k;
}

// Key j is seen by the queries i >= first_query(j); by none if that is seqlen_q.
HOST_DEVICE inline int first_query(const Problem& p, int j) {
  if (!p.causal) return 0;
  const long long first = (long long)j - p.seqlen_k + p.seqlen_q;
  return first < 0 ? 0 : first < p.seqlen_q ? int(first) : p.seqlen_q;
}

// What a tile of `queries` x `keys` sees. Only `some` needs a look at each pair; a tile that reaches past the last key
// is never `all`.
enum class Seen { none, some, all };
HOST_DEVICE inline Seen tile_sees(const Problem& p, int query, int queries, int key, int keys) {
  if (visible(p, query, key + keys - 1)) return Seen::all;  // the first query sees the last key
  const int last = (query + queries < p.seqlen_q ? query + queries : p.seqlen_q) - 1;
  return visible(p, last, key) ? Seen::some : Seen::none;
}

}  // namespace flash
