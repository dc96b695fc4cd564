// 06.1 The backward pass by recomputation, in fp32.
//
// Idea: the forward kept O and one number per row, the LSE; not P. A block owns a tile of keys and walks over the query
//   tiles that see them. P = exp(scale * Q K^T - LSE) is computed again, tile by tile; dV and dK grow in registers, over
//   all query heads that share the keys. Every 512 queries the registers are added to the dV and dK in global memory
//   and begin anew: of many thousand terms in one running sum the last would be lost in the rounding of the first. dQ
//   collects from all key tiles, which are other blocks: by atomic adds. D = rowsum(dO * O), one number per row, comes
//   from a small kernel before.
// Global memory: reads K and V once, Q, dO, LSE and D once per key tile, O and dO once more for D; adds to dQ once per
//   key tile, and to dK and dV every 512 queries. Workspace: D, one float per row. No score and no weight.
// Limits: fp32 on CUDA cores. head_dim 32, 64 or 128. Atomic adds come in any order, so the last bits of dQ vary.
// Papers: FlashAttention (arXiv 2205.14135), Algorithm 4; FlashAttention-2 (arXiv 2307.08691), Algorithm 2.

#include <algorithm>

#include "common/kernel/cuda.cuh"
#include "common/kernel/step.h"
#include "common/kernel/tiles_seen.h"

namespace {

using flash::Problem;

constexpr const char* kName = "06_backward/1_recompute";

// Query rows and keys of a tile: 16 and 4096 / head_dim, so that all tiles fit the 64 KB of shared memory that a T4
// has, and those of four blocks an SM of an H200.
#ifdef TILE_M
constexpr int kBlockM = TILE_M;
__host__ __device__ constexpr int block_n(int) { return TILE_N; }
#else
constexpr int kBlockM = 16;
__host__ __device__ constexpr int block_n(int head_dim) { return 4096 / head_dim; }
#endif
constexpr int kThreads = 64;
constexpr int kSumTiles = 512 / kBlockM;  // query tiles that dK and dV are summed up over in registers

// The 64 threads lie as kLanesY x kLanesX over three kinds of tile, and each owns a kRows x kCols share of it.
template <int kHeadDim>
struct Shape {
  static constexpr int kBlockN = block_n(kHeadDim);
  // S, P, dP, dS [kBlockM][kBlockN]: thread (y, x) has the queries y, y + 4, … and the keys x, x + 16, ….
  static constexpr int kScoreLanesY = 4, kScoreLanesX = kThreads / kScoreLanesY;
  static constexpr int kRows = kBlockM / kScoreLanesY, kKeys = kBlockN / kScoreLanesX;
  // dK, dV [kBlockN][kHeadDim]: runs of 4 keys and of 4 columns, 4 y, 4 y + 32, … and 4 x, 4 x + 32, ….
  static constexpr int kKvLanesX = 8, kKvLanesY = kThreads / kKvLanesX;
  static constexpr int kKvKeys = kBlockN / kKvLanesY, kKvCols = kHeadDim / kKvLanesX;
  // dQ [kBlockM][kHeadDim]: single queries, runs of 4 columns.
  static constexpr int kDqLanesX = kHeadDim >= 64 ? 16 : 8, kDqLanesY = kThreads / kDqLanesX;
  static constexpr int kDqRows = kBlockM / kDqLanesY, kDqCols = kHeadDim / kDqLanesX;
  // Floats from a row to the next in shared memory. 4 more than head_dim: lanes that read 16 bytes each of neighbouring
  // rows find them in different banks. 16 more than kBlockN: so do two rows of P, to which 16 lanes each store a float.
  static constexpr int kStride = kHeadDim + 4, kScoreStride = kBlockN + 16;
  static_assert(kBlockM % 8 == 0, "TILE=MxN: M must be a multiple of 8");
  static_assert(kBlockN % 32 == 0, "TILE=MxN: N must be a multiple of 32");
  static constexpr int kFloats = 2 * (kBlockN + kBlockM) * kStride + 2 * kBlockM * kScoreStride + 2 * kBlockM;
};

__device__ __forceinline__ float4 load4(const float* p) { return *reinterpret_cast<const float4*>(p); }
__device__ __forceinline__ void store4(float* p, float4 v) { *reinterpret_cast<float4*>(p) = v; }
__device__ __forceinline__ float dot(float4 a, float4 b, float sum) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}
__device__ __forceinline__ void add_scaled(float* to, float a, float4 b) {
  to[0] += a * b.x;
  to[1] += a * b.y;
  to[2] += a * b.z;
  to[3] += a * b.w;
}

