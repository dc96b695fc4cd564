// 05.5 lazy maximum: O is rescaled only when a row has outgrown its maximum by far.
//
// Idea: any reference will do in place of the maximum, as long as no exponential leaves its range. So a maximum may lag
//   behind, until some score exceeds it by a factor of more than 2^8; one vote of the warp finds that out, and mostly it
//   is no. Then nothing is shuffled and nothing rescaled: sums stay spread over the four lanes of a row until the end.
//   And the weights of 16 keys can be computed right before the mmas that take them, beside those of the 16 before.
// Global memory: as 05.4.
// Limits: as 05.4. What is left between the mmas is addresses, tests and the repair of subnormal exponentials: see 05.6.
#include <algorithm>
#include <cmath>

#include "common/kernel/cuda.cuh"
#include "common/kernel/ptx/cp_async.cuh"
#include "common/kernel/ptx/ldmatrix.cuh"
#include "common/kernel/ptx/mma.cuh"
#include "common/kernel/ptx/pack.cuh"
#include "common/kernel/step.h"
#include "common/kernel/tiles_seen.h"
#include "common/problem/mask.h"

namespace {

using flash::Problem;

constexpr const char* kName = "05_tensor_core/5_lazy_max";
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr float kLn2 = 0.69314718f;
constexpr float kRescaleAbove = 8.f;              // in the exponent: P may grow to 2^8 before its maximum moves
constexpr float kLowest = -3e38f;                 // where maxima start: finite, so that no -inf - -inf can arise
constexpr int kMmaM = 16, kMmaN = 8, kMmaK = 16;  // the shape of an mma: C is 16 x 8, A has 16 columns

// Query rows and keys per tile. As many keys as the registers for S allow beside those for O.
#ifdef TILE_M
constexpr int kBlockM = TILE_M;
__host__ __device__ constexpr int block_n(int) { return TILE_N; }
#else
constexpr int kBlockM = 128;
__host__ __device__ constexpr int block_n(int head_dim) { return head_dim == 64 ? 96 : 64; }
#endif
constexpr int kWarpRows = 32;
constexpr int kThreads = kBlockM / kWarpRows * kWarpSize;
constexpr int kBuffers = 2;                 // of K, and of V
constexpr int kTilesM = kWarpRows / kMmaM;  // m16 tiles of rows per warp
static_assert(kBlockM % kWarpRows == 0, "TILE=MxN: M must be a multiple of 32: a warp owns 32 query rows");
static_assert(kThreads <= 256, "TILE=MxN: M must be at most 256: 8 warps with 255 registers per thread fill an SM");
static_assert(block_n(128) % 16 == 0, "TILE=MxN: N must be a multiple of 16: an mma of P V takes 16 keys");

__host__ __device__ constexpr int shared_bytes(int head_dim) {
  return (kBlockM + 2 * kBuffers * block_n(head_dim)) * head_dim * 2;
}

// Where 16-byte chunk `chunk` of row `row` lies in a tile, in elements.
template <int kHeadDim>
__device__ __forceinline__ int swizzle(int row, int chunk) {
  return row * kHeadDim + (chunk ^ row % 8) * 8;
}

// Starts to copy rows first_row … first_row + kRows - 1 of a [seqlen, kHeadDim] matrix to shared memory, zeros for rows
// past its end. 16 bytes, 8 elements, per thread.
template <int kHeadDim, int kRows, class Element>
__device__ __forceinline__ void copy_tile(Element* tile, const Element* matrix, int first_row, int seqlen) {
  for (int i = threadIdx.x; i < kRows * kHeadDim / 8; i += kThreads) {
    const int row = i / (kHeadDim / 8), chunk = i % (kHeadDim / 8);
    const bool exists = first_row + row < seqlen;
    const Element* from = exists ? &matrix[size_t(first_row + row) * kHeadDim + chunk * 8] : matrix;
    cp_async<16>(&tile[swizzle<kHeadDim>(row, chunk)], from, exists);
  }
}

// S += Q K^T, one k16 step after the other.
template <int kHeadDim, class Element, int kTilesN>
__device__ __forceinline__ void tile_scores(float (&s_acc)[kTilesM][kTilesN][4], const Element* q_tile,
                                            const Element* k_tile, int warp, int lane) {
#pragma unroll
  for (int step = 0; step < kHeadDim / kMmaK; ++step) {
    uint32_t q_frag[kTilesM][4];
    for (int m = 0; m < kTilesM; ++m) {
      const int row = warp * kWarpRows + m * kMmaM + lane % 16;
      ldmatrix_x4(q_frag[m], &q_tile[swizzle<kHeadDim>(row, 2 * step + lane / 16)]);
    }
    for (int n = 0; n < kTilesN; n += 2) {
      uint32_t k_frag[2][2];
      ldmatrix_x4(k_frag, &k_tile[swizzle<kHeadDim>(n * kMmaN + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2)]);
      for (int m = 0; m < kTilesM; ++m) {
        mma_m16n8k16<Element>(s_acc[m][n], q_frag[m], k_frag[0]);
        mma_m16n8k16<Element>(s_acc[m][n + 1], q_frag[m], k_frag[1]);
      }
    }
  }
}

// Scores of keys that a row doesn't see become -inf: keys past the end, and later keys when causal.
template <int kTilesN>
__device__ __forceinline__ void mask_scores(float (&s_acc)[kTilesM][kTilesN][4], const Problem& problem, int lane_row,
                                            int lane_key) {
#pragma unroll
  for (int m = 0; m < kTilesM; ++m) {
    for (int n = 0; n < kTilesN; ++n) {
      for (int e = 0; e < 4; ++e) {
        const int row = lane_row + m * kMmaM + e / 2 * 8, key = lane_key + n * kMmaN + e % 2;
        if (!flash::visible(problem, row, key)) s_acc[m][n][e] = -INFINITY;
      }
    }
  }
}

// Where some row of the warp has outgrown its maximum, moves the maxima and rescales sums and O to them. Maxima are
// scaled and base 2, as in the exponent.
template <int kTilesN, int kTilesD>
__device__ __forceinline__ void move_maxima(const float (&s_acc)[kTilesM][kTilesN][4], float (&row_max)[kTilesM][2],
                                            float (&row_sum)[kTilesM][2], float (&o_acc)[kTilesM][kTilesD][4],
                                            float scale_log2) {
  float tile_max[kTilesM][2];
  bool outgrown = false;
  for (int m = 0; m < kTilesM; ++m) {
    for (int i = 0; i < 2; ++i) {
      tile_max[m][i] = -INFINITY;
      for (int n = 0; n < kTilesN; ++n) {
        tile_max[m][i] = fmaxf(tile_max[m][i], fmaxf(s_acc[m][n][2 * i], s_acc[m][n][2 * i + 1]));
      }
      outgrown |= tile_max[m][i] * scale_log2 - kRescaleAbove > row_max[m][i];
    }
  }
  if (!__any_sync(kAllLanes, outgrown)) return;
  for (int m = 0; m < kTilesM; ++m) {
    for (int i = 0; i < 2; ++i) {
      float new_max = tile_max[m][i];
      new_max = fmaxf(new_max, __shfl_xor_sync(kAllLanes, new_max, 1));  // the four lanes of a group share the row
      new_max = fmaxf(new_max, __shfl_xor_sync(kAllLanes, new_max, 2));
      new_max = fmaxf(new_max * scale_log2, row_max[m][i]);
      const float rescale = exp2f(row_max[m][i] - new_max);
      row_max[m][i] = new_max;
      row_sum[m][i] *= rescale;  // @rescale-sum
      for (int n = 0; n < kTilesD; ++n) {
        o_acc[m][n][2 * i] *= rescale;
        o_acc[m][n][2 * i + 1] *= rescale;
      }
    }
  }
}

// The weights P = 2^(S - maximum) of one k16 step's keys, added to the lane's share of the sums and packed as an operand.
template <class Element, int kTilesN>
__device__ __forceinline__ void step_weights(uint32_t (&p_frag)[kTilesM][4], float (&row_sum)[kTilesM][2],
                                             const float (&s_acc)[kTilesM][kTilesN][4],
                                             const float (&row_max)[kTilesM][2], float scale_log2, int step) {
  for (int m = 0; m < kTilesM; ++m) {
    for (int half = 0; half < 2; ++half) {  // 8 keys each
      float weights[4];
      for (int e = 0; e < 4; ++e) {
        weights[e] = exp2f(s_acc[m][2 * step + half][e] * scale_log2 - row_max[m][e / 2]);
      }
      row_sum[m][0] += weights[0] + weights[1];
      row_sum[m][1] += weights[2] + weights[3];
      p_frag[m][2 * half] = pack<Element>(weights[0], weights[1]);
      p_frag[m][2 * half + 1] = pack<Element>(weights[2], weights[3]);
    }
  }
}

// O += P V, 16 keys at a time: the exponentials of the next 16 run beside these mmas.
template <int kHeadDim, class Element, int kTilesN>
__device__ __forceinline__ void accumulate_pv(float (&o_acc)[kTilesM][kHeadDim / kMmaN][4],
                                              float (&row_sum)[kTilesM][2], const float (&s_acc)[kTilesM][kTilesN][4],
                                              const float (&row_max)[kTilesM][2], float scale_log2,
                                              const Element* v_tile, int lane) {
#pragma unroll
  for (int step = 0; step < kTilesN / 2; ++step) {
    uint32_t p_frag[kTilesM][4];
    step_weights<Element>(p_frag, row_sum, s_acc, row_max, scale_log2, step);
    for (int n = 0; n < kHeadDim / kMmaN; n += 2) {
      uint32_t v_frag[2][2];
      ldmatrix_x4_trans(v_frag, &v_tile[swizzle<kHeadDim>(step * kMmaK + lane % 16, n + lane / 16)]);
      for (int m = 0; m < kTilesM; ++m) {
        mma_m16n8k16<Element>(o_acc[m][n], p_frag[m], v_frag[0]);
        mma_m16n8k16<Element>(o_acc[m][n + 1], p_frag[m], v_frag[1]);
      }
    }
  }
}

// O / sum, and log(sum(exp)); a row that has seen no key has the sum 0 and gives 0 and -inf.
template <int kHeadDim, class Element>
__device__ __forceinline__ void write_rows(const float (&o_acc)[kHeadDim / kMmaN][4], const float (&row_max)[2],
                                           const float (&row_sum)[2], const Problem& problem, int lane_row, int t,
                                           Element* o, float* softmax_lse) {
  for (int i = 0; i < 2; ++i) {
    const int row = lane_row + 8 * i;
    float sum = row_sum[i];
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    if (row >= problem.seqlen_q) continue;
    const float inverse = sum > 0.f ? 1.f / sum : 0.f;
    for (int n = 0; n < kHeadDim / kMmaN; ++n) {
      *reinterpret_cast<uint32_t*>(&o[size_t(row) * kHeadDim + n * kMmaN + t * 2]) =
          pack<Element>(o_acc[n][2 * i] * inverse, o_acc[n][2 * i + 1] * inverse);
    }
    if (t == 0) softmax_lse[row] = (row_max[i] + log2f(sum)) * kLn2;
  }
}

// How many key tiles a query tile sees: all, or when causal those up to its last row's diagonal.
__host__ __device__ inline int key_tiles_seen(const Problem& problem, int query_tile) {
  int keys = problem.seqlen_k;
  if (problem.causal) {
    const int rows = min((query_tile + 1) * kBlockM, problem.seqlen_q);
    keys = max(rows + problem.seqlen_k - problem.seqlen_q, 0);
  }
  return ceil_div(keys, block_n(problem.head_dim));
}

template <class Element, int kHeadDim>
__global__ void __launch_bounds__(kThreads, 256 / kThreads)
    lazy_max_kernel(const Problem problem, const Element* q, const Element* k, const Element* v, Element* o,
                    float* softmax_lse) {
  constexpr int kBlockN = block_n(kHeadDim), kTile = kBlockN * kHeadDim;
  Element* q_tile = dynamic_shared<Element>();     // [kBlockM][kHeadDim]
  Element* k_tiles = q_tile + kBlockM * kHeadDim;  // [kBuffers][kBlockN][kHeadDim]
  Element* v_tiles = k_tiles + kBuffers * kTile;   // [kBuffers][kBlockN][kHeadDim]
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

  const int key_tiles = key_tiles_seen(problem, query_tile);
  if (key_tiles > 0) {
    copy_tile<kHeadDim, kBlockM>(q_tile, q, first_row, problem.seqlen_q);
    copy_tile<kHeadDim, kBlockN>(k_tiles, k, 0, problem.seqlen_k);
    copy_tile<kHeadDim, kBlockN>(v_tiles, v, 0, problem.seqlen_k);
    cp_async_commit();
  }

  // A lane has two rows of each m tile, i = 0 and 1: warp_row + 16 m + group + 8 i. The four lanes of a group hold the
  // same maximum, and a share each of the sum.
  float o_acc[kTilesM][kHeadDim / kMmaN][4] = {};
  float row_max[kTilesM][2], row_sum[kTilesM][2] = {};
  for (int m = 0; m < kTilesM; ++m) {
    row_max[m][0] = kLowest;
    row_max[m][1] = kLowest;
  }

  for (int key_tile = 0; key_tile < key_tiles; ++key_tile) {
    cp_async_wait<0>();
    __syncthreads();  // this K and V are there, from every thread; and every warp is done with the other buffers
    const int first_key = key_tile * kBlockN, buffer = key_tile % kBuffers * kTile, other_buffer = kTile - buffer;
    if (key_tile + 1 < key_tiles) {
      copy_tile<kHeadDim, kBlockN>(k_tiles + other_buffer, k, first_key + kBlockN, problem.seqlen_k);
      copy_tile<kHeadDim, kBlockN>(v_tiles + other_buffer, v, first_key + kBlockN, problem.seqlen_k);
      cp_async_commit();
    }

    float s_acc[kTilesM][kBlockN / kMmaN][4] = {};
    tile_scores<kHeadDim>(s_acc, q_tile, k_tiles + buffer, warp, lane);
    if (flash::tile_sees(problem, warp_row, kWarpRows, first_key, kBlockN) != flash::Seen::all) {  // most tiles are
      mask_scores(s_acc, problem, warp_row + group, first_key + 2 * t);
    }
    move_maxima(s_acc, row_max, row_sum, o_acc, scale_log2);
    accumulate_pv<kHeadDim>(o_acc, row_sum, s_acc, row_max, scale_log2, v_tiles + buffer, lane);
  }
#pragma unroll
  for (int m = 0; m < kTilesM; ++m) {
    write_rows<kHeadDim>(o_acc[m], row_max[m], row_sum[m], problem, warp_row + m * kMmaM + group, t, o, softmax_lse);
  }
}

template <class Element>
void start(const flash::ForwardArgs& a, const flash::Plan& plan, flash::Stream stream) {
  const Problem& p = a.problem;
  const auto kernel = p.head_dim == 64 ? lazy_max_kernel<Element, 64> : lazy_max_kernel<Element, 128>;
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
  plan.block_n = block_n(p.head_dim);
  plan.shared_bytes = shared_bytes(p.head_dim);
  plan.refusal = flash::tiles_refusal(kName, plan, p, device);
  const double heads = double(p.batch) * p.heads, row = p.head_dim * 2.0;       // bytes per row of Q, K, V, O
  double rows = 2 * flash::keys_visited_by_all(p, plan.block_m, plan.block_n);  // of K and V; and of Q
  for (int query = 0; query < p.seqlen_q; query += kBlockM) {
    if (flash::keys_visited(p, query, plan.block_m, plan.block_n) > 0) rows += std::min(kBlockM, p.seqlen_q - query);
  }
  plan.traffic = {heads * rows * row, heads * p.seqlen_q * (row + 4)};
  return plan;
}

const flash::RegisterStep registered(flash::with_tensor_cores(
    flash::at_least(80),
    flash::forward_step(kName, "a maximum that may lag behind: O is rescaled only when a score outgrows it by 2^8",
                        {flash::Dtype::bf16, flash::Dtype::fp16}, {64, 128}, plan, forward)));

}  // namespace
