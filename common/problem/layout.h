// Where a row of a tensor starts; the shapes are in problem.h.
#pragma once
#include <cstddef>

#include "common/problem/problem.h"

namespace flash {

inline size_t q_row_index(const Problem& p, int b, int h, int i) { return (size_t(b) * p.heads + h) * p.seqlen_q + i; }
inline size_t kv_row_index(const Problem& p, int b, int kv_head, int j) {
  return (size_t(b) * p.kv_heads + kv_head) * p.seqlen_k + j;
}
// Of Q, O, dO, dQ; then of K, V, dK, dV. `tensor` may be a vector's data() or a pointer.
template <typename T>
T* q_row(T* tensor, const Problem& p, int b, int h, int i) {
  return tensor + q_row_index(p, b, h, i) * p.head_dim;
}
template <typename T>
T* kv_row(T* tensor, const Problem& p, int b, int kv_head, int j) {
  return tensor + kv_row_index(p, b, kv_head, j) * p.head_dim;
}

inline int group_size(const Problem& p) { return p.heads / p.kv_heads; }  // query heads that share a key/value head
inline int kv_head_of(const Problem& p, int h) { return h / group_size(p); }

}  // namespace flash