// Copies kRows rows of a [rows, kHeadDim] matrix to shared memory, zeros where it has fewer.
template <int kHeadDim, int kRows>
__device__ __forceinline__ void load_tile(float* tile, const float* matrix, int rows) {
  for (int i = threadIdx.x; i < kRows * kHeadDim / 4; i += kThreads) {
    const int row = i / (kHeadDim / 4), col = i % (kHeadDim / 4) * 4;
    store4(&tile[row * Shape<kHeadDim>::kStride + col],
           row < rows ? load4(&matrix[row * kHeadDim + col]) : make_float4(0.f, 0.f, 0.f, 0.f));
  }
}

// x = A B^T for this thread's queries y, y + 4, … and keys x, x + kScoreLanesX, …: S = Q K^T and dP = dO V^T.
template <int kHeadDim, int kRows, int kKeys>
__device__ __forceinline__ void multiply_abt(float (&x)[kRows][kKeys], const float* a_tile, const float* b_tile) {
  using T = Shape<kHeadDim>;
  const float* const a = &a_tile[threadIdx.x / T::kScoreLanesX * T::kStride];
  const float* const b = &b_tile[threadIdx.x % T::kScoreLanesX * T::kStride];
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kKeys; ++j) x[i][j] = 0.f;
  }
#pragma unroll 4
  for (int d = 0; d < kHeadDim; d += 4) {
    float4 a_d[kRows];
    for (int i = 0; i < kRows; ++i) a_d[i] = load4(&a[i * T::kScoreLanesY * T::kStride + d]);
    for (int j = 0; j < kKeys; ++j) {
      const float4 b_d = load4(&b[j * T::kScoreLanesX * T::kStride + d]);
      for (int i = 0; i < kRows; ++i) x[i][j] = dot(a_d[i], b_d, x[i][j]);
    }
  }
}

// x += A^T B for this thread's keys and columns, in runs of 4: dV += P^T dO and dK += dS^T Q.
template <int kHeadDim, int kKeys, int kCols>
__device__ __forceinline__ void multiply_atb(float (&x)[kKeys][kCols], const float* a_tile, const float* b_tile) {
  using T = Shape<kHeadDim>;
  const float* const a = &a_tile[threadIdx.x / T::kKvLanesX * 4];
  const float* const b = &b_tile[threadIdx.x % T::kKvLanesX * 4];
#pragma unroll 2
  for (int query = 0; query < kBlockM; ++query) {
    float4 b_q[kCols / 4];
    for (int c = 0; c < kCols / 4; ++c) b_q[c] = load4(&b[query * T::kStride + c * T::kKvLanesX * 4]);
    for (int j = 0; j < kKeys; j += 4) {
      const float4 a_q = load4(&a[query * T::kScoreStride + j * T::kKvLanesY]);
      for (int c = 0; c < kCols; c += 4) {
        add_scaled(&x[j][c], a_q.x, b_q[c / 4]);
        add_scaled(&x[j + 1][c], a_q.y, b_q[c / 4]);
        add_scaled(&x[j + 2][c], a_q.z, b_q[c / 4]);
        add_scaled(&x[j + 3][c], a_q.w, b_q[c / 4]);
      }
    }
  }
}

