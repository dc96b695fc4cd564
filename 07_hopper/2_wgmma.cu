// 07.2 wgmma: four warps multiply at once, and the tensor cores read shared memory by themselves.
//
// Idea: with mma.sync every operand passes through registers: an ldmatrix for four mmas. A wgmma takes a descriptor instead,
//   which says where a tile lies in shared memory and how TMA has swizzled it. So Q, K and V are never loaded by a thread;
//   one instruction multiplies 64 rows of a warpgroup, four warps, by up to 256 columns. P stays in registers: scores
//   lie there as an operand does, so P V takes it as they are.
//   Thread 0 asks for the next key tile while both warpgroups, of 64 rows each, multiply this one.
// Global memory: as 07.1.
// Limits: fp16 and bf16, head_dim 64, 128 or 256, compute capability 9.0 and no other. 80, 160 and 192 KB of shared memory:
//   one block of 256 threads an SM, two at head_dim 64. A warp has two jobs, and all wait for the slowest at each key
//   tile: see 07.3.
#include "common/kernel/accumulators.cuh"
#include "common/kernel/attention_params.cuh"
#include "common/kernel/cuda.cuh"
#include "common/kernel/ptx/ex2.cuh"
#include "common/kernel/ptx/fence.cuh"
#include "common/kernel/ptx/mbarrier.cuh"
#include "common/kernel/ptx/tma.cuh"
#include "common/kernel/ptx/wgmma.cuh"
#include "common/kernel/step.h"
#include "common/kernel/visit_shape.cuh"

namespace {

using flash::Problem;

constexpr const char* kName = "07_hopper/2_wgmma";
constexpr float kLn2 = 0.69314718f;
constexpr float kLowest = -3e38f;     // where maxima start: finite, so that no -inf - -inf can arise
constexpr float kRescaleAbove = 8.f;  // in the exponent: P may grow to 2^8 before its maximum moves
constexpr int kBuffers = 2;           // of K, and of V

template <class Element_, int kHeadDim_, bool kCausal_>
struct Shape {
  using Element = Element_;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr bool kCausal = kCausal_;
  static constexpr int kWarpgroups = 2, kThreads = kWarpgroups * kWarpgroup;
  static constexpr int kBlockM = kWarpgroups * kWgmmaM, kBlockN = kHeadDim == 256 ? 64 : 128;
  static constexpr int kSlabs = kHeadDim / 64, kQBytes = kBlockM * kHeadDim * 2, kTileBytes = kBlockN * kHeadDim * 2;
};

template <class S>
struct Shared {
  using Tiles = typename S::Element[kBuffers][S::kSlabs][S::kBlockN][64];
  typename S::Element q[S::kSlabs][S::kBlockM][64];
  Tiles k, v;
  uint64_t q_full, k_full[kBuffers], v_full[kBuffers];  // mbarriers: Q, this K, this V has landed
};

// A warpgroup: 64 rows of the query tile. A lane has two rows, i = 0 and 1 (accumulators.cuh): their maxima, and its share
// of their sums.
template <class S>
struct Warpgroup {
  using Element = typename S::Element;
  static constexpr int kHeadDim = S::kHeadDim, kBlockN = S::kBlockN;

  const AttentionParams& params;
  const Problem& problem;
  Shared<S>& shared;
  const QueryTile& tile;
  const int first_row;
  const uint64_t q_first = slabs_descriptor(shared.q[0][first_row - tile.first_row], S::kBlockM);  // @descriptors
  const uint64_t k_first = slabs_descriptor(shared.k[0], kBlockN), v_first = slabs_descriptor(shared.v[0], kBlockN);
  float s_acc[kBlockN / 2], o_acc[kHeadDim / 2], row_max[2], row_sum[2];
  uint32_t p_frag[kBlockN / kWgmmaK][4];

  __device__ __forceinline__ Warpgroup(const AttentionParams& params, const Problem& problem, Shared<S>& shared,
                                       const QueryTile& tile, int first_row)
      : params(params), problem(problem), shared(shared), tile(tile), first_row(first_row) {}

