// 07.1 TMA: one thread asks for a tile, and an mbarrier says when it is there.
//
// Idea: Hopper has an engine that copies whole tiles. It knows the tensor from a map that the host wrote, finds every
//   address by itself, swizzles on the way and puts zeros where the tensor ends. So no thread copies any more: one asks,
//   and goes on. Each buffer of K and V has an mbarrier, which counts the bytes that have landed. The maths are 05.6's.
// Global memory: as 05.6.
// Limits: fp16 and bf16, head_dim 64 or 128, compute capability 9.0 and no other. 64 and 96 KB of shared memory; two
//   blocks of 128 threads fill the registers of an SM. What is multiplied still passes through them, one ldmatrix for
//   four mmas: see 07.2.
#include <algorithm>
#include <cmath>

#include "common/kernel/cuda.cuh"
#include "common/kernel/ptx/ex2.cuh"
#include "common/kernel/ptx/fence.cuh"
#include "common/kernel/ptx/ldmatrix.cuh"
#include "common/kernel/ptx/mbarrier.cuh"
#include "common/kernel/ptx/mma.cuh"
#include "common/kernel/ptx/pack.cuh"
#include "common/kernel/ptx/tma.cuh"
#include "common/kernel/slabs.cuh"
#include "common/kernel/step.h"
#include "common/kernel/tiles_seen.h"
#include "common/problem/mask.h"