// dQ += dS K for this thread's queries and columns, straight to global memory.
template <int kHeadDim>
__device__ __forceinline__ void add_dq(float* dq, const float* ds_tile, const float* k_tile, int rows, float scale) {
  using T = Shape<kHeadDim>;
  const int row = threadIdx.x / T::kDqLanesX, col = threadIdx.x % T::kDqLanesX * 4;
  float x[T::kDqRows][T::kDqCols] = {};
#pragma unroll 2
  for (int key = 0; key < T::kBlockN; key += 4) {
    float4 ds[T::kDqRows];
    for (int i = 0; i < T::kDqRows; ++i) ds[i] = load4(&ds_tile[(row + i * T::kDqLanesY) * T::kScoreStride + key]);
    for (int c = 0; c < T::kDqCols; c += 4) {
      const float* const k = &k_tile[key * T::kStride + c * T::kDqLanesX + col];
      const float4 k0 = load4(k), k1 = load4(k + T::kStride), k2 = load4(k + 2 * T::kStride);
      const float4 k3 = load4(k + 3 * T::kStride);
      for (int i = 0; i < T::kDqRows; ++i) {
        add_scaled(&x[i][c], ds[i].x, k0);
        add_scaled(&x[i][c], ds[i].y, k1);
        add_scaled(&x[i][c], ds[i].z, k2);
        add_scaled(&x[i][c], ds[i].w, k3);
      }
    }
  }
  for (int i = 0; i < T::kDqRows; ++i) {
    if (row + i * T::kDqLanesY >= rows) break;
    for (int c = 0; c < T::kDqCols; ++c) {
      float* const place = &dq[(row + i * T::kDqLanesY) * kHeadDim + c / 4 * 4 * T::kDqLanesX + col + c % 4];
      atomicAdd(place, x[i][c] * scale);
    }
  }
}

// Moves this thread's share of a sum to dK or dV, [keys, kHeadDim]: `first` writes it, what comes later is added.
template <int kHeadDim, int kKeys, int kCols>
__device__ __forceinline__ void move_sum(float* gradient, float (&sum)[kKeys][kCols], float factor, int keys,
                                         bool first) {
  using T = Shape<kHeadDim>;
  const int my_key = threadIdx.x / T::kKvLanesX * 4;
  float* const mine = &gradient[my_key * kHeadDim + threadIdx.x % T::kKvLanesX * 4];
  for (int j = 0; j < kKeys; ++j) {
    const int key = j / 4 * 4 * T::kKvLanesY + j % 4;
    for (int c = 0; c < kCols; c += 4) {
      if (key < keys - my_key) {
        float* const place = &mine[key * kHeadDim + c * T::kKvLanesX];
        float4 total = first ? make_float4(0.f, 0.f, 0.f, 0.f) : load4(place);
        add_scaled(&total.x, factor, make_float4(sum[j][c], sum[j][c + 1], sum[j][c + 2], sum[j][c + 3]));
        store4(place, total);
      }
      for (int i = 0; i < 4; ++i) sum[j][c + i] = 0.f;
    }
  }
}

// Of the first query tile that sees a key.
__host__ __device__ inline int first_query(const Problem& problem, int key) {
  return problem.causal ? max(0, key - (problem.seqlen_k - problem.seqlen_q)) / kBlockM * kBlockM : 0;  // @first-query
}

