// 03.2: FlashAttention-1 with register blocks. The loops are those of 03.1; but a thread computes a patch of S and a
// patch of O, so that each number it fetches from shared memory serves many multiply-adds.
//
// Idea: a warp has 32 query rows and all keys of the tile to itself, and its lanes share them out as 4 x 8. A row belongs
//   to 8 lanes now: they find its maximum and sum together, and hand each other their weights through shared memory.
//   Everything is moved in pieces of 16 bytes, by neighbouring lanes; rows in shared memory are padded.
// Global memory: reads K and V once and Q once per key tile; writes O, row_max, row_sum and softmax_lse once per key
//   tile, and reads O, row_max and row_sum back for all key tiles but the first.
// Limits: fp32 on CUDA cores. head_dim 32, 64 or 128. batch * heads blocks are all there is to do at once: few heads
//   leave most of a GPU idle.
// Papers: FlashAttention (arXiv 2205.14135), Algorithm 1; its B_r is kBlockM, its B_c kBlockN.
#include <algorithm>

#include "common/kernel/cuda.cuh"
#include "common/kernel/step.h"
#include "common/problem/mask.h"

namespace {

using flash::Problem;

constexpr const char* kName = "03_flash_v1/2_register_blocks";
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
__host__ __device__ constexpr int row_stride(int head_dim) { return head_dim / 4 + 1; }
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

// Online softmax: brings row_max and row_sum up to date with the tile's scores, rescales O to both, and leaves the
// weights P = exp(scale * (s - row_max)) / row_sum in shared memory: O is divided by row_sum at all times.
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
    const float divisor = new_sum > 0.f ? new_sum : 1.f;
    const float old_share = rows.row_sum[i] * rescale / divisor;  // @share: exactly 1 where the tile adds nothing
    for (int j = 0; j < kKeysPerThread; ++j) weights[j * kLanesN] = s[i][j] / divisor;
    for (int c = 0; c < kHeadDim / kLanesN; ++c) rows.o[i][c] *= old_share;
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
  __syncwarp();  // the warp's rows of P are there; no other warp reads them
  multiply_pv(rows, weights_tile, v_tile);
}

// Reads O, row_max and row_sum of the thread's rows back. One of the row's eight lanes asks for the latter two and tells
// the others.
template <int kHeadDim>
__device__ __forceinline__ void read_rows(Rows<kHeadDim>& rows, int first_row, int seqlen, float4* o, float2* saved) {
  for (int i = 0; i < kRowsPerThread; ++i) {
    const int row = first_row + thread_row() + i * kLanesM;
    const float2 max_and_sum = row < seqlen && lane_tx() == 0 ? saved[row] : make_float2(-INFINITY, 0.f);
    rows.row_max[i] = __shfl_sync(kAllLanes, max_and_sum.x, 0, kLanesN);
    rows.row_sum[i] = __shfl_sync(kAllLanes, max_and_sum.y, 0, kLanesN);
    for (int c = 0; row < seqlen && c < kHeadDim / kLanesN; c += 4) {
      *reinterpret_cast<float4*>(&rows.o[i][c]) = o[size_t(row) * kHeadDim / 4 + c / 4 * kLanesN + lane_tx()];
    }
  }
}

// Writes O, log(sum(exp)), row_max and row_sum of the thread's rows; a row that has seen no key gives 0 and -inf.
template <int kHeadDim>
__device__ __forceinline__ void write_rows(const Rows<kHeadDim>& rows, const Problem& problem, int first_row, float4* o,
                                           float* softmax_lse, float2* saved) {
  for (int i = 0; i < kRowsPerThread; ++i) {
    const int row = first_row + thread_row() + i * kLanesM;
    if (row >= problem.seqlen_q) break;
    for (int c = 0; c < kHeadDim / kLanesN; c += 4) {
      const float* from = &rows.o[i][c];
      const float4 piece = make_float4(from[0], from[1], from[2], from[3]);
      o[size_t(row) * kHeadDim / 4 + c / 4 * kLanesN + lane_tx()] = piece;
    }
    if (lane_tx() == 0) softmax_lse[row] = rows.row_max[i] * problem.softmax_scale + logf(rows.row_sum[i]);
    if (lane_tx() == 0) saved[row] = make_float2(rows.row_max[i], rows.row_sum[i]);
  }
}

