// 06.3 The backward pass on tensor cores: two teams of warps, one query tile apart.
//
// Idea: 6.2 with the work of a warp split by result. A warp of the *P team* owns 32 keys: it makes S^T and P^T and
//   accumulates dV. Its partner in the *dS team* has the same keys: dP^T, dS^T, dK. Twice the keys per warp for the same
//   registers: each B fragment from shared memory serves two mma. Lane by lane the partners hold the same places, so P is
//   handed over as it lies in registers; and the dS team works a tile behind, so nobody waits for a partner: one barrier
//   per tile is enough. dQ follows two tiles behind.
// Global memory: as in 6.2. K, V, dK and dV once; Q and dO once per key tile, as often dQ is added to. Workspace:
//   head_dim + 2 floats per query row.
// Limits: bf16 and fp16, fp32 accumulation; head_dim 64 and 128; compute capability 8.0. Three sizes of tiles, by the
//   shared memory a block may have.
// Papers: FlashAttention-2 (arXiv 2307.08691), Algorithm 2; its B_c is kBlockN, its B_r kBlockM.
#include <algorithm>

#include "06_backward/dq_accumulator.cuh"
#include "06_backward/host.cuh"
#include "06_backward/tiles.cuh"
#include "common/kernel/cuda.cuh"
#include "common/kernel/ptx/ex2.cuh"
#include "common/kernel/step.h"

