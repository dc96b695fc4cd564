// slab_map(): the tensor map of [matrices, rows, head_dim], 16-bit elements, for boxes that lie in shared memory as
// wgmma's operands do: in slabs of 64 columns, [slab][box_rows][64], each row 128 bytes with a swizzle of as many.
//
//   tma_load(tile, &map, &full, 0, first_row, first_slab, matrix);
#pragma once

#include "common/kernel/ptx/tensor_map.cuh"

namespace {

template <class Element>
CUtensorMap slab_map(const Element* data, int matrices, int rows, int head_dim, int box_rows, int box_slabs) {
  const long long row_bytes = head_dim * sizeof(Element);
  return make_tensor_map(data, {64, rows, head_dim / 64, matrices}, {row_bytes, 128, row_bytes * rows},
                         {64, box_rows, box_slabs, 1}, Swizzle::bytes128);
}

}  // namespace
