// Which query tile is number n: the order in which the blocks of a kernel take them.
//
//   full     head by head, so that blocks which run at the same time share a head's K and V in L2.
//   causal   later tiles of a head see more keys. The longest begin, and the short ones fill the gaps at the end: the last
//            tile of every head, then the last but one of every head, and so on. But that reads the K and V of all heads
//            again and again, so heads go in *sections* whose K and V fit into L2; each section is in that order.
//
//   2 heads of 4 tiles each, a section:   tile 3 of head 0, 3 of 1, 2 of 0, 2 of 1, 1 of 0, 1 of 1, 0 of 0, 0 of 1
#pragma once
#include <algorithm>
#include <string>

#include "common/kernel/cuda.cuh"
#include "common/kernel/step.h"
#include "common/kernel/tiles_seen.h"
#include "common/problem/mask.h"

namespace {

struct QueryTile {
  int batch_head, kv_head;  // counted through the batch
  int first_row, key_tiles;
};

struct TileOrder {
  int query_tiles, batch_heads;
  int section;  // heads
  __host__ __device__ int tiles() const { return query_tiles * batch_heads; }
};

// How many key tiles a row of these sees something of. At least one: rows that see no key multiply a tile of weights 0.
template <int kBlockN>
__device__ __forceinline__ int key_tiles_seen(const flash::Problem& problem, int first_row, int rows) {
  const int last_row = min(first_row + rows, problem.seqlen_q) - 1;
  return max(ceil_div(flash::visible_keys(problem, last_row), kBlockN), 1);
}

template <int kBlockM, int kBlockN>
__device__ __forceinline__ QueryTile query_tile(const flash::Problem& problem, const TileOrder& order, int number) {
  QueryTile tile;
  int in_head = number % order.query_tiles;
  tile.batch_head = number / order.query_tiles;
  if (problem.causal) {
    const int first_head = number / (order.section * order.query_tiles) * order.section;
    const int heads = min(order.section, order.batch_heads - first_head);
    const int in_section = number - first_head * order.query_tiles;
    in_head = order.query_tiles - 1 - in_section / heads;
    tile.batch_head = first_head + in_section % heads;
  }
  const int batch = tile.batch_head / problem.heads, head = tile.batch_head % problem.heads;
  tile.kv_head = batch * problem.kv_heads + head / (problem.heads / problem.kv_heads);
  tile.first_row = in_head * kBlockM;
  tile.key_tiles = key_tiles_seen<kBlockN>(problem, tile.first_row, kBlockM);
  return tile;
}

// All heads are one section.
inline TileOrder one_section(const flash::Problem& p, int block_m) {
  return {ceil_div(p.seqlen_q, block_m), p.batch * p.heads, p.batch * p.heads};
}

// Sections of equal size whose K and V fit into most of L2. Each has two tiles for every block at least, or its longest
// tile would outlast the others.
inline TileOrder in_sections(const flash::Problem& p, const flash::Plan& plan) {
  constexpr size_t kL2Bytes = size_t(32) << 20;  // of the 50 MB that an H100 and an H200 have
  TileOrder order = one_section(p, plan.block_m);
  const size_t kv_heads_that_fit = std::max(kL2Bytes / (size_t(p.seqlen_k) * p.head_dim * 4), size_t(1));
  const size_t heads_that_fit = std::min(kv_heads_that_fit * (p.heads / p.kv_heads), size_t(order.batch_heads));
  const int sections = order.batch_heads / std::max(int(heads_that_fit), 2 * plan.blocks / order.query_tiles);
  order.section = ceil_div(order.batch_heads, std::max(sections, 1));
  return order;
}

// The plan of a kernel that has a block for each query tile.
inline flash::Plan query_tiles_plan(const std::string& name, const flash::Problem& p, const flash::Device& device,
                                    int block_m, int block_n, size_t shared_bytes) {
  flash::Plan plan;
  plan.block_m = block_m;
  plan.block_n = block_n;
  plan.shared_bytes = shared_bytes;
  plan.blocks = one_section(p, block_m).tiles();
  plan.refusal = flash::tiles_refusal(name, plan, p, device);
  double keys = 0;  // read by a head's query tiles
  for (long long query = 0; query < p.seqlen_q; query += block_m) {
    keys += std::max(flash::keys_visited(p, int(query), block_m, block_n), std::min(block_n, p.seqlen_k));
  }
  const double heads = double(p.batch) * p.heads, row = p.head_dim * 2.0;
  plan.traffic = {heads * (p.seqlen_q + 2 * keys) * row, heads * p.seqlen_q * (row + 4)};
  return plan;
}

// Of one whose blocks, no more than the device has SMs, draw tiles from a counter: zero at first, and left at zero.
inline flash::Plan drawn_tiles_plan(const std::string& name, const flash::Problem& p, const flash::Device& device,
                                    int block_m, int block_n, size_t shared_bytes) {
  flash::Plan plan = query_tiles_plan(name, p, device, block_m, block_n, shared_bytes);
  plan.workspace_bytes = sizeof(int);
  plan.zeroed_bytes = sizeof(int);
  plan.traffic.write_bytes += (plan.blocks + 1.0) * sizeof(int);  // a draw a tile, and the reset
  plan.blocks = std::min(plan.blocks, device.sm_count);
  return plan;
}

}  // namespace
