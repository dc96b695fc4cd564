// Long sums in fp32, in blocks: each block is summed up by itself, then the blocks' sums are. One running sum of n terms
// rounds its total n times; blocks of b terms round each share b times and the total n / b times.
//
// What a gradient of many terms is held to (expected.h, materialised.h):
//   dK, dV: a sum over the queries of a key. The block that owns the key has all of it, and may sum as it likes: 1024
//     terms at a time, or sqrt(n) where that is more. So a term is rounded n times up to 1024, little more often up to a
//     million, and then 2 sqrt(n) times.
//   dQ: a sum over keys, to which blocks that own keys add a tile's share at a time, in any order. It can't do better than
//     its tiles: 64 keys. Up to 65536 keys a sum by 1024 is rounded more often, and counts.
#pragma once
#include <algorithm>
#include <cmath>

namespace flash {

inline int block_of_queries(double n) { return std::max(1024, int(std::ceil(std::sqrt(n)))); }
inline int block_of_keys(double n) { return n <= 65536 ? 1024 : 64; }

// How many roundings a term of n meets, its own addition's included.
inline double additions(double n, int block) { return n <= block ? n : block + n / block; }

}  // namespace flash
