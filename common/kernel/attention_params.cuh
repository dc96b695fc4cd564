// What a kernel that takes Q, K and V by TMA is told, beside its template arguments.
#pragma once

#include "common/kernel/query_tiles.cuh"
#include "common/kernel/slabs.cuh"

namespace {

struct AttentionParams {
  CUtensorMap q_map, k_map, v_map;  // boxes of block_m or block_n rows, head_dim wide
  CUtensorMap o_map;                // boxes of 16 rows and one slab
  flash::Problem problem;
  TileOrder order;
  float scale_log2;  // of scores in the exponent of 2
  int* counter;      // of the query tiles that have been drawn
  void* o;
  float* softmax_lse;
};

template <class Element>
AttentionParams attention_params(const flash::ForwardArgs& a, const flash::Plan& plan, const TileOrder& order,
                                 void* workspace) {
  const flash::Problem& p = a.problem;
  const auto map = [&](const void* data, int heads, int rows, int box_rows, int slabs) {
    return slab_map(static_cast<const Element*>(data), p.batch * heads, rows, p.head_dim, box_rows, slabs);
  };
  AttentionParams params;
  params.q_map = map(a.q, p.heads, p.seqlen_q, plan.block_m, p.head_dim / 64);
  params.k_map = map(a.k, p.kv_heads, p.seqlen_k, plan.block_n, p.head_dim / 64);
  params.v_map = map(a.v, p.kv_heads, p.seqlen_k, plan.block_n, p.head_dim / 64);
  params.o_map = map(a.o, p.heads, p.seqlen_q, 16, 1);
  params.problem = p;
  params.order = order;
  params.scale_log2 = p.softmax_scale * kLog2e;
  params.counter = static_cast<int*>(workspace);
  params.o = a.o;
  params.softmax_lse = a.softmax_lse;
  return params;
}

}  // namespace
