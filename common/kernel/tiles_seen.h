// What a mask leaves of a problem that is cut into tiles: plan() predicts traffic from it.
#pragma once
#include "common/problem/problem.h"

namespace flash {

// Keys that the query tile at `query` visits: those of the key tiles in which one of its rows sees a key, and none past
// the end. 0: it sees nothing.
int keys_visited(const Problem&, int query, int block_m, int block_n);
// The same, summed over the query tiles of a head: rows of K that they read together.
double keys_visited_by_all(const Problem&, int block_m, int block_n);

// Queries that the key tile at `key` visits: those of the query tiles in which one of them sees a key of it.
int queries_visited(const Problem&, int key, int block_m);

}  // namespace flash
