// Tiles in *slabs* of 64 columns, as wgmma's operands lie in shared memory: [slab][rows][64] 16-bit elements, each row 128
// bytes with a swizzle of as many (ptx/tma.cuh draws it). wgmma's descriptors of them: slabs_descriptor().
#pragma once

#include "common/kernel/ptx/tensor_map.cuh"
#include "common/kernel/step.h"

namespace {

// Where 16-byte chunk `chunk` of row `row` lies in a slab.
template <class Element, int kRows>
__device__ __forceinline__ Element* slab_chunk(Element (&slab)[kRows][64], int row, int chunk) {
  return &slab[row][(chunk ^ row % 8) * 8];
}

// The map of [matrices, rows, head_dim] for boxes of box_rows rows and `slabs` slabs:
//   tma_load(tile, &map, full, 0, first_row, first_slab, matrix);
template <class Element>
CUtensorMap slab_map(const Element* data, int matrices, int rows, int head_dim, int box_rows, int slabs) {
  const long long row_bytes = head_dim * sizeof(Element);
  return make_tensor_map(data, {64, rows, head_dim / 64, matrices}, {row_bytes, 128, row_bytes * rows},
                         {64, box_rows, slabs, 1}, Swizzle::bytes128);
}

struct AttentionMaps {
  CUtensorMap q, k, v, o;
};
// Boxes: of Q, K and V q_rows and k_rows rows, head_dim wide; of O a slab of 16 rows.
template <class Element>
AttentionMaps attention_maps(const flash::ForwardArgs& a, int q_rows, int k_rows) {
  const flash::Problem& p = a.problem;
  const auto map = [&](const void* data, int heads, int rows, int box_rows, int slabs) {
    return slab_map(static_cast<const Element*>(data), p.batch * heads, rows, p.head_dim, box_rows, slabs);
  };
  const int slabs = p.head_dim / 64;
  return {map(a.q, p.heads, p.seqlen_q, q_rows, slabs), map(a.k, p.kv_heads, p.seqlen_k, k_rows, slabs),
          map(a.v, p.kv_heads, p.seqlen_k, k_rows, slabs), map(a.o, p.heads, p.seqlen_q, 16, 1)};
}

}  // namespace
