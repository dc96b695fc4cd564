// The closed forms of problem.cpp against counting, and the mask against its definition.
#include "common/problem/problem.h"

#include <algorithm>

#include "common/problem/mask.h"
#include "common/tests/catch.h"

using namespace flash;

static double counted_pairs(const Problem& p) {
  double pairs = 0;
  for (int i = 0; i < p.seqlen_q; ++i) {
    for (int j = 0; j < p.seqlen_k; ++j) pairs += !p.causal || j <= i + p.seqlen_k - p.seqlen_q;
  }
  return pairs;
}

TEST_CASE("flops counts the query-key pairs that the mask leaves") {
  for (bool causal : {false, true}) {
    for (int seqlen_q : {1, 2, 7, 64, 65}) {
      for (int seqlen_k : {1, 2, 7, 64, 65}) {
        Problem p;
        p.batch = 3, p.heads = 4, p.head_dim = 32, p.causal = causal;
        p.seqlen_q = seqlen_q, p.seqlen_k = seqlen_k;
        CAPTURE(causal, seqlen_q, seqlen_k);
        CHECK(flops(p, Direction::forward) == 4.0 * 3 * 4 * 32 * counted_pairs(p));
        CHECK(flops(p, Direction::backward) == 2.5 * flops(p, Direction::forward));
      }
    }
  }
}

TEST_CASE("least_traffic reads every input once and writes every output once") {
  Problem p;
  p.batch = 2, p.heads = 6, p.kv_heads = 3, p.seqlen_q = 5, p.seqlen_k = 7, p.head_dim = 64, p.dtype = Dtype::bf16;
  const double q = 2.0 * 6 * 5 * 64 * 2, kv = 2.0 * 3 * 7 * 64 * 2, lse = 2.0 * 6 * 5 * 4;
  CHECK(least_traffic(p, Direction::forward).read_bytes == q + 2 * kv);
  CHECK(least_traffic(p, Direction::forward).write_bytes == q + lse);
  CHECK(least_traffic(p, Direction::backward).read_bytes == 3 * q + 2 * kv + lse);
  CHECK(least_traffic(p, Direction::backward).write_bytes == q + 2 * kv);
}

TEST_CASE("a mask says the same of a pair, a row, a column and a tile") {
  Problem p;
  for (bool causal : {false, true}) {
    for (int seqlen_q : {1, 3, 8, 11}) {
      for (int seqlen_k : {1, 4, 8, 13}) {
        p.causal = causal, p.seqlen_q = seqlen_q, p.seqlen_k = seqlen_k;
        CAPTURE(causal, seqlen_q, seqlen_k);
        for (int i = 0; i < seqlen_q; ++i) {
          for (int j = 0; j < seqlen_k; ++j) {
            const bool sees = !causal || j <= i + seqlen_k - seqlen_q;
            CHECK(visible(p, i, j) == sees);
            CHECK((j < visible_keys(p, i)) == sees);
            CHECK((i >= first_query(p, j)) == sees);
          }
        }
        CHECK(!visible(p, seqlen_q - 1, seqlen_k));
        for (int query = 0; query < seqlen_q; query += 4) {
          for (int key = 0; key < seqlen_k; key += 3) {
            int pairs = 0, seen = 0;  // a ragged tile of keys is never wholly seen
            for (int i = query; i < std::min(query + 4, seqlen_q); ++i) {
              for (int j = key; j < key + 3; ++j) ++pairs, seen += visible(p, i, j);
            }
            CAPTURE(query, key);
            CHECK(tile_sees(p, query, 4, key, 3) == (seen == 0 ? Seen::none : seen == pairs ? Seen::all : Seen::some));
          }
        }
      }
    }
  }
}