// How many key tiles a query tile sees: all, or when causal those up to its last row's diagonal.
__host__ __device__ inline int key_tiles_seen(const Problem& problem, int query_tile, int block_n) {
  int keys = problem.seqlen_k;
  if (problem.causal) {
    const int rows = min((query_tile + 1) * kBlockM, problem.seqlen_q);
    keys = max(rows + problem.seqlen_k - problem.seqlen_q, 0);
  }
  return ceil_div(keys, block_n);
}

template <int kHeadDim>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    flash_kernel(const Problem problem, const float4* q, const float4* k, const float4* v, float4* o,
                 float* softmax_lse, float2* saved) {
  constexpr int kBlockN = block_n(kHeadDim);
  constexpr int kStride = row_stride(kHeadDim);
  float4* q_tile = dynamic_shared<float4>();                                   // [kBlockM][kStride]
  float4* k_tile = q_tile + kBlockM * kStride;                                 // [kBlockN][kStride]
  float4* v_tile = k_tile + kBlockN * kStride;                                 // [kBlockN][kStride]
  float* weights_tile = reinterpret_cast<float*>(v_tile + kBlockN * kStride);  // [kBlockM][weights_stride]

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

  const int key_tiles = ceil_div(problem.seqlen_k, kBlockN);
  const int query_tiles = ceil_div(problem.seqlen_q, kBlockM);
  for (int key_tile = 0; key_tile < key_tiles; ++key_tile) {
    const int first_key = key_tile * kBlockN;
    __syncthreads();  // @load-k-and-v: every warp is done with the K and V before these
    load_tile<kHeadDim, kBlockN>(k_tile, k, first_key, problem.seqlen_k);
    load_tile<kHeadDim, kBlockN>(v_tile, v, first_key, problem.seqlen_k);
    for (int query_tile = 0; query_tile < query_tiles; ++query_tile) {
      // Causal: nothing to see here. But the first key tile gives every row its first O, row_max and row_sum.
      if (key_tile > 0 && key_tile >= key_tiles_seen(problem, query_tile, kBlockN)) continue;
      const int first_row = query_tile * kBlockM;
      __syncthreads();  // @load-q: every warp is done with the Q before this
      load_tile<kHeadDim, kBlockM>(q_tile, q, first_row, problem.seqlen_q);
      __syncthreads();  // Q, K and V are there
      Rows<kHeadDim> rows;
      if (key_tile > 0) read_rows(rows, first_row, problem.seqlen_q, o, saved + first_q);
      attend(rows, q_tile, k_tile, v_tile, weights_tile, first_row, first_key, problem);
      write_rows(rows, problem, first_row, o, softmax_lse, saved + first_q);
    }
  }
}

void forward(const flash::ForwardArgs& args, const flash::Plan& plan, void* workspace, flash::Stream stream) {
  const Problem& problem = args.problem;
  const auto kernel = problem.head_dim == 32   ? flash_kernel<32>
                      : problem.head_dim == 64 ? flash_kernel<64>
                                               : flash_kernel<128>;
  launch(kernel, problem.batch * problem.heads, kThreads, plan.shared_bytes, stream, problem, args.q, args.k, args.v,
         args.o, args.softmax_lse, workspace);
}

flash::Plan plan(const Problem& problem, const flash::Device& device) {
  flash::Plan plan;
  plan.block_m = kBlockM;
  plan.block_n = block_n(problem.head_dim);
  plan.workspace_bytes = flash::q_rows(problem) * sizeof(float2);
  plan.shared_bytes = shared_bytes(problem.head_dim);
  plan.refusal = flash::tiles_refusal(kName, plan, problem, device);

  const double heads = double(problem.batch) * problem.heads;
  const double row_bytes = problem.head_dim * sizeof(float);  // of Q, K, V, O
  double rows = 0;  // that all meetings of a query tile and a key tile of one head read: here of Q, while K and V stay
  for (int query = 0; query < problem.seqlen_q; query += kBlockM) {
    const int tiles = key_tiles_seen(problem, query / kBlockM, plan.block_n);
    rows += double(std::min(kBlockM, problem.seqlen_q - query)) * std::max(tiles, 1);
  }
  // Read: K, V and Q, and but for the first time O, row_max and row_sum; written: these three and softmax_lse.
  plan.traffic = {heads * ((2. * problem.seqlen_k + rows) * row_bytes + (rows - problem.seqlen_q) * (row_bytes + 8)),
                  heads * rows * (row_bytes + 12)};
  return plan;
}

const flash::RegisterStep registered(flash::forward_step(
    kName, "a thread computes a patch of S and of O in registers: each number from shared memory is used many times",
    {flash::Dtype::fp32}, {32, 64, 128}, plan, forward));

}  // namespace