  // Thread 0 asks for tile `key_tile` of K and of V.
  __device__ __forceinline__ void load(int key_tile) {
    const int buffer = key_tile % kBuffers, first_key = key_tile * kBlockN;
    mbarrier_arrive_expect(&shared.k_full[buffer], S::kTileBytes);
    tma_load(shared.k[buffer], &params.k_map, &shared.k_full[buffer], 0, first_key, 0, tile.kv_head);
    mbarrier_arrive_expect(&shared.v_full[buffer], S::kTileBytes);
    tma_load(shared.v[buffer], &params.v_map, &shared.v_full[buffer], 0, first_key, 0, tile.kv_head);
  }
  __device__ __forceinline__ void load_q() {
    mbarrier_arrive_expect(&shared.q_full, S::kQBytes);
    tma_load(shared.q, &params.q_map, &shared.q_full, 0, tile.first_row, 0, tile.batch_head);
  }

  // @scores: S = Q K^T
  __device__ __forceinline__ void issue_scores(int buffer) {
    const uint64_t k = k_first + buffer * bytes_on(S::kTileBytes);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kHeadDim / kWgmmaK; ++step) {
      Wgmma<kBlockN, Element>::template ss<0, 0>(s_acc, q_first + columns_on(step, S::kBlockM),
                                                 k + columns_on(step, kBlockN), step > 0);
    }
    wgmma_commit();
  }
  // @values: O += P V
  __device__ __forceinline__ void issue_values(int buffer) {
    const uint64_t v = v_first + buffer * bytes_on(S::kTileBytes);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kBlockN / kWgmmaK; ++step) {
      Wgmma<kHeadDim, Element>::template rs<1>(o_acc, p_frag[step], v + rows_on(step), 1);
    }
    wgmma_commit();
  }
  // `phase`: of the buffer's mbarriers.
  __device__ __forceinline__ void tile_scores(int buffer, int phase) {
    mbarrier_wait(&shared.k_full[buffer], phase % 2);
    issue_scores(buffer);
    wgmma_wait<0>();  // @wait-scores
    pin(s_acc);
  }
  __device__ __forceinline__ void tile_values(int buffer, int phase) {
    mbarrier_wait(&shared.v_full[buffer], phase % 2);
    issue_values(buffer);
    wgmma_wait<0>();
    pin(o_acc);
  }

  // Where some row of the warp has outgrown its maximum, moves the maxima and rescales sums and O to them. Maxima are
  // scaled and base 2, as in the exponent.
  __device__ __forceinline__ void move_maxima() {
    const float tile_max[2] = {lane_maximum(s_acc, 0), lane_maximum(s_acc, 1)};
    bool outgrown = false;
    for (int i = 0; i < 2; ++i) outgrown |= tile_max[i] * params.scale_log2 - kRescaleAbove > row_max[i];
    if (!__any_sync(kAllLanes, outgrown)) return;
    float rescale[2];
    for (int i = 0; i < 2; ++i) {
      const float new_max = fmaxf(group_maximum(tile_max[i]) * params.scale_log2, row_max[i]);
      rescale[i] = ex2(row_max[i] - new_max);
      row_max[i] = new_max;
      row_sum[i] *= rescale[i];
    }
    scale_rows(o_acc, rescale);
  }
  // The weights P = 2^(S - maximum), packed as an operand and added to this lane's share of the sums.
  __device__ __forceinline__ void tile_weights() {
    move_maxima();
#pragma unroll
    for (int n = 0; n < kBlockN / 8; ++n) {
      float weights[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        weights[e] = ex2(s_acc[4 * n + e] * params.scale_log2 - row_max[e / 2]);
        row_sum[e / 2] += weights[e];
      }
      p_frag[n / 2][n % 2 * 2] = pack<Element>(weights[0], weights[1]);
      p_frag[n / 2][n % 2 * 2 + 1] = pack<Element>(weights[2], weights[3]);
    }
  }
  __device__ __forceinline__ void clear_rows() {
    row_max[0] = row_max[1] = kLowest;
    row_sum[0] = row_sum[1] = 0.f;
#pragma unroll
    for (float& o : o_acc) o = 0.f;
  }

  // O / sum, and log(sum(exp)); a row that has seen no key has the sum 0 and gives 0 and -inf.
  __device__ __forceinline__ void write_rows() {
    const size_t head_rows = size_t(tile.batch_head) * problem.seqlen_q;
    for (int i = 0; i < 2; ++i) {
      const float sum = group_sum(row_sum[i]), inverse = sum > 0.f ? 1.f / sum : 0.f;
      const int row = first_row + lane_row() + 8 * i;
      if (row >= problem.seqlen_q) continue;
      Element* const o = static_cast<Element*>(params.o) + (head_rows + row) * kHeadDim + lane_column();
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n) {
        *reinterpret_cast<uint32_t*>(&o[8 * n]) =
            pack<Element>(o_acc[4 * n + 2 * i] * inverse, o_acc[4 * n + 2 * i + 1] * inverse);
      }
      if (lane_column() == 0) params.softmax_lse[head_rows + row] = (row_max[i] + log2f(sum)) * kLn2;
    }
  }

  __device__ __forceinline__ void run() {
    const int last_tile = tile.key_tiles - 1;
    const int whole = flash::visible_keys(problem, first_row) / kBlockN;  // key tiles of which each row sees all
    if (threadIdx.x == 0) {
      load_q();
      load(last_tile);
    }
    clear_rows();
    mbarrier_wait(&shared.q_full, 0);
#pragma unroll 1
    for (int key_tile = last_tile; key_tile >= 0; --key_tile) {
      const int buffer = key_tile % kBuffers, phase = (last_tile - key_tile) / kBuffers;
      __syncthreads();  // both warpgroups are done with the other buffers
      if (threadIdx.x == 0 && key_tile > 0) load(key_tile - 1);
      tile_scores(buffer, phase);
      if (key_tile >= whole) mask_scores(s_acc, problem, first_row, key_tile * kBlockN);
      tile_weights();
      tile_values(buffer, phase);
    }
    write_rows();
  }
};

