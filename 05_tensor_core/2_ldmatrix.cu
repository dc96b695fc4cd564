// 05.2 ldmatrix: the fragments of 05.1, fetched by the instruction made for it, from tiles it can read without conflicts.
//
// Idea: ldmatrix brings four 8 x 8 matrices from shared memory into fragment order at once: each lane names one 16-byte row
//   of one matrix, and gets what the lane map gives it. Its .trans form turns each matrix over on the way, so V needs no
//   pairs glued together. The eight rows of a matrix lie a whole tile row apart, in the same banks: so 16-byte chunk c
//   of row r is stored in the place of chunk c ^ (r % 8), and the eight rows meet all 32 banks once.
// Global memory: as 05.1.
// Limits: as 05.1, without its bank conflicts. What is left to wait for is global memory, one tile after the other: see 05.3.
#include <cmath>

#include "common/kernel/cuda.cuh"
#include "common/kernel/ptx/ldmatrix.cuh"
#include "common/kernel/ptx/mma.cuh"
#include "common/kernel/ptx/pack.cuh"
#include "common/kernel/step.h"
#include "common/kernel/tiles_seen.h"
#include "common/problem/mask.h"

namespace {

using flash::Problem;

constexpr const char* kName = "05_tensor_core/2_ldmatrix";
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kMmaM = 16, kMmaN = 8, kMmaK = 16;  // the shape of an mma: C is 16 x 8, A has 16 columns

// Query rows and keys per tile. A warp owns 16 rows: one m16 tile.
#ifdef TILE_M
constexpr int kBlockM = TILE_M, kBlockN = TILE_N;
#else
constexpr int kBlockM = 64, kBlockN = 64;
#endif
constexpr int kWarpRows = kMmaM;
constexpr int kThreads = kBlockM / kWarpRows * kWarpSize;
constexpr int kTilesN = kBlockN / kMmaN;  // n8 tiles of keys in S
constexpr int kStepsN = kBlockN / kMmaK;  // k16 steps of P V, along the keys
static_assert(kBlockM % kWarpRows == 0, "TILE=MxN: M must be a multiple of 16: a warp owns 16 query rows");
static_assert(kThreads <= 1024, "TILE=MxN: M must be at most 512: a warp owns 16 query rows, and a block has 32 warps");
static_assert(kBlockN % 16 == 0, "TILE=MxN: N must be a multiple of 16: an mma of P V takes 16 keys");

__host__ __device__ constexpr int shared_bytes(int head_dim) { return (kBlockM + 2 * kBlockN) * head_dim * 2; }

// Where 16-byte chunk `chunk` of row `row` lies in a tile, in elements.
template <int kHeadDim>
__device__ __forceinline__ int swizzle(int row, int chunk) {
  return row * kHeadDim + (chunk ^ row % 8) * 8;  // @swizzle
}

// Copies rows first_row … first_row + kRows - 1 of a [seqlen, kHeadDim] matrix to shared memory, zeros for rows past its
// end. 16 bytes, 8 elements, per thread.
template <int kHeadDim, int kRows, class Element>
__device__ __forceinline__ void load_tile(Element* tile, const Element* matrix, int first_row, int seqlen) {
  for (int i = threadIdx.x; i < kRows * kHeadDim / 8; i += kThreads) {
    const int row = i / (kHeadDim / 8), chunk = i % (kHeadDim / 8);
    uint4 value = make_uint4(0, 0, 0, 0);
    if (first_row + row < seqlen) {
      value = *reinterpret_cast<const uint4*>(&matrix[size_t(first_row + row) * kHeadDim + chunk * 8]);
    }
    *reinterpret_cast<uint4*>(&tile[swizzle<kHeadDim>(row, chunk)]) = value;
  }
}

// S += Q K^T. One ldmatrix fetches the B operands of two n tiles: the left and right 8 columns of 8 keys, then of the
// next 8.
template <int kHeadDim, class Element>
__device__ __forceinline__ void tile_scores(float (&s_acc)[kTilesN][4], const uint32_t (&q_frag)[kHeadDim / kMmaK][4],
                                            const Element* k_tile, int lane) {
  for (int n = 0; n < kTilesN; n += 2) {
    for (int step = 0; step < kHeadDim / kMmaK; ++step) {
      uint32_t k_frag[2][2];
      ldmatrix_x4(k_frag, &k_tile[swizzle<kHeadDim>(n * kMmaN + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2)]);
      mma_m16n8k16<Element>(s_acc[n], q_frag[step], k_frag[0]);
      mma_m16n8k16<Element>(s_acc[n + 1], q_frag[step], k_frag[1]);
    }
  }
}

// Scores of keys that a row doesn't see become -inf: keys past the end, and later keys when causal.
__device__ __forceinline__ void mask_scores(float (&s_acc)[kTilesN][4], const Problem& problem, int lane_row,
                                            int lane_key) {
  for (int n = 0; n < kTilesN; ++n) {
    for (int e = 0; e < 4; ++e) {
      const int row = lane_row + e / 2 * 8, key = lane_key + n * kMmaN + e % 2;
      if (!flash::visible(problem, row, key)) s_acc[n][e] = -INFINITY;
    }
  }
}

// Brings maxima and sums up to date, rescales O to the new maxima and turns the scores into weights: S becomes P.
template <int kTilesD>
__device__ __forceinline__ void online_softmax(float (&s_acc)[kTilesN][4], float (&row_max)[2], float (&row_sum)[2],
                                               float (&o_acc)[kTilesD][4], float scale_log2) {
  for (int i = 0; i < 2; ++i) {
    float new_max = row_max[i];
    for (int n = 0; n < kTilesN; ++n) new_max = fmaxf(new_max, fmaxf(s_acc[n][2 * i], s_acc[n][2 * i + 1]));
    new_max = fmaxf(new_max, __shfl_xor_sync(kAllLanes, new_max, 1));  // the four lanes of a group share the row
    new_max = fmaxf(new_max, __shfl_xor_sync(kAllLanes, new_max, 2));
    const float base = new_max == -INFINITY ? 0.f : new_max;  // no key seen yet: -inf - -inf would be NaN
    const float rescale = exp2f((row_max[i] - base) * scale_log2);
    float sum = 0.f;
    for (int n = 0; n < kTilesN; ++n) {
      for (int e = 2 * i; e < 2 * i + 2; ++e) {
        s_acc[n][e] = exp2f((s_acc[n][e] - base) * scale_log2);
        sum += s_acc[n][e];
      }
    }
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    row_max[i] = new_max;
    row_sum[i] = row_sum[i] * rescale + sum;
    for (int n = 0; n < kTilesD; ++n) {
      o_acc[n][2 * i] *= rescale;
      o_acc[n][2 * i + 1] *= rescale;
    }
  }
}

// O += P V. The matrices: keys 0 … 7 and 8 … 15 of 8 columns of V, then of the next 8, each turned over.
template <int kHeadDim, class Element>
__device__ __forceinline__ void accumulate_pv(float (&o_acc)[kHeadDim / kMmaN][4], const float (&weights)[kTilesN][4],
                                              const Element* v_tile, int lane) {
  for (int step = 0; step < kStepsN; ++step) {
    const float(&left)[4] = weights[2 * step], (&right)[4] = weights[2 * step + 1];
    const uint32_t p_frag[4] = {pack<Element>(left[0], left[1]), pack<Element>(left[2], left[3]),
                                pack<Element>(right[0], right[1]), pack<Element>(right[2], right[3])};
    for (int n = 0; n < kHeadDim / kMmaN; n += 2) {
      uint32_t v_frag[2][2];
      ldmatrix_x4_trans(v_frag, &v_tile[swizzle<kHeadDim>(step * kMmaK + lane % 16, n + lane / 16)]);  // @v-operand
      mma_m16n8k16<Element>(o_acc[n], p_frag, v_frag[0]);
      mma_m16n8k16<Element>(o_acc[n + 1], p_frag, v_frag[1]);
    }
  }
}

// O / sum, and log(sum(exp)); a row that has seen no key gives 0 and -inf.
template <int kHeadDim, class Element>
__device__ __forceinline__ void write_rows(const float (&o_acc)[kHeadDim / kMmaN][4], const float (&row_max)[2],
                                           const float (&row_sum)[2], const Problem& problem, int lane_row, int t,
                                           Element* o, float* softmax_lse) {
  for (int i = 0; i < 2; ++i) {
    const int row = lane_row + 8 * i;
    if (row >= problem.seqlen_q) break;
    const float inverse = row_sum[i] > 0.f ? 1.f / row_sum[i] : 0.f;
    for (int n = 0; n < kHeadDim / kMmaN; ++n) {
      *reinterpret_cast<uint32_t*>(&o[size_t(row) * kHeadDim + n * kMmaN + t * 2]) =
          pack<Element>(o_acc[n][2 * i] * inverse, o_acc[n][2 * i + 1] * inverse);
    }
    if (t == 0) softmax_lse[row] = row_max[i] * problem.softmax_scale + logf(row_sum[i]);
  }
}

// How many key tiles a query tile sees: all, or when causal those up to its last row's diagonal.
__host__ __device__ inline int key_tiles_seen(const Problem& problem, int query_tile) {
  int keys = problem.seqlen_k;
  if (problem.causal) {
    const int rows = min((query_tile + 1) * kBlockM, problem.seqlen_q);
    keys = max(rows + problem.seqlen_k - problem.seqlen_q, 0);
  }
  return ceil_div(keys, kBlockN);
}

template <class Element, int kHeadDim>
__global__ void __launch_bounds__(kThreads) ldmatrix_kernel(const Problem problem, const Element* q, const Element* k,
                                                            const Element* v, Element* o, float* softmax_lse) {
  Element* q_tile = dynamic_shared<Element>();    // [kBlockM][kHeadDim]
  Element* k_tile = q_tile + kBlockM * kHeadDim;  // [kBlockN][kHeadDim]
  Element* v_tile = k_tile + kBlockN * kHeadDim;  // [kBlockN][kHeadDim]
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const int group = lane / 4, t = lane % 4;  // the lane's place in the lane map

  // Full: the tiles of a head side by side, to share its K and V in L2. Causal: later tiles have more to do, so
  // the last tiles of all heads start first, and the short ones fill the gaps at the end.
  const int query_tiles = ceil_div(problem.seqlen_q, kBlockM), batch_heads = gridDim.x / query_tiles;
  const int query_tile = problem.causal ? query_tiles - 1 - blockIdx.x / batch_heads : blockIdx.x % query_tiles;
  const int batch_head = problem.causal ? blockIdx.x % batch_heads : blockIdx.x / query_tiles;
  const int batch = batch_head / problem.heads, head = batch_head % problem.heads;
  const int kv_head = batch * problem.kv_heads + head / (problem.heads / problem.kv_heads);
  q += size_t(batch_head) * problem.seqlen_q * kHeadDim;
  o += size_t(batch_head) * problem.seqlen_q * kHeadDim;
  k += size_t(kv_head) * problem.seqlen_k * kHeadDim;
  v += size_t(kv_head) * problem.seqlen_k * kHeadDim;
  softmax_lse += size_t(batch_head) * problem.seqlen_q;
  const int first_row = query_tile * kBlockM, warp_row = first_row + warp * kWarpRows;
  const float scale_log2 = problem.softmax_scale * kLog2e;

  load_tile<kHeadDim, kBlockM>(q_tile, q, first_row, problem.seqlen_q);
  __syncthreads();  // Q is there
  uint32_t q_frag[kHeadDim / kMmaK][4];
  for (int step = 0; step < kHeadDim / kMmaK; ++step) {
    // The matrices: rows 0 … 7 and rows 8 … 15 of the left 8 columns, then of the right.
    ldmatrix_x4(q_frag[step], &q_tile[swizzle<kHeadDim>(warp * kWarpRows + lane % 16, 2 * step + lane / 16)]);
  }

  // A lane has two rows, i = 0 and 1: warp_row + group + 8 i. The four lanes of a group hold the same maximum and sum.
  float o_acc[kHeadDim / kMmaN][4] = {};
  float row_max[2] = {-INFINITY, -INFINITY}, row_sum[2] = {0.f, 0.f};

  const int key_tiles = key_tiles_seen(problem, query_tile);
  for (int key_tile = 0; key_tile < key_tiles; ++key_tile) {
    const int first_key = key_tile * kBlockN;
    __syncthreads();  // every warp has read the K and V before these
    load_tile<kHeadDim, kBlockN>(k_tile, k, first_key, problem.seqlen_k);
    load_tile<kHeadDim, kBlockN>(v_tile, v, first_key, problem.seqlen_k);
    __syncthreads();  // K and V are there

    float s_acc[kTilesN][4] = {};
    tile_scores<kHeadDim>(s_acc, q_frag, k_tile, lane);
    if (flash::tile_sees(problem, warp_row, kWarpRows, first_key, kBlockN) != flash::Seen::all) {  // most tiles are
      mask_scores(s_acc, problem, warp_row + group, first_key + 2 * t);
    }
    online_softmax(s_acc, row_max, row_sum, o_acc, scale_log2);
    accumulate_pv<kHeadDim>(o_acc, s_acc, v_tile, lane);
  }
  write_rows<kHeadDim>(o_acc, row_max, row_sum, problem, warp_row + group, t, o, softmax_lse);
}

template <class Element>
void start(const flash::ForwardArgs& a, const flash::Plan& plan, flash::Stream stream) {
  const Problem& p = a.problem;
  const auto kernel = p.head_dim == 64 ? ldmatrix_kernel<Element, 64> : ldmatrix_kernel<Element, 128>;
  launch(kernel, ceil_div(p.seqlen_q, kBlockM) * p.heads * p.batch, kThreads, plan.shared_bytes, stream, p, a.q, a.k,
         a.v, a.o, a.softmax_lse);
}

void forward(const flash::ForwardArgs& a, const flash::Plan& plan, void*, flash::Stream stream) {
  const auto start_with = a.problem.dtype == flash::Dtype::bf16 ? start<__nv_bfloat16> : start<__half>;
  start_with(a, plan, stream);
}

flash::Plan plan(const Problem& p, const flash::Device& device) {
  flash::Plan plan;
  plan.block_m = kBlockM;
  plan.block_n = kBlockN;
  plan.shared_bytes = shared_bytes(p.head_dim);
  plan.refusal = flash::tiles_refusal(kName, plan, p, device);
  const double heads = double(p.batch) * p.heads, row = p.head_dim * 2.0;  // bytes per row of Q, K, V, O
  const double rows = p.seqlen_q + 2 * flash::keys_visited_by_all(p, plan.block_m, plan.block_n);
  plan.traffic = {heads * rows * row, heads * p.seqlen_q * (row + 4)};
  return plan;
}

const flash::RegisterStep registered(flash::with_tensor_cores(
    flash::at_least(80),
    flash::forward_step(kName, "fragments by ldmatrix from swizzled tiles: no bank conflicts, no pairs glued together",
                        {flash::Dtype::bf16, flash::Dtype::fp16}, {64, 128}, plan, forward)));

}  // namespace
