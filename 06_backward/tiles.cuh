// What the tensor-core landings' kernels are made of: what they are given, a block's walk, tiles in shared memory,
// products of fragments. The lane maps are drawn in common/kernel/ptx/; ldmatrix and the swizzle are step 05's.
#pragma once
#include <type_traits>

#include "common/kernel/cuda.cuh"
#include "common/kernel/ptx/cp_async.cuh"
#include "common/kernel/ptx/ldmatrix.cuh"
#include "common/kernel/ptx/mma.cuh"
#include "common/kernel/ptx/pack.cuh"
#include "common/kernel/step.h"
#include "common/problem/mask.h"

namespace {

// P is kept 2^14 times too large in fp16, which has no number between 0 and 6e-8 and few below 6e-5: P <= 1.
template <class Element>
constexpr int kPExponent = std::is_same_v<Element, __half> ? 14 : 0;
template <class Element>
constexpr float kPUnit = 1.f / (1 << kPExponent<Element>);  // 1 in units of P

// What the kernels are given: the problem, the tensors, and the workspace, whose rows are [batch, heads, padded_q].
struct Params : flash::BackwardArgs {
  float* lse2;   // LSE in base 2 and units of P; +inf for a row that sees no key
  float* d_sum;  // D
  float* dq_accum;
  int padded_q;
};

// ---- a block's walk ----

// The query tiles that see a key tile, head by head of those that share the keys. A step is one tile of one head.
template <int kBlockM>
struct Walk {
  __device__ Walk(const flash::Problem& problem, int first_key, size_t kv_head)
      : first_head(kv_head * (problem.heads / problem.kv_heads)),
        first_tile(flash::first_query(problem, first_key) / kBlockM),
        head_steps(ceil_div(problem.seqlen_q, kBlockM) - first_tile),
        steps(head_steps * (problem.heads / problem.kv_heads)) {}
  __device__ size_t head(int step) const { return first_head + step / head_steps; }
  __device__ int query(int step) const { return (first_tile + step % head_steps) * kBlockM; }