template <int kHeadDim>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const Problem problem, const float* q, const float* k, const float* v, const float* d_o,
                    const float* softmax_lse, const float* d_sum, float* dq, float* dk, float* dv) {
  using T = Shape<kHeadDim>;
  constexpr int kBlockN = T::kBlockN;
  float* const k_tile = dynamic_shared<float>();         // [kBlockN][kStride]
  float* const v_tile = k_tile + kBlockN * T::kStride;   // [kBlockN][kStride]
  float* const q_tile = v_tile + kBlockN * T::kStride;   // [kBlockM][kStride]
  float* const do_tile = q_tile + kBlockM * T::kStride;  // [kBlockM][kStride]
  float* const p_tile = do_tile + kBlockM * T::kStride;  // [kBlockM][kScoreStride]
  float* const ds_tile = p_tile + kBlockM * T::kScoreStride;
  float* const stats = ds_tile + kBlockM * T::kScoreStride;  // [LSE, D][kBlockM]

  // Full: the key tiles of a head side by side, to share its Q and dO in L2. Causal: the first keys have most to do, so
  // the first tiles of all heads start first.
  const int key_tiles = ceil_div(problem.seqlen_k, kBlockN), kv_heads = gridDim.x / key_tiles;  // of all sequences
  const int first_key = int(problem.causal ? blockIdx.x / kv_heads : blockIdx.x % key_tiles) * kBlockN;
  const size_t kv_head = problem.causal ? blockIdx.x % kv_heads : blockIdx.x / key_tiles;  // over [batch, kv_heads]
  const int group = problem.heads / problem.kv_heads, keys_left = problem.seqlen_k - first_key;
  const int diagonal = problem.seqlen_k - problem.seqlen_q;  // causal: query i sees the keys <= i + diagonal

  const size_t kv_offset = (kv_head * problem.seqlen_k + first_key) * kHeadDim;
  load_tile<kHeadDim, kBlockN>(k_tile, &k[kv_offset], keys_left);
  load_tile<kHeadDim, kBlockN>(v_tile, &v[kv_offset], keys_left);
  float dk_sum[T::kKvKeys][T::kKvCols] = {}, dv_sum[T::kKvKeys][T::kKvCols] = {};
  int tiles = 0;  // query tiles so far
  const int ty = threadIdx.x / T::kScoreLanesX, tx = threadIdx.x % T::kScoreLanesX;

  for (size_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {  // @next-head: over [batch, heads]
    for (int query = first_query(problem, first_key); query < problem.seqlen_q; query += kBlockM) {
      const int rows = problem.seqlen_q - query;
      const size_t row0 = head * problem.seqlen_q + query;
      __syncthreads();  // all threads have read the Q, dO, P, dS, LSE and D before these
      load_tile<kHeadDim, kBlockM>(q_tile, &q[row0 * kHeadDim], rows);
      load_tile<kHeadDim, kBlockM>(do_tile, &d_o[row0 * kHeadDim], rows);
      if (int(threadIdx.x) < kBlockM) {
        const bool valid = int(threadIdx.x) < rows;
        stats[threadIdx.x] = valid ? softmax_lse[row0 + threadIdx.x] : 0.f;
        stats[kBlockM + threadIdx.x] = valid ? d_sum[row0 + threadIdx.x] : 0.f;
      }
      __syncthreads();  // they are there (and before the first, K and V)

      float s[T::kRows][T::kKeys], dp[T::kRows][T::kKeys];
      multiply_abt<kHeadDim>(s, q_tile, k_tile);
      multiply_abt<kHeadDim>(dp, do_tile, v_tile);
      for (int i = 0; i < T::kRows; ++i) {
        const int row = ty + i * T::kScoreLanesY;
        for (int j = 0; j < T::kKeys; ++j) {
          const int key = tx + j * T::kScoreLanesX;
          const bool seen =
              row < rows && key < keys_left && (!problem.causal || first_key + key <= query + row + diagonal);
          const float weight = seen ? expf(s[i][j] * problem.softmax_scale - stats[row]) : 0.f;
          p_tile[row * T::kScoreStride + key] = weight;
          ds_tile[row * T::kScoreStride + key] = weight * (dp[i][j] - stats[kBlockM + row]);  // @ds
        }
      }
      __syncthreads();  // @p-and-ds-complete: P and dS are complete

      multiply_atb<kHeadDim>(dv_sum, p_tile, do_tile);
      multiply_atb<kHeadDim>(dk_sum, ds_tile, q_tile);
      add_dq<kHeadDim>(&dq[row0 * kHeadDim], ds_tile, k_tile, rows, problem.softmax_scale);

      const bool last = head == (kv_head + 1) * group - 1 && query + kBlockM >= problem.seqlen_q;
      if (++tiles % kSumTiles == 0 || last) {
        move_sum<kHeadDim>(&dk[kv_offset], dk_sum, problem.softmax_scale, keys_left, tiles <= kSumTiles);
        move_sum<kHeadDim>(&dv[kv_offset], dv_sum, 1.f, keys_left, tiles <= kSumTiles);
      }
    }
  }
}

// Before it: D = rowsum(dO * O), a row per warp, and zeros for dQ, which is only ever added to.
template <int kHeadDim>
__global__ void prepare_kernel(const float* o, const float* d_o, float* d_sum, float* dq, size_t rows) {
  const size_t row = (size_t(blockIdx.x) * blockDim.x + threadIdx.x) / kWarpSize;
  if (row >= rows) return;  // the whole warp
  float sum = 0.f;
  for (int col = threadIdx.x % kWarpSize; col < kHeadDim; col += kWarpSize) {
    sum += o[row * kHeadDim + col] * d_o[row * kHeadDim + col];
    dq[row * kHeadDim + col] = 0.f;
  }
  for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
  if (threadIdx.x % kWarpSize == 0) d_sum[row] = sum;
}

template <int kHeadDim>
void start(const flash::BackwardArgs& a, const flash::Plan& plan, void* workspace, flash::Stream stream) {
  const Problem& problem = a.problem;
  const size_t rows = flash::q_rows(problem);
  launch(prepare_kernel<kHeadDim>, unsigned((rows + 7) / 8), 8 * kWarpSize, 0, stream,  // @prepare
         a.o, a.d_o, workspace, a.dq, rows);
  launch(backward_kernel<kHeadDim>,
         unsigned(problem.batch * problem.kv_heads * ceil_div(problem.seqlen_k, plan.block_n)), kThreads,
         plan.shared_bytes, stream, problem, a.q, a.k, a.v, a.d_o, a.softmax_lse, workspace, a.dq, a.dk, a.dv);
}

void backward(const flash::BackwardArgs& a, const flash::Plan& plan, void* workspace, flash::Stream stream) {
  const int head_dim = a.problem.head_dim;
  const auto run = head_dim == 32 ? start<32> : head_dim == 64 ? start<64> : start<128>;
  run(a, plan, workspace, stream);
}

flash::Plan plan(const Problem& problem, const flash::Device& device) {
  flash::Plan plan;
  plan.block_m = kBlockM;
  plan.block_n = block_n(problem.head_dim);
  plan.workspace_bytes = flash::q_rows(problem) * sizeof(float);  // D
  const int floats = problem.head_dim == 32   ? Shape<32>::kFloats
                     : problem.head_dim == 64 ? Shape<64>::kFloats
                                              : Shape<128>::kFloats;
  plan.shared_bytes = floats * sizeof(float);
  plan.refusal = flash::tiles_refusal(kName, plan, problem, device);
  if (problem.deterministic) {
    plan.refusal =
        std::string(kName) +
        " adds to dQ by atomics, in an order that varies: --deterministic is for 06_backward/4_deterministic";
  }
  const double rows = double(flash::q_rows(problem)), heads = double(problem.batch) * problem.heads,
               row = 4 * problem.head_dim;  // bytes per row
  const double all_kv_heads = double(problem.batch) * problem.kv_heads, kv_rows = all_kv_heads * problem.seqlen_k;
  double query_rows = 0;  // that the key tiles of a head read together
  double moved_rows = 0;  // of dK, and of dV, by the blocks of a key head: each of its rows once or more
  for (int key = 0; key < problem.seqlen_k; key += plan.block_n) {
    const int queries = flash::queries_visited(problem, key, kBlockM);
    const int tiles = problem.heads / problem.kv_heads * ceil_div(queries, kBlockM);
    query_rows += queries;
    moved_rows += double(std::min(plan.block_n, problem.seqlen_k - key)) * ceil_div(tiles, kSumTiles);
  }
  moved_rows *= all_kv_heads;
  plan.traffic.read_bytes = 2 * rows * row + 2 * kv_rows * row    // O, dO; K, V
                            + heads * query_rows * (2 * row + 8)  // Q, dO, LSE, D
                            + 2 * (moved_rows - kv_rows) * row;   // dK, dV, but for the first time
  plan.traffic.write_bytes = rows * (row + 4)                     // zeros, D
                             + heads * query_rows * row           // atomic adds
                             + 2 * moved_rows * row;              // dK, dV
  return plan;
}

const flash::RegisterStep registered(
    flash::backward_step(kName, "the backward pass without a stored P: recomputed tile by tile from Q, K and the LSE",
                         {flash::Dtype::fp32}, {32, 64, 128}, plan, backward));

}  // namespace
