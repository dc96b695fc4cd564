// The problem every step solves:
//
//   O = softmax(softmax_scale * Q K^T + mask) V        softmax_lse = log(sum(exp(scores))), a row at a time
//
//   Q, O           [batch, heads,    seqlen_q, head_dim]   contiguous, row-major
//   K, V           [batch, kv_heads, seqlen_k, head_dim]   kv_heads divides heads (GQA; kv_heads = 1 is MQA):
//                                                          query head h reads key/value head h / (heads / kv_heads)
//   softmax_lse    [batch, heads, seqlen_q]                always fp32, natural logarithm
//
// Which keys a query sees is mask.h's. A row that sees no key has O = 0 and softmax_lse = -inf, and gives zero
// gradients. problem/ has what belongs to this and to no implementation of it: shapes, masks, number formats, inputs,
// files of tensors, the reference.
#pragma once
#include <cstddef>

namespace flash {

enum class Dtype { fp32, fp16, bf16 };
enum class Direction { forward, backward };

struct Problem {
  int batch = 1;
  int heads = 1;
  int kv_heads = 1;
  int seqlen_q = 1;
  int seqlen_k = 1;
  int head_dim = 64;
  bool causal = false;
  float softmax_scale = 0.125f;  // finite and > 0; ./run's default is 1/sqrt(head_dim)
  Dtype dtype = Dtype::fp32;     // of Q, K, V, O, dO, dQ, dK, dV
  bool deterministic = false;    // backward only: the same bits run after run
};

inline size_t q_elements(const Problem& p) { return size_t(p.batch) * p.heads * p.seqlen_q * p.head_dim; }
inline size_t kv_elements(const Problem& p) { return size_t(p.batch) * p.kv_heads * p.seqlen_k * p.head_dim; }
inline size_t q_rows(const Problem& p) { return size_t(p.batch) * p.heads * p.seqlen_q; }
inline size_t dtype_bytes(Dtype t) { return t == Dtype::fp32 ? 4 : 2; }
const char* dtype_name(Dtype);  // "fp32", "fp16", "bf16"

// Bytes that the threads of a kernel ask global memory for, counted a thread at a time: what the CPU back end counts as
// global_read_bytes and global_write_bytes. (Caches lie below this; sectors are another count.)
struct Traffic {
  double read_bytes = 0;
  double write_bytes = 0;
};
// The least any implementation needs: every input read once, every output written once.
Traffic least_traffic(const Problem&, Direction);
// 4 * batch * heads * head_dim * (unmasked query-key pairs) forward, 2.5 times that backward.
double flops(const Problem&, Direction);

}  // namespace flash