  size_t first_head;  // over [batch, heads]
  int first_tile, head_steps, steps;
};

// ---- tiles in shared memory: rows of kCols elements, 16-byte chunk c of row r stored at c ^ r % 8 ----

template <int kCols>
__device__ __forceinline__ int swizzled(int row, int chunk) {
  return row * kCols + (chunk ^ row % 8) * 8;
}

// The row of 16 bytes that this lane names to ldmatrix_x4 for the 16 x 16 patch at (row, col). down_first: its four
// matrices in the order down, then right (an A operand; with .trans a B operand stored [k][n]); right_first: right, then
// down (a B operand stored [n][k]).
template <int kCols, class Element>
__device__ __forceinline__ const Element* down_first(const Element* tile, int row, int col) {
  const int lane = threadIdx.x % kWarpSize;
  return tile + row * kCols + swizzled<kCols>(lane % 16, col / 8 + lane / 16);
}
template <int kCols, class Element>
__device__ __forceinline__ const Element* right_first(const Element* tile, int row, int col) {
  const int lane = threadIdx.x % kWarpSize;
  return tile + row * kCols + swizzled<kCols>(lane / 16 * 8 + lane % 8, col / 8 + lane / 8 % 2);
}

// Starts the copy of kRows rows of a [rows, kCols] matrix; zeros where it has fewer.
template <int kRows, int kCols, int kThreads, class Element>
__device__ __forceinline__ void copy_tile(Element* tile, const void* matrix, size_t offset, int rows) {
  constexpr int kChunks = kCols / 8;
  const Element* const source = static_cast<const Element*>(matrix) + offset;
  for (int i = 0; i < ceil_div(kRows * kChunks, kThreads); ++i) {
    const int index = i * kThreads + threadIdx.x, row = index / kChunks, chunk = index % kChunks;
    if (kRows * kChunks % kThreads != 0 && row >= kRows) break;
    const bool valid = row < rows;
    cp_async<16>(tile + swizzled<kCols>(row, chunk), source + (valid ? row * kCols + chunk * 8 : 0), valid);
  }
}

// Starts the copy of a step's Q and dO, [Q, dO][kBlockM][kHeadDim], and of its LSE and D, [LSE, D][kBlockM].
template <class T, class Element>
__device__ __forceinline__ void copy_queries(Element* q_tile, float* stats, const Params& params,
                                             const Walk<T::kBlockM>& walk, int step) {
  constexpr int kBlockM = T::kBlockM;
  const int query = walk.query(step), rows = params.problem.seqlen_q - query;
  const size_t offset = (walk.head(step) * params.problem.seqlen_q + query) * T::kHeadDim;
  copy_tile<kBlockM, T::kHeadDim, T::kThreads>(q_tile, params.q, offset, rows);
  copy_tile<kBlockM, T::kHeadDim, T::kThreads>(q_tile + kBlockM * T::kHeadDim, params.d_o, offset, rows);
  if (threadIdx.x < 2 * kBlockM / 4) {
    const int is_d = threadIdx.x / (kBlockM / 4), i = threadIdx.x % (kBlockM / 4) * 4;
    const float* const source = is_d ? params.d_sum : params.lse2;
    cp_async<16>(stats + is_d * kBlockM + i, source + walk.head(step) * params.padded_q + query + i);
  }
}

// ---- products: c += a b for two neighbouring n8 tiles of c ----

template <class Element>
__device__ __forceinline__ void mma_pair(float (&c)[2][4], const uint32_t (&a)[4], const uint32_t (&b)[2][2]) {
  mma_m16n8k16<Element>(c[0], a, b[0]);
  mma_m16n8k16<Element>(c[1], a, b[1]);
}

// x += A B^T, A [kRows x 16, kCols] and B [kPairs x 16, kCols] both stored along kCols: S^T, dP^T; S, dP.
template <int kCols, int kRows, int kPairs, class Element>
__device__ __forceinline__ void multiply_abt(float (&x)[kRows][kPairs][2][4], const Element* a_tile,
                                             const Element* b_tile) {
  for (int col = 0; col < kCols; col += 16) {
    uint32_t a[kRows][4];
    for (int m = 0; m < kRows; ++m) ldmatrix_x4(a[m], down_first<kCols>(a_tile, m * 16, col));
#pragma unroll
    for (int n = 0; n < kPairs; ++n) {
      uint32_t b[2][2];
      ldmatrix_x4(b, right_first<kCols>(b_tile, n * 16, col));
      for (int m = 0; m < kRows; ++m) mma_pair<Element>(x[m][n], a[m], b);
    }
  }
}

// x += A B, A in fragments [kRows x 16, kDepth x 16], B [kDepth x 16, kCols] as stored: dV, dK; dQ.
template <int kCols, int kRows, int kDepth, class Element>
__device__ __forceinline__ void multiply_ab(float (&x)[kRows][kCols / 16][2][4], const uint32_t (&a)[kRows][kDepth][4],
                                            const Element* b_tile) {
  for (int k = 0; k < kDepth; ++k) {
    for (int n = 0; n < kCols / 16; ++n) {
      uint32_t b[2][2];
      ldmatrix_x4_trans(b, down_first<kCols>(b_tile, k * 16, n * 16));
      for (int m = 0; m < kRows; ++m) mma_pair<Element>(x[m][n], a[m][k], b);
    }
  }
}

// ---- what goes into a fragment and comes out of one ----

// Scores that don't count become -inf: keys past the end and, causal, keys after the query. first_key and first_query
// are those of this lane's first element; x is [keys, queries] if transposed, else [queries, keys].
template <bool kTransposed, int kRows, int kPairs>
__device__ __forceinline__ void mask(float (&x)[kRows][kPairs][2][4], int first_key, int first_query,
                                     const flash::Problem& problem) {
  const int keys = problem.seqlen_k - first_key;  // that are left, from this lane's first
  const int reach = problem.causal ? first_query + problem.seqlen_k - problem.seqlen_q - first_key : problem.seqlen_k;
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
    for (int n = 0; n < kPairs; ++n) {
      for (int i = 0; i < 8; ++i) {
        const int r = m * 16 + i % 4 / 2 * 8, c = n * 16 + i / 4 * 8 + i % 2;
        const int key = kTransposed ? r : c, query = kTransposed ? c : r;
        if (key >= keys || key - query > reach) x[m][n][i / 4][i % 4] = -INFINITY;
      }
    }
  }
}

// Writes x * factor, rounded, to the first `rows` rows of a [rows, kCols] matrix.
template <int kCols, int kRows, class Element>
__device__ __forceinline__ void write_rows(Element* matrix, const float (&x)[kRows][kCols / 16][2][4], float factor,
                                           int rows) {
  const int lane = threadIdx.x % kWarpSize;
  for (int i = 0; i < 2 * kRows; ++i) {
    const int row = i * 8 + lane / 4;
    if (row >= rows) break;
    for (int n = 0; n < kCols / 8; ++n) {
      const float* const c = &x[i / 2][n / 2][n % 2][i % 2 * 2];
      *reinterpret_cast<uint32_t*>(matrix + row * kCols + n * 8 + lane % 4 * 2) =
          pack<Element>(c[0] * factor, c[1] * factor);
    }
  }
}

}  // namespace
