// Tiles in *slabs* of 64 columns, as wgmma's operands lie in shared memory: [slab][rows][64] 16-bit elements, each row 128
// bytes with a swizzle of as many (ptx/tma.cuh draws it). wgmma's descriptors of them: slabs_descriptor().
#pragma once

#include "common/kernel/ptx/tensor_map.cuh"

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

}  // namespace
