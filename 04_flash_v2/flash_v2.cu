// 04 FlashAttention-2: the loops of 03.2 exchanged, so that a query's O never leaves the registers.
//
// Idea: a block owns one tile of queries and walks over the keys. O, row_max and row_sum of its rows stay in registers
//   from the first key tile to the last; then O is divided by row_sum and written, once. Every query tile of every head
//   is a block of its own, so one long sequence is enough to fill a GPU. The warps of a block split the queries: each
//   has 32 of them to itself and needs nothing from another warp but its share of loading K and V.
// Global memory: reads Q once, K and V once per query tile; writes O and softmax_lse once. No score, no unfinished O.
// Limits: fp32 on CUDA cores. head_dim 32, 64 or 128; at most 65535 query tiles.
// Papers: FlashAttention-2 (arXiv 2307.08691), Algorithm 1, sections 3.1-3.3; its B_r is kBlockM, its B_c kBlockN.

#include "common/kernel/cuda.cuh"
#include "common/kernel/step.h"
#include "common/kernel/tiles_seen.h"
#include "common/problem/mask.h"

namespace {

using flash::Problem;

constexpr const char* kName = "04_flash_v2";
constexpr unsigned kAllLanes = 0xffffffffu;

// The 32 lanes of a warp lie as 4 x 8 over 32 query rows and all keys of the tile. Lane (ty, tx) owns rows ty, ty + 4,
// …, ty + 28; of S and P the columns (keys) tx, tx + 8, …; of O columns 4 tx … 4 tx + 3, 4 tx + 32 … 4 tx + 35, ….
constexpr int kLanesM = 4;
constexpr int kLanesN = 8;
constexpr int kRowsPerThread = 8;
constexpr int kWarpRows = kLanesM * kRowsPerThread;

// Query rows and keys of a tile. B_c = M / 4d as the papers set it, for an M of 8192 floats (32 KB). The tile of Q is
// taller, P and the padding come on top: together they still fit the 64 KB of shared memory that a T4 has, and an SM of
// an H200 holds four blocks.
#ifdef TILE_M
constexpr int kBlockM = TILE_M;
__host__ __device__ constexpr int block_n(int) { return TILE_N; }
#else
constexpr int kBlockM = 64;
__host__ __device__ constexpr int block_n(int head_dim) { return 8192 / (4 * head_dim); }
#endif
constexpr int kThreads = kBlockM / kWarpRows * kWarpSize;
constexpr int kBlocksPerSm = kThreads < 256 ? 256 / kThreads : 1;  // 8 warps: then a thread may have 255 registers

// How far apart two rows lie in shared memory: those of Q, K and V in pieces of 16 bytes (float4), those of P in floats.
// They are padded against bank conflicts. With one piece of padding, 8 lanes that read the same column of 8 neighbouring
// rows find it in different banks. With 8 floats, so do 4 x 8 lanes that store to 4 neighbouring rows of P.
__host__ __device__ constexpr int row_stride(int head_dim) { return head_dim / 4 + 1; }  // @padding
__host__ __device__ constexpr int weights_stride(int head_dim) { return block_n(head_dim) + 8; }
__host__ __device__ constexpr int shared_bytes(int head_dim) {
  return (kBlockM + 2 * block_n(head_dim)) * row_stride(head_dim) * int(sizeof(float4)) +
         kBlockM * weights_stride(head_dim) * int(sizeof(float));
}

static_assert(kBlockM % kWarpRows == 0, "TILE=MxN: M must be a multiple of 32: a warp owns 32 query rows");
static_assert(kBlockM <= 1024, "TILE=MxN: M must be at most 1024: a block has one thread per query row");
static_assert(block_n(128) % 16 == 0, "TILE=MxN: N must be a multiple of 16: else lanes collide in the banks of P");

// What a thread knows of its rows: the unfinished output, the maximum and the sum of exponentials so far. The eight
// lanes of a row hold the same maximum and sum.
template <int kHeadDim>
struct Rows {
  float o[kRowsPerThread][kHeadDim / kLanesN] = {};
  float row_max[kRowsPerThread];
  float row_sum[kRowsPerThread] = {};
  __device__ __forceinline__ Rows() {
    for (float& maximum : row_max) maximum = -INFINITY;
  }
};

__device__ __forceinline__ int lane_tx() { return threadIdx.x % kLanesN; }
// The thread's first row in a query tile.
__device__ __forceinline__ int thread_row() {
  return threadIdx.x / kWarpSize * kWarpRows + threadIdx.x % kWarpSize / kLanesN;
}

// Copies kRows rows, from first_row on, of a [seqlen, kHeadDim] matrix to shared memory; zeros past its end.
template <int kHeadDim, int kRows>
__device__ __forceinline__ void load_tile(float4* tile, const float4* matrix, int first_row, int seqlen) {
  constexpr int kPieces = kHeadDim / 4;  // in a row; neighbouring threads copy neighbouring pieces
  constexpr int kRowsAtOnce = kThreads / kPieces;
  const int piece = threadIdx.x % kPieces;
  matrix += size_t(first_row) * kPieces;
  for (int i = 0; i < kRows; i += kRowsAtOnce) {  // @load-tile
    const int row = i + threadIdx.x / kPieces;
    if (kRows % kRowsAtOnce != 0 && row >= kRows) break;
    float4 value = make_float4(0.f, 0.f, 0.f, 0.f);
    if (first_row + row < seqlen) value = matrix[row * kPieces + piece];
    tile[row * row_stride(kHeadDim) + piece] = value;
  }
}

// S = Q K^T: the thread's 8 rows by kBlockN / 8 keys. Four columns of Q and K at a time, so that 8 + kBlockN / 8 loads
// of 16 bytes feed 4 * kBlockN multiply-adds.
template <int kHeadDim, int kKeysPerThread>
__device__ __forceinline__ void multiply_qk(float (&s)[kRowsPerThread][kKeysPerThread], const float4* q_tile,
                                            const float4* k_tile) {
  constexpr int kStride = row_stride(kHeadDim);
  const float4* q = &q_tile[thread_row() * kStride];
  const float4* k = &k_tile[lane_tx() * kStride];
  for (int i = 0; i < kRowsPerThread; ++i) {
    for (int j = 0; j < kKeysPerThread; ++j) s[i][j] = 0.f;
  }
#pragma unroll 2
  for (int d = 0; d < kHeadDim / 4; ++d) {
    float4 q_d[kRowsPerThread];
    for (int i = 0; i < kRowsPerThread; ++i) q_d[i] = q[i * kLanesM * kStride + d];
    for (int j = 0; j < kKeysPerThread; ++j) {
      const float4 k_d = k[j * kLanesN * kStride + d];
      for (int i = 0; i < kRowsPerThread; ++i) {
        s[i][j] += q_d[i].x * k_d.x;
        s[i][j] += q_d[i].y * k_d.y;
        s[i][j] += q_d[i].z * k_d.z;
        s[i][j] += q_d[i].w * k_d.w;
      }
    }
  }
}

// Scores of keys that a row doesn't see become -inf: keys past the end, and later keys when causal.
template <int kKeysPerThread>
__device__ __forceinline__ void mask(float (&s)[kRowsPerThread][kKeysPerThread], int first_row, int first_key,
                                     const Problem& problem) {
  for (int i = 0; i < kRowsPerThread; ++i) {
    const int row = first_row + thread_row() + i * kLanesM;
    for (int j = 0; j < kKeysPerThread; ++j) {
      const int key = first_key + lane_tx() + j * kLanesN;
      if (!flash::visible(problem, row, key)) s[i][j] = -INFINITY;
    }
  }
}

// Online softmax: brings row_max and row_sum up to date with the tile's scores, rescales O to the new maximum, and leaves
// the weights P = exp(scale * (s - row_max)) in shared memory.
template <int kHeadDim, int kKeysPerThread>
__device__ __forceinline__ void online_softmax(Rows<kHeadDim>& rows, float (&s)[kRowsPerThread][kKeysPerThread],
                                               float* weights_tile, float scale) {
  const float scale_log2 = scale * kLog2e;
  for (int i = 0; i < kRowsPerThread; ++i) {
    float* weights = &weights_tile[(thread_row() + i * kLanesM) * weights_stride(kHeadDim) + lane_tx()];
    float new_max = rows.row_max[i];
    for (int j = 0; j < kKeysPerThread; ++j) new_max = fmaxf(new_max, s[i][j]);
    for (int lanes = kLanesN / 2; lanes > 0; lanes /= 2) {
      new_max = fmaxf(new_max, __shfl_xor_sync(kAllLanes, new_max, lanes));
    }

    const float base = new_max == -INFINITY ? 0.f : new_max;  // no key seen yet: -inf - -inf would be NaN
    const float rescale = exp2f((rows.row_max[i] - base) * scale_log2);
    float sum = 0.f;
    for (int j = 0; j < kKeysPerThread; ++j) {
      s[i][j] = exp2f((s[i][j] - base) * scale_log2);
      sum += s[i][j];
    }
    for (int lanes = kLanesN / 2; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAllLanes, sum, lanes);

    const float new_sum = rows.row_sum[i] * rescale + sum;
    for (int j = 0; j < kKeysPerThread; ++j) weights[j * kLanesN] = s[i][j];
    for (int c = 0; c < kHeadDim / kLanesN; ++c) rows.o[i][c] *= rescale;  // @rescale-o
    rows.row_max[i] = new_max;
    rows.row_sum[i] = new_sum;
  }
}

__device__ __forceinline__ void add_scaled(float* o, float weight, float4 v) {
  o[0] += weight * v.x;
  o[1] += weight * v.y;
  o[2] += weight * v.z;
  o[3] += weight * v.w;
}

// O += P V: the thread's 8 rows by kHeadDim / 8 columns, four keys at a time.
template <int kHeadDim>
__device__ __forceinline__ void multiply_pv(Rows<kHeadDim>& rows, const float* weights_tile, const float4* v_tile) {
  constexpr int kStride = row_stride(kHeadDim);
  constexpr int kWeightsStride = weights_stride(kHeadDim);
  const float4* p = reinterpret_cast<const float4*>(&weights_tile[thread_row() * kWeightsStride]);
#pragma unroll 1  // more of it spills registers
  for (int key = 0; key < block_n(kHeadDim); key += 4) {
    float4 weights[kRowsPerThread];
    for (int i = 0; i < kRowsPerThread; ++i) weights[i] = p[(i * kLanesM * kWeightsStride + key) / 4];
    for (int c = 0; c < kHeadDim / kLanesN; c += 4) {
      const float4* v = &v_tile[key * kStride + c / 4 * kLanesN + lane_tx()];
      const float4 v0 = v[0], v1 = v[kStride], v2 = v[2 * kStride], v3 = v[3 * kStride];
      for (int i = 0; i < kRowsPerThread; ++i) {
        add_scaled(&rows.o[i][c], weights[i].x, v0);
        add_scaled(&rows.o[i][c], weights[i].y, v1);
        add_scaled(&rows.o[i][c], weights[i].z, v2);
        add_scaled(&rows.o[i][c], weights[i].w, v3);
      }
    }
  }
}

// One query tile meets one key tile.
template <int kHeadDim>
__device__ __forceinline__ void attend(Rows<kHeadDim>& rows, const float4* q_tile, const float4* k_tile,
                                       const float4* v_tile, float* weights_tile, int first_row, int first_key,
                                       const Problem& problem) {
  constexpr int kBlockN = block_n(kHeadDim);
  float s[kRowsPerThread][kBlockN / kLanesN];
  multiply_qk<kHeadDim>(s, q_tile, k_tile);
  const flash::Seen seen = flash::tile_sees(problem, first_row, kBlockM, first_key, kBlockN);
  if (seen != flash::Seen::all) mask(s, first_row, first_key, problem);
  online_softmax(rows, s, weights_tile, problem.softmax_scale);
  __syncwarp();  // @p-complete: the warp's rows of P are there; no other warp reads them
  multiply_pv(rows, weights_tile, v_tile);
}

// Writes O / row_sum and log(sum(exp)) of the thread's rows; a row that has seen no key gives 0 and -inf.
template <int kHeadDim>
__device__ __forceinline__ void write_rows(const Rows<kHeadDim>& rows, const Problem& problem, int first_row, float4* o,
                                           float* softmax_lse) {
  for (int i = 0; i < kRowsPerThread; ++i) {
    const int row = first_row + thread_row() + i * kLanesM;
    if (row >= problem.seqlen_q) break;
    const float divisor = rows.row_sum[i] > 0.f ? rows.row_sum[i] : 1.f;
    for (int c = 0; c < kHeadDim / kLanesN; c += 4) {
      const float* from = &rows.o[i][c];
      const float4 piece = make_float4(from[0] / divisor, from[1] / divisor, from[2] / divisor, from[3] / divisor);
      o[size_t(row) * kHeadDim / 4 + c / 4 * kLanesN + lane_tx()] = piece;
    }
    if (lane_tx() == 0) softmax_lse[row] = rows.row_max[i] * problem.softmax_scale + logf(rows.row_sum[i]);
  }
}

// How many key tiles a query tile sees: all, or when causal those up to its last row's diagonal.
__host__ __device__ inline int key_tiles_seen(const Problem& problem, int query_tile, int block_n) {
  int keys = problem.seqlen_k;  // @causal-bound
  if (problem.causal) {
    const int rows = min((query_tile + 1) * kBlockM, problem.seqlen_q);
    keys = max(rows + problem.seqlen_k - problem.seqlen_q, 0);
  }
  return ceil_div(keys, block_n);
}

template <int kHeadDim>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    flash_kernel(const Problem problem, const float4* q, const float4* k, const float4* v, float4* o,
                 float* softmax_lse) {
  constexpr int kBlockN = block_n(kHeadDim);
  constexpr int kStride = row_stride(kHeadDim);
  float4* q_tile = dynamic_shared<float4>();                                   // [kBlockM][kStride]
  float4* k_tile = q_tile + kBlockM * kStride;                                 // [kBlockN][kStride]
  float4* v_tile = k_tile + kBlockN * kStride;                                 // [kBlockN][kStride]
  float* weights_tile = reinterpret_cast<float*>(v_tile + kBlockN * kStride);  // [kBlockM][weights_stride]

  const int query_tile = gridDim.y - 1 - blockIdx.y;  // causal: the last see most keys, so they start first
  const int batch = blockIdx.x / problem.heads;
  const int head = blockIdx.x % problem.heads;
  const int kv_head = head / (problem.heads / problem.kv_heads);
  const size_t first_q = (size_t(batch) * problem.heads + head) * problem.seqlen_q;
  const size_t first_k = (size_t(batch) * problem.kv_heads + kv_head) * problem.seqlen_k;
  q += first_q * kHeadDim / 4;
  k += first_k * kHeadDim / 4;
  v += first_k * kHeadDim / 4;
  o += first_q * kHeadDim / 4;
  softmax_lse += first_q;

  const int first_row = query_tile * kBlockM;
  load_tile<kHeadDim, kBlockM>(q_tile, q, first_row, problem.seqlen_q);
  Rows<kHeadDim> rows;
  const int key_tiles = key_tiles_seen(problem, query_tile, kBlockN);
  for (int key_tile = 0; key_tile < key_tiles; ++key_tile) {
    const int first_key = key_tile * kBlockN;
    __syncthreads();  // every warp is done with the K and V before these
    load_tile<kHeadDim, kBlockN>(k_tile, k, first_key, problem.seqlen_k);
    load_tile<kHeadDim, kBlockN>(v_tile, v, first_key, problem.seqlen_k);
    __syncthreads();  // @tiles-complete: Q, K and V are there
    attend(rows, q_tile, k_tile, v_tile, weights_tile, first_row, first_key, problem);
  }
  write_rows(rows, problem, first_row, o, softmax_lse);
}

void forward(const flash::ForwardArgs& args, const flash::Plan& plan, void*, flash::Stream stream) {
  const Problem& problem = args.problem;
  const auto kernel = problem.head_dim == 32   ? flash_kernel<32>
                      : problem.head_dim == 64 ? flash_kernel<64>
                                               : flash_kernel<128>;
  const dim3 grid(problem.batch * problem.heads, ceil_div(problem.seqlen_q, kBlockM));
  launch(kernel, grid, kThreads, plan.shared_bytes, stream, problem, args.q, args.k, args.v, args.o, args.softmax_lse);
}

flash::Plan plan(const Problem& problem, const flash::Device& device) {
  flash::Plan plan;
  plan.block_m = kBlockM;
  plan.block_n = block_n(problem.head_dim);
  plan.shared_bytes = shared_bytes(problem.head_dim);
  plan.refusal = flash::tiles_refusal(kName, plan, problem, device);
  if (plan.refusal.empty()) plan.refusal = flash::grid_refusal(kName, "seqlen_q", problem.seqlen_q, kBlockM);
  const double heads = double(problem.batch) * problem.heads;
  const double row_bytes = problem.head_dim * sizeof(float);  // of Q, K, V, O
  // Read: Q, and K and V once per query tile that sees them, while Q stays; written: O and softmax_lse.
  const double rows = problem.seqlen_q + 2 * flash::keys_visited_by_all(problem, plan.block_m, plan.block_n);
  plan.traffic = {heads * rows * row_bytes, heads * problem.seqlen_q * (row_bytes + 4)};
  return plan;
}

const flash::RegisterStep registered(
    flash::forward_step(kName, "a block owns a query tile and walks the keys: O stays in registers and is written once",
                        {flash::Dtype::fp32}, {32, 64, 128}, plan, forward));

}  // namespace