template <class S>
__global__ void __launch_bounds__(S::kThreads, 1) wgmma_kernel(const __grid_constant__ AttentionParams params) {
  Shared<S>& shared = *dynamic_shared_tiles<Shared<S>>();
  Problem problem = params.problem;
  problem.causal = S::kCausal;                                                // nothing new, but the compiler knows it
  const int warpgroup = __shfl_sync(kAllLanes, threadIdx.x / kWarpgroup, 0);  // nor this: a warp has one
  if (threadIdx.x == 0) {
    mbarrier_init(&shared.q_full, 1);
    for (int i = 0; i < kBuffers; ++i) {
      mbarrier_init(&shared.k_full[i], 1);
      mbarrier_init(&shared.v_full[i], 1);
    }
    mbarrier_init_fence();
  }
  __syncthreads();  // the barriers are there for every thread
  const QueryTile tile = query_tile<S::kBlockM, S::kBlockN>(problem, params.order, blockIdx.x);
  Warpgroup<S>(params, problem, shared, tile, tile.first_row + warpgroup * kWgmmaM).run();
}

void forward(const flash::ForwardArgs& a, const flash::Plan& plan, void*, flash::Stream stream) {
  visit_shape<Shape>(a.problem, [&](auto shape) {
    using S = decltype(shape);
    const AttentionParams params =
        attention_params<typename S::Element>(a, plan, one_section(a.problem, plan.block_m), nullptr);
    launch(wgmma_kernel<S>, plan.blocks, S::kThreads, plan.shared_bytes, stream, params);
  });
}

flash::Plan plan(const Problem& p, const flash::Device& device) {
  return visit_shape<Shape>(p, [&](auto shape) {
    using S = decltype(shape);
    return query_tiles_plan(kName, p, device, S::kBlockM, S::kBlockN, sizeof(Shared<S>));
  });
}

const flash::RegisterStep registered(flash::with_tensor_cores(
    flash::exactly(90), flash::forward_step(kName, "four warps multiply at once, operands straight from shared memory",
                                            {flash::Dtype::bf16, flash::Dtype::fp16}, {64, 128, 256}, plan, forward)));

}  // namespace