namespace {

constexpr const char* kName = "06_backward/3_two_teams";
constexpr int kStages = 3;     // query tiles in shared memory: landing, at the P team, at the dS team
constexpr int kWarpKeys = 32;  // keys of a warp: every B fragment it loads serves two mma
constexpr int kMTiles = kWarpKeys / 16;

template <int HeadDim, int BlockM, int BlockN>
struct Tiles {
  static constexpr int kHeadDim = HeadDim, kBlockM = BlockM, kBlockN = BlockN;
  static constexpr int kQueries = kBlockM / 16;       // n16 tiles of S^T, P^T, dP^T and dS^T
  static constexpr int kPairs = kBlockN / kWarpKeys;  // a pair: one warp of each team, for the same keys
  static constexpr int kWarps = 2 * kPairs, kThreads = kWarps * kWarpSize;
  static constexpr int kKeyElements = kBlockN * kHeadDim, kQueryElements = kBlockM * kHeadDim;  // a tile's
  static constexpr int kElements = 2 * kKeyElements + kStages * (2 * kQueryElements + kBlockN * kBlockM);
  static constexpr int kSharedBytes = 2 * kElements + kStages * 2 * kBlockM * int(sizeof(float));
  static_assert(kBlockM % 32 == 0 && kRowPadding % kBlockM == 0, "TILE=MxN: M must be 32, 64 or 128");
  static_assert(kBlockN % kWarpKeys == 0, "TILE=MxN: N must be a multiple of 32: a pair of warps owns 32 keys");
  // For dQ the warps share out kBlockM x kHeadDim in squares of 32 x 32, and what is left of them, the keys.
  static constexpr int kSquaresM = kBlockM / 32, kSquaresN = kHeadDim / 32;
  static constexpr int kKeySplits = std::max(1, kWarps / (kSquaresM * kSquaresN)), kDqKeys = kBlockN / kKeySplits;
  static_assert(kSquaresM * kSquaresN * kKeySplits == kWarps,
                "TILE=MxN: dQ is M/32 times head_dim/32 squares, and N/16 warps must be a multiple of that");
};

// ---- between a warp's two products: the softmax and its gradient, on fragments ----

// The P team: P^T = exp(scale * S^T - LSE), rounded, and handed over. c[i] of an accumulator lies in key row i / 2 * 8,
// query column i % 2. The LSE are those of this lane's first queries.
template <class T, class Element>
__device__ __forceinline__ void p_team(uint32_t (&weights)[kMTiles][T::kQueries][4],
                                       const float (&s)[kMTiles][T::kQueries][2][4], const float* lse2,
                                       float scale_log2, uint4* handover) {
  for (int n = 0; n < T::kQueries; ++n) {
    for (int half = 0; half < 2; ++half) {
      const float2 lse = *reinterpret_cast<const float2*>(lse2 + n * 16 + half * 8);
      for (int m = 0; m < kMTiles; ++m) {
        const float(&c)[4] = s[m][n][half];
        weights[m][n][2 * half] = pack<Element>(ex2(c[0] * scale_log2 - lse.x), ex2(c[1] * scale_log2 - lse.y));
        weights[m][n][2 * half + 1] = pack<Element>(ex2(c[2] * scale_log2 - lse.x), ex2(c[3] * scale_log2 - lse.y));
      }
    }
    for (int m = 0; m < kMTiles; ++m) {
      const uint32_t(&w)[4] = weights[m][n];
      handover[(m * T::kQueries + n) * kWarpSize] = make_uint4(w[0], w[1], w[2], w[3]);
    }
  }
}

// The dS team: dS^T = P^T * (dP^T - D), rounded. P^T is taken from where the partner left it, and dS^T put in its place:
// register i of all lanes side by side is a matrix of 8 keys x 8 queries, 16 bytes per key.
template <class T, class Element>
__device__ __forceinline__ void ds_team(uint32_t (&ds)[kMTiles][T::kQueries][4],
                                        const float (&dp)[kMTiles][T::kQueries][2][4], const float* d_sum,
                                        const uint4* handover, uint32_t* patches) {
  constexpr float kUnit = kPUnit<Element>;
  for (int n = 0; n < T::kQueries; ++n) {
    const float2 d[2] = {*reinterpret_cast<const float2*>(d_sum + n * 16),
                         *reinterpret_cast<const float2*>(d_sum + n * 16 + 8)};
    for (int m = 0; m < kMTiles; ++m) {
      const uint4 packed = handover[(m * T::kQueries + n) * kWarpSize];
      __syncwarp();  // all lanes have their P: its place is free
      const uint32_t weights[4] = {packed.x, packed.y, packed.z, packed.w};
      for (int i = 0; i < 4; ++i) {
        const float2 w = unpack<Element>(weights[i]);
        const float* const c = &dp[m][n][i / 2][i % 2 * 2];
        ds[m][n][i] = pack<Element>(w.x * kUnit * (c[0] - d[i / 2].x), w.y * kUnit * (c[1] - d[i / 2].y));
        patches[(m * T::kQueries + n) * (kPatch / 2) + i * kWarpSize] = ds[m][n][i];
      }
    }
  }
}

// ---- the kernels ----

// A block owns a tile of keys and walks over the query tiles that see them. Both teams do the same with the other half
// of what lies in pairs, [K, V], [Q, dO] and [LSE, D]:
//
//              first product     in between               second product     result
//   P team     S^T  = K Q^T      P^T  = exp(S^T - LSE)    P^T dO             dV, in units of P
//   dS team    dP^T = V dO^T     dS^T = P^T * (dP^T - D)  dS^T Q             dK / scale
template <class Element, class T>
__global__ void __launch_bounds__(T::kThreads) backward_kernel(Params params) {
  constexpr int kHeadDim = T::kHeadDim, kBlockM = T::kBlockM, kBlockN = T::kBlockN;
  constexpr int kPTeam = 0, kDsTeam = 1;
  const flash::Problem& problem = params.problem;
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const int team = warp / T::kPairs;
  const int warp_key = warp % T::kPairs * kWarpKeys;  // the pair's first key in the tile
  const int head_tiles = ceil_div(problem.seqlen_k, kBlockN);
  const int first_key = blockIdx.x % head_tiles * kBlockN;  // causal: the first keys have most to do and start first
  const size_t kv_head = blockIdx.x / head_tiles;           // over [batch, kv_heads]
  const Walk<kBlockM> walk(problem, first_key, kv_head);

  Element* const kv_tiles = dynamic_shared<Element>();                 // [K, V][kBlockN][kHeadDim]
  Element* const q_tiles = kv_tiles + 2 * T::kKeyElements;             // [kStages][Q, dO][kBlockM][kHeadDim]
  Element* const patches = q_tiles + kStages * 2 * T::kQueryElements;  // [kStages][kBlockN / 16][kBlockM / 16][kPatch]
  float* const stats = reinterpret_cast<float*>(patches + kStages * kBlockN * kBlockM);  // [kStages][LSE, D][kBlockM]

  const size_t kv_offset = (kv_head * problem.seqlen_k + first_key) * kHeadDim;
  const int keys_left = problem.seqlen_k - first_key;
  copy_tile<kBlockN, kHeadDim, T::kThreads>(kv_tiles, params.k, kv_offset, keys_left);
  copy_tile<kBlockN, kHeadDim, T::kThreads>(kv_tiles + T::kKeyElements, params.v, kv_offset, keys_left);
  copy_queries<T>(q_tiles, stats, params, walk, 0);
  cp_async_commit();

  float accum[kMTiles][kHeadDim / 16][2][4] = {};  // dV or dK
  int stage = 0;                                   // step % kStages
  for (int step = 0; step < walk.steps + 2; ++step) {
    const int stage_before = stage == 0 ? kStages - 1 : stage - 1, stage_after = stage == kStages - 1 ? 0 : stage + 1;
    cp_async_wait<0>();
    // For all warps: Q and dO of this step have landed; P of the step before and dS of the one before that are complete;
    // and of stage_after, which is the stage of step - 2 as well, only dS will still be read.
    __syncthreads();
    if (step + 1 < walk.steps) {
      copy_queries<T>(q_tiles + stage_after * 2 * T::kQueryElements, stats + stage_after * 2 * kBlockM, params, walk,
                      step + 1);
    }
    cp_async_commit();

    // dQ of two steps ago. The teams do this at different times: one computes, the other waits less.
    const Element* const complete_ds = patches + stage_after * kBlockN * kBlockM;
    if (team == kDsTeam && step >= 2) accumulate_dq<T>(params, walk, step - 2, complete_ds, kv_tiles);

    const int my_step = step - team, my_stage = team == kPTeam ? stage : stage_before;
    if (my_step >= 0 && my_step < walk.steps) {
      const Element* const q_tile = q_tiles + my_stage * 2 * T::kQueryElements;
      const Element* const do_tile = q_tile + T::kQueryElements;
      const Element* const first_tile = team == kPTeam ? q_tile : do_tile;
      const Element* const second_tile = team == kPTeam ? do_tile : q_tile;
      const Element* const my_keys = (team == kPTeam ? kv_tiles : kv_tiles + T::kKeyElements) + warp_key * kHeadDim;
      const float* const my_stats = stats + (2 * my_stage + team) * kBlockM + lane % 4 * 2;
      Element* const my_patches = patches + (my_stage * kBlockN + warp_key) * kBlockM;
      uint4* const handover = reinterpret_cast<uint4*>(my_patches) + lane;

      float x[kMTiles][T::kQueries][2][4] = {};  // S^T or dP^T
      multiply_abt<kHeadDim>(x, my_keys, first_tile);
      uint32_t y[kMTiles][T::kQueries][4];  // P^T or dS^T
      if (team == kPTeam) {
        const int query = walk.query(step);
        if (flash::tile_sees(problem, query, kBlockM, first_key, kBlockN) != flash::Seen::all) {
          mask<true>(x, first_key + warp_key + lane / 4, query + lane % 4 * 2, problem);
        }
        p_team<T, Element>(y, x, my_stats, problem.softmax_scale * kLog2e, handover);
      } else {
        ds_team<T, Element>(y, x, my_stats, handover, reinterpret_cast<uint32_t*>(my_patches) + lane);
      }
      multiply_ab<kHeadDim>(accum, y, second_tile);
    }

    if (team == kPTeam && step >= 2) accumulate_dq<T>(params, walk, step - 2, complete_ds, kv_tiles);
    stage = stage_after;
  }

  void* const gradient = team == kPTeam ? params.dv : params.dk;
  const float unit = team == kPTeam ? kPUnit<Element> : problem.softmax_scale;
  write_rows<kHeadDim>(static_cast<Element*>(gradient) + kv_offset + warp_key * kHeadDim, accum, unit,
                       keys_left - warp_key);
}

// Before it: D = rowsum(dO * O), the LSE in base 2, and zeros for the dQ accumulator. 8 columns per thread.
template <class Element, int kHeadDim>
__global__ void prepare_kernel(Params params) {
  constexpr int kLanes = kHeadDim / 8;  // lanes of a row
  const size_t index = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const size_t padded_row = index / kLanes, head = padded_row / params.padded_q;
  const int i = int(padded_row % params.padded_q), seqlen_q = params.problem.seqlen_q;
  const size_t row = head * seqlen_q + i;
  float sum = 0.f;
  if (i < seqlen_q) {
    const uint4 o_chunk = static_cast<const uint4*>(params.o)[row * kLanes + index % kLanes];
    const uint4 do_chunk = static_cast<const uint4*>(params.d_o)[row * kLanes + index % kLanes];
    const uint32_t a[4] = {o_chunk.x, o_chunk.y, o_chunk.z, o_chunk.w};
    const uint32_t b[4] = {do_chunk.x, do_chunk.y, do_chunk.z, do_chunk.w};
    for (int n = 0; n < 4; ++n) {
      const float2 x = unpack<Element>(a[n]), y = unpack<Element>(b[n]);
      sum += x.x * y.x + x.y * y.y;
    }
  }
  for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
  if (index % kLanes == 0) {
    const float lse = i < seqlen_q ? params.softmax_lse[row] : -INFINITY;
    // exp(S - inf) = 0 for a row that sees no key, and for the rows of the padding.
    params.lse2[padded_row] = lse == -INFINITY ? INFINITY : lse * kLog2e - kPExponent<Element>;
    params.d_sum[padded_row] = sum;
  }
  float4* const zeros = reinterpret_cast<float4*>(params.dq_accum) + index * 2;
  zeros[0] = make_float4(0.f, 0.f, 0.f, 0.f);
  zeros[1] = make_float4(0.f, 0.f, 0.f, 0.f);
}

// ---- launching ----

template <class Element, class T>
void run_kernels(const flash::BackwardArgs& args, void* workspace, flash::Stream stream) {
  constexpr int kHeadDim = T::kHeadDim, kThreads = 256;
  const Params params = make_params(args, workspace);
  const size_t row_blocks = padded_rows(args.problem) * (kHeadDim / 8) / kThreads;  // a multiple of 128 rows: no rest
  launch(prepare_kernel<Element, kHeadDim>, row_blocks, kThreads, 0, stream, params);
  launch(backward_kernel<Element, T>, key_tiles(args.problem, T::kBlockN), T::kThreads, T::kSharedBytes, stream,
         params);
  launch(round_dq_kernel<Element, kHeadDim>, row_blocks, kThreads, 0, stream, params);
}

void backward(const flash::BackwardArgs& args, const flash::Plan& plan, void* workspace, flash::Stream stream) {
  with_tiles<Tiles>(args.problem.head_dim, plan.shared_bytes, [&](auto tiles) {
    using T = decltype(tiles);
    const auto run = args.problem.dtype == flash::Dtype::bf16 ? run_kernels<__nv_bfloat16, T> : run_kernels<__half, T>;
    run(args, workspace, stream);
  });
}

flash::Plan plan(const flash::Problem& problem, const flash::Device& device) {
  flash::Plan plan;
  plan.workspace_bytes = padded_rows(problem) * (problem.head_dim + 2) * sizeof(float);
  with_tiles<Tiles>(problem.head_dim, device.shared_bytes_per_block,
                    [&](auto tiles) { plan_tiles(&plan, problem, tiles); });
  plan.refusal = flash::tiles_refusal(kName, plan, problem, device);
  if (problem.deterministic) plan.refusal = deterministic_refusal(kName);
  return plan;
}

const flash::RegisterStep registered(flash::with_tensor_cores(
    flash::at_least(80),
    flash::backward_step(kName, "the backward pass on tensor cores: two teams of warps, one query tile apart",
                         {flash::Dtype::bf16, flash::Dtype::fp16}, {64, 128}, plan, backward)));

}  // namespace
