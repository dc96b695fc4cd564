// visit_shape<Shape>(problem, visit): visit(Shape<Element, kHeadDim, kCausal>()) with the problem's dtype, head_dim and
// mask. For kernels that are compiled for each of them.
#pragma once

#include "common/kernel/cuda.cuh"

namespace {

template <template <class, int, bool> class Shape, class Element, bool kCausal, class Visit>
auto visit_head_dim(int head_dim, const Visit& visit) {
  switch (head_dim) {
    case 64: return visit(Shape<Element, 64, kCausal>());
    case 128: return visit(Shape<Element, 128, kCausal>());
    default: return visit(Shape<Element, 256, kCausal>());
  }
}

template <template <class, int, bool> class Shape, class Visit>
auto visit_shape(const flash::Problem& p, const Visit& visit) {
  if (p.dtype == flash::Dtype::bf16) {
    return p.causal ? visit_head_dim<Shape, __nv_bfloat16, true>(p.head_dim, visit)
                    : visit_head_dim<Shape, __nv_bfloat16, false>(p.head_dim, visit);
  }
  return p.causal ? visit_head_dim<Shape, __half, true>(p.head_dim, visit)
                  : visit_head_dim<Shape, __half, false>(p.head_dim, visit);
}

}  // namespace