namespace {

using flash::Problem;

constexpr const char* kName = "07_hopper/1_tma";
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
// Does a lane keep its fragments of Q? At head_dim 64 there are registers left; else it reads them for every key tile.
__host__ __device__ constexpr bool keeps_q(int head_dim) { return head_dim == 64; }
static_assert(kBlockM % kWarpRows == 0, "TILE=MxN: M must be a multiple of 32: a warp owns 32 query rows");
static_assert(kThreads <= 256, "TILE=MxN: M must be at most 256: 8 warps with 255 registers per thread fill an SM");
static_assert(block_n(128) % 16 == 0, "TILE=MxN: N must be a multiple of 16: an mma of P V takes 16 keys");
static_assert(block_n(64) <= 256 && block_n(128) <= 256,
              "TILE=MxN: N must be at most 256: a box of TMA has no more rows");

// A tile lies in slabs of 64 columns, [head_dim / 64][rows][64]: their rows are the 128 bytes that TMA swizzles.
constexpr int kSlab = 64;

__host__ __device__ constexpr int tile_bytes(int rows, int head_dim) { return rows * head_dim * 2; }
__host__ __device__ constexpr int shared_bytes(int head_dim) {
  return tile_bytes(kBlockM + 2 * kBuffers * block_n(head_dim), head_dim);
}

// Where 16-byte chunk `chunk` of row `row` lies in a tile of kRows rows, in elements.
template <int kRows>
__device__ __forceinline__ int swizzle(int row, int chunk) {
  return (chunk / 8 * kRows + row) * kSlab + (chunk % 8 ^ row % 8) * 8;  // @swizzle
}

// A lane that reads the first 16 columns of a tile at `first` reads those of k16 step `step` here: one xor in a slab.
template <int kRows>
__device__ __forceinline__ int at_step(int first, int step) {
  return step / 4 * kRows * kSlab + (first ^ step % 4 * kMmaK);  // @step
}

// Asks for tile `key_tile` of K and of V. Their bytes count at the buffer's mbarrier, in whole boxes: past the last key
// zeros land.
template <int kHeadDim, class Element>
__device__ __forceinline__ void ask_for_keys(Element* k_tiles, Element* v_tiles, uint64_t* full,
                                             const CUtensorMap& k_map, const CUtensorMap& v_map, int key_tile,
                                             int kv_head) {
  constexpr int kBlockN = block_n(kHeadDim);
  const int buffer = key_tile % kBuffers, to = buffer * kBlockN * kHeadDim, first_key = key_tile * kBlockN;
  mbarrier_arrive_expect(&full[buffer], 2 * tile_bytes(kBlockN, kHeadDim));  // @ask
  tma_load(k_tiles + to, &k_map, &full[buffer], 0, first_key, 0, kv_head);
  tma_load(v_tiles + to, &v_map, &full[buffer], 0, first_key, 0, kv_head);
}

// One k16 step of the warp's rows of Q.
template <int kHeadDim, class Element>
__device__ __forceinline__ void load_q(uint32_t (&q_frag)[kTilesM][4], const Element* shared, int q_at, int step) {
  for (int m = 0; m < kTilesM; ++m) ldmatrix_x4(q_frag[m], &shared[at_step<kBlockM>(q_at, step) + m * kMmaM * kSlab]);
}

// S += Q K^T.
template <int kHeadDim, class Element, int kTilesN>
__device__ __forceinline__ void tile_scores(float (&s_acc)[kTilesM][kTilesN][4],
                                            uint32_t (&q_frag)[kHeadDim / kMmaK][kTilesM][4], const Element* shared,
                                            int q_at, int k_at) {
#pragma unroll
  for (int step = 0; step < kHeadDim / kMmaK; ++step) {
    if (!keeps_q(kHeadDim)) load_q<kHeadDim>(q_frag[step], shared, q_at, step);
    for (int n = 0; n < kTilesN; n += 2) {
      uint32_t k_frag[2][2];
      ldmatrix_x4(k_frag, &shared[at_step<block_n(kHeadDim)>(k_at, step) + n * kMmaN * kSlab]);
      for (int m = 0; m < kTilesM; ++m) {
        mma_m16n8k16<Element>(s_acc[m][n], q_frag[step][m], k_frag[0]);
        mma_m16n8k16<Element>(s_acc[m][n + 1], q_frag[step][m], k_frag[1]);
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
      const float rescale = ex2(row_max[m][i] - new_max);
      row_max[m][i] = new_max;
      row_sum[m][i] *= rescale;
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
        weights[e] = ex2(s_acc[m][2 * step + half][e] * scale_log2 - row_max[m][e / 2]);
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
                                              const Element* shared, int v_at) {
#pragma unroll
  for (int step = 0; step < kTilesN / 2; ++step) {
    uint32_t p_frag[kTilesM][4];
    step_weights<Element>(p_frag, row_sum, s_acc, row_max, scale_log2, step);
    for (int n = 0; n < kHeadDim / kMmaN; n += 2) {
      uint32_t v_frag[2][2];
      ldmatrix_x4_trans(v_frag, &shared[at_step<block_n(kHeadDim)>(v_at, n / 2) + step * kMmaK * kSlab]);
      for (int m = 0; m < kTilesM; ++m) {
        mma_m16n8k16<Element>(o_acc[m][n], p_frag[m], v_frag[0]);
        mma_m16n8k16<Element>(o_acc[m][n + 1], p_frag[m], v_frag[1]);
      }
    }
  }
}

// O / sum, and log(sum(exp)); a row that has seen no key has the sum 0 and gives 0 and -inf. O goes to global memory by
// way of the warp's own rows of shared memory, where Q was, so that it leaves 16 bytes at a time.
template <int kHeadDim, class Element>
__device__ __forceinline__ void write_rows(const float (&o_acc)[kTilesM][kHeadDim / kMmaN][4],
                                           const float (&row_max)[kTilesM][2], const float (&row_sum)[kTilesM][2],
                                           const Problem& problem, int warp_row, int lane, Element* warp_tile,
                                           Element* __restrict__ o, float* __restrict__ softmax_lse) {
  const int group = lane / 4, t = lane % 4;
  __syncwarp();  // every lane has read Q
#pragma unroll
  for (int m = 0; m < kTilesM; ++m) {
    for (int i = 0; i < 2; ++i) {
      float sum = row_sum[m][i];
      sum += __shfl_xor_sync(kAllLanes, sum, 1);
      sum += __shfl_xor_sync(kAllLanes, sum, 2);
      const float inverse = sum > 0.f ? 1.f / sum : 0.f;
      const int row = m * kMmaM + i * 8 + group;
      if (t == 0 && warp_row + row < problem.seqlen_q) {
        softmax_lse[warp_row + row] = (row_max[m][i] + log2f(sum)) * kLn2;
      }
      for (int n = 0; n < kHeadDim / kMmaN; ++n) {
        *reinterpret_cast<uint32_t*>(&warp_tile[swizzle<kBlockM>(row, n) + t * 2]) =
            pack<Element>(o_acc[m][n][2 * i] * inverse, o_acc[m][n][2 * i + 1] * inverse);
      }
    }
  }
  __syncwarp();  // the rows are whole
  constexpr int kChunks = kHeadDim / 8;
#pragma unroll
  for (int row = lane / kChunks; row < kWarpRows; row += kWarpSize / kChunks) {
    const int chunk = lane % kChunks;
    if (warp_row + row >= problem.seqlen_q) break;
    const uint4 part = *reinterpret_cast<const uint4*>(&warp_tile[swizzle<kBlockM>(row, chunk)]);
    *reinterpret_cast<uint4*>(&o[size_t(warp_row + row) * kHeadDim + chunk * 8]) = part;
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

template <class Element, int kHeadDim, bool kCausal>
__global__ void __launch_bounds__(kThreads, 256 / kThreads)
    tma_kernel(Problem problem, const __grid_constant__ CUtensorMap q_map, const __grid_constant__ CUtensorMap k_map,
               const __grid_constant__ CUtensorMap v_map, Element* __restrict__ o, float* __restrict__ softmax_lse) {
  constexpr int kBlockN = block_n(kHeadDim), kTile = kBlockN * kHeadDim, kStepsD = kHeadDim / kMmaK;
  constexpr int kKeys = kBlockM * kHeadDim, kValues = kKeys + kBuffers * kTile;
  problem.causal = kCausal;                           // @kernel: nothing new, but the compiler knows it
  Element* shared = dynamic_shared_tiles<Element>();  // [kHeadDim / 64][kBlockM][64] of Q, then …
  Element* k_tiles = shared + kKeys;                  // [kBuffers][kHeadDim / 64][kBlockN][64]
  Element* v_tiles = shared + kValues;                // [kBuffers][kHeadDim / 64][kBlockN][64]
  __shared__ uint64_t full[kBuffers];                 // mbarriers: K and V of this buffer have landed
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const int group = lane / 4, t = lane % 4;  // the lane's place in the lane map

  // Full: the tiles of a head side by side, to share its K and V in L2. Causal: later tiles have more to do, so
  // the last tiles of all heads start first, and the short ones fill the gaps at the end.
  const int query_tiles = ceil_div(problem.seqlen_q, kBlockM), batch_heads = gridDim.x / query_tiles;
  const int query_tile = problem.causal ? query_tiles - 1 - blockIdx.x / batch_heads : blockIdx.x % query_tiles;
  const int batch_head = problem.causal ? blockIdx.x % batch_heads : blockIdx.x / query_tiles;
  const int batch = batch_head / problem.heads, head = batch_head % problem.heads;
  const int kv_head = batch * problem.kv_heads + head / (problem.heads / problem.kv_heads);
  o += size_t(batch_head) * problem.seqlen_q * kHeadDim;
  softmax_lse += size_t(batch_head) * problem.seqlen_q;
  const int first_row = query_tile * kBlockM, warp_row = first_row + warp * kWarpRows;
  const float scale_log2 = problem.softmax_scale * kLog2e;

  // Key tiles are walked from the last to the first. Q comes with the first of all. Every buffer is empty, so as many
  // tiles are asked for.
  const int last_tile = key_tiles_seen(problem, query_tile) - 1;
  if (threadIdx.x == 0 && last_tile >= 0) {
    for (int buffer = 0; buffer < kBuffers; ++buffer) mbarrier_init(&full[buffer], 1);
    mbarrier_init_fence();  // @init
    mbarrier_expect(&full[last_tile % kBuffers], tile_bytes(kBlockM, kHeadDim));
    tma_load(shared, &q_map, &full[last_tile % kBuffers], 0, first_row, 0, batch_head);
    for (int key_tile = last_tile; key_tile >= 0 && key_tile > last_tile - kBuffers; --key_tile) {
      ask_for_keys<kHeadDim>(k_tiles, v_tiles, full, k_map, v_map, key_tile, kv_head);
    }
  }

  // Where this lane reads `shared` with ldmatrix: its row of the first 16 x 16 patch of Q, of K and of V.
  const int q_at = swizzle<kBlockM>(warp * kWarpRows + lane % 16, lane / 16);
  const int k_at = kKeys + swizzle<kBlockN>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
  const int v_at = kValues + swizzle<kBlockN>(lane % 16, lane / 16);

  // A lane has two rows of each m tile, i = 0 and 1: warp_row + 16 m + group + 8 i. The four lanes of a group hold the
  // same maximum, and a share each of the sum.
  float o_acc[kTilesM][kHeadDim / kMmaN][4] = {};
  float row_max[kTilesM][2], row_sum[kTilesM][2] = {};
  for (int m = 0; m < kTilesM; ++m) {
    row_max[m][0] = kLowest;
    row_max[m][1] = kLowest;
  }

  __syncthreads();  // the mbarriers are initialised
  uint32_t q_frag[kStepsD][kTilesM][4];
  if (keeps_q(kHeadDim) && last_tile >= 0) {
    mbarrier_wait(&full[last_tile % kBuffers], 0);
    for (int step = 0; step < kStepsD; ++step) load_q<kHeadDim>(q_frag[step], shared, q_at, step);
  }

#pragma unroll 1
  for (int key_tile = last_tile; key_tile >= 0; --key_tile) {
    const int first_key = key_tile * kBlockN, buffer = key_tile % kBuffers;
    const int phase = (last_tile - key_tile) / kBuffers;  // @phase: of this buffer's mbarrier
    mbarrier_wait(&full[buffer], phase % 2);              // this K and V are there

    float s_acc[kTilesM][kBlockN / kMmaN][4] = {};
    tile_scores<kHeadDim>(s_acc, q_frag, shared, q_at, buffer * kTile + k_at);
    if (flash::tile_sees(problem, warp_row, kWarpRows, first_key, kBlockN) != flash::Seen::all) {  // most tiles are
      mask_scores(s_acc, problem, warp_row + group, first_key + 2 * t);
    }
    move_maxima(s_acc, row_max, row_sum, o_acc, scale_log2);
    accumulate_pv<kHeadDim>(o_acc, row_sum, s_acc, row_max, scale_log2, shared, buffer * kTile + v_at);
    __syncthreads();  // every warp is done with this K and V
    if (threadIdx.x == 0 && key_tile >= kBuffers) {
      ask_for_keys<kHeadDim>(k_tiles, v_tiles, full, k_map, v_map, key_tile - kBuffers, kv_head);
    }
  }
  write_rows<kHeadDim>(o_acc, row_max, row_sum, problem, warp_row, lane, shared + warp * kWarpRows * kSlab, o,
                       softmax_lse);
}

template <class Element>
void start(const flash::ForwardArgs& a, const flash::Plan& plan, flash::Stream stream) {
  const Problem& p = a.problem;  // @start
  const auto full = p.head_dim == 64 ? tma_kernel<Element, 64, false> : tma_kernel<Element, 128, false>;
  const auto causal = p.head_dim == 64 ? tma_kernel<Element, 64, true> : tma_kernel<Element, 128, true>;
  const auto map = [&](const void* data, int heads, int seqlen, int rows) {
    return slab_map(static_cast<const Element*>(data), p.batch * heads, seqlen, p.head_dim, rows, p.head_dim / kSlab);
  };
  launch(p.causal ? causal : full, ceil_div(p.seqlen_q, kBlockM) * p.heads * p.batch, kThreads, plan.shared_bytes,
         stream, p, map(a.q, p.heads, p.seqlen_q, kBlockM), map(a.k, p.kv_heads, p.seqlen_k, plan.block_n),
         map(a.v, p.kv_heads, p.seqlen_k, plan.block_n), a.o, a.softmax_lse);
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
    flash::exactly(90), flash::forward_step(kName, "one thread asks for a tile, and an mbarrier says when it is there",
                                            {flash::Dtype::bf16, flash::Dtype::fp16}, {64, 128}, plan, forward)));

}  // namespace
