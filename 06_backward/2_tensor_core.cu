// 06.2 The backward pass on tensor cores: one team of warps.
//
// Idea: a block owns kBlockN keys, 16 per warp, and walks over the query tiles that see them, all of it transposed: the
//   accumulators of S^T = K Q^T and dP^T = V dO^T, rounded, are the A operands of dV += P^T dO and dK += dS^T Q. A warp
//   does all of that alone, for its own keys. dS goes through shared memory once more, to all warps, for dQ += dS K,
//   which is added to an accumulator in global memory and rounded by a last kernel.
// Global memory: K, V, dK and dV once; Q and dO once per key tile, as often dQ is added to. Workspace: head_dim + 2
//   floats per query row.
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

constexpr const char* kName = "06_backward/2_tensor_core";
constexpr int kStages = 2;     // query tiles in shared memory: landing, in use
constexpr int kWarpKeys = 16;  // keys of a warp: its dK and dV at head_dim 128 are half of its registers
constexpr int kMTiles = kWarpKeys / 16;

template <int HeadDim, int BlockM, int BlockN>
struct Tiles {
  static constexpr int kHeadDim = HeadDim, kBlockM = BlockM, kBlockN = BlockN;
  static constexpr int kQueries = kBlockM / 16;  // n16 tiles of S^T, P^T, dP^T and dS^T
  static constexpr int kWarps = kBlockN / kWarpKeys, kThreads = kWarps * kWarpSize;
  static constexpr int kKeyElements = kBlockN * kHeadDim, kQueryElements = kBlockM * kHeadDim;  // a tile's
  static constexpr int kElements = 2 * kKeyElements + kStages * 2 * kQueryElements + kBlockN * kBlockM;
  static constexpr int kSharedBytes = 2 * kElements + kStages * 2 * kBlockM * int(sizeof(float));
  static_assert(kBlockM % 32 == 0 && kRowPadding % kBlockM == 0, "TILE=MxN: M must be 32, 64 or 128");
  static_assert(kBlockN % 32 == 0, "TILE=MxN: N must be a multiple of 32");
  // For dQ the warps share out kBlockM x kHeadDim in squares of 32 x 32, and what is left of them, the keys.
  static constexpr int kSquaresM = kBlockM / 32, kSquaresN = kHeadDim / 32;
  static constexpr int kKeySplits = std::max(1, kWarps / (kSquaresM * kSquaresN)), kDqKeys = kBlockN / kKeySplits;
  static_assert(kSquaresM * kSquaresN * kKeySplits == kWarps,
                "TILE=MxN: dQ is M/32 times head_dim/32 squares, and N/16 warps must be a multiple of that");
};

// ---- the softmax and its gradient, on fragments ----

// P^T = exp(scale * S^T - LSE), rounded. c[i] of an accumulator lies in key row i / 2 * 8, query column i % 2. The LSE are
// those of this lane's first queries.
template <class T, class Element>
__device__ __forceinline__ void make_p(uint32_t (&weights)[kMTiles][T::kQueries][4],
                                       const float (&s)[kMTiles][T::kQueries][2][4], const float* lse2,
                                       float scale_log2) {
  for (int n = 0; n < T::kQueries; ++n) {
    for (int half = 0; half < 2; ++half) {
      const float2 lse = *reinterpret_cast<const float2*>(lse2 + n * 16 + half * 8);
      for (int m = 0; m < kMTiles; ++m) {
        const float(&c)[4] = s[m][n][half];
        weights[m][n][2 * half] = pack<Element>(ex2(c[0] * scale_log2 - lse.x), ex2(c[1] * scale_log2 - lse.y));
        weights[m][n][2 * half + 1] = pack<Element>(ex2(c[2] * scale_log2 - lse.x), ex2(c[3] * scale_log2 - lse.y));
      }
    }
  }
}

// dS^T = P^T * (dP^T - D), rounded, and stored for dQ: register i of all lanes side by side is a matrix of 8 keys x 8
// queries, 16 bytes per key.
template <class T, class Element>
__device__ __forceinline__ void make_ds(uint32_t (&ds)[kMTiles][T::kQueries][4],
                                        const float (&dp)[kMTiles][T::kQueries][2][4], const float* d_sum,
                                        const uint32_t (&weights)[kMTiles][T::kQueries][4], uint32_t* patches) {
  constexpr float kUnit = kPUnit<Element>;
  for (int n = 0; n < T::kQueries; ++n) {
    const float2 d[2] = {*reinterpret_cast<const float2*>(d_sum + n * 16),
                         *reinterpret_cast<const float2*>(d_sum + n * 16 + 8)};
    for (int m = 0; m < kMTiles; ++m) {
      for (int i = 0; i < 4; ++i) {
        const float2 w = unpack<Element>(weights[m][n][i]);
        const float* const c = &dp[m][n][i / 2][i % 2 * 2];
        ds[m][n][i] = pack<Element>(w.x * kUnit * (c[0] - d[i / 2].x), w.y * kUnit * (c[1] - d[i / 2].y));
        patches[(m * T::kQueries + n) * (kPatch / 2) + i * kWarpSize] = ds[m][n][i];
      }
    }
  }
}

// ---- the kernels ----

// A block owns a tile of keys and walks over the query tiles that see them.
template <class Element, class T>
__global__ void __launch_bounds__(T::kThreads) backward_kernel(Params params) {
  constexpr int kHeadDim = T::kHeadDim, kBlockM = T::kBlockM, kBlockN = T::kBlockN;
  const flash::Problem& problem = params.problem;
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const int warp_key = warp * kWarpKeys;  // the warp's first key in the tile
  const int head_tiles = ceil_div(problem.seqlen_k, kBlockN);
  const int first_key = blockIdx.x % head_tiles * kBlockN;  // causal: the first keys have most to do and start first
  const size_t kv_head = blockIdx.x / head_tiles;           // over [batch, kv_heads]
  const Walk<kBlockM> walk(problem, first_key, kv_head);

  Element* const kv_tiles = dynamic_shared<Element>();                 // [K, V][kBlockN][kHeadDim]
  Element* const q_tiles = kv_tiles + 2 * T::kKeyElements;             // [kStages][Q, dO][kBlockM][kHeadDim]
  Element* const patches = q_tiles + kStages * 2 * T::kQueryElements;  // dS^T [kBlockN / 16][kBlockM / 16][kPatch]
  float* const stats = reinterpret_cast<float*>(patches + kBlockN * kBlockM);  // [kStages][LSE, D][kBlockM]

  const size_t kv_offset = (kv_head * problem.seqlen_k + first_key) * kHeadDim;
  const int keys_left = problem.seqlen_k - first_key;
  copy_tile<kBlockN, kHeadDim, T::kThreads>(kv_tiles, params.k, kv_offset, keys_left);
  copy_tile<kBlockN, kHeadDim, T::kThreads>(kv_tiles + T::kKeyElements, params.v, kv_offset, keys_left);
  copy_queries<T>(q_tiles, stats, params, walk, 0);
  cp_async_commit();

  float dk[kMTiles][kHeadDim / 16][2][4] = {}, dv[kMTiles][kHeadDim / 16][2][4] = {};  // / scale; in units of P
  for (int step = 0; step < walk.steps; ++step) {
    const int stage = step % kStages, stage_after = (step + 1) % kStages;
    cp_async_wait<0>();
    __syncthreads();  // for all warps Q and dO of this step have landed, and those of the step before and its dS are read
    if (step + 1 < walk.steps) {
      copy_queries<T>(q_tiles + stage_after * 2 * T::kQueryElements, stats + stage_after * 2 * kBlockM, params, walk,
                      step + 1);
    }
    cp_async_commit();

    const Element* const q_tile = q_tiles + stage * 2 * T::kQueryElements;
    const Element* const do_tile = q_tile + T::kQueryElements;
    const Element* const my_keys = kv_tiles + warp_key * kHeadDim;
    const float* const my_stats = stats + stage * 2 * kBlockM + lane % 4 * 2;
    uint32_t* const my_patches = reinterpret_cast<uint32_t*>(patches + warp_key * kBlockM) + lane;

    float s[kMTiles][T::kQueries][2][4] = {}, dp[kMTiles][T::kQueries][2][4] = {};
    uint32_t weights[kMTiles][T::kQueries][4], ds[kMTiles][T::kQueries][4];
    multiply_abt<kHeadDim>(s, my_keys, q_tile);
    const int query = walk.query(step);
    if (flash::tile_sees(problem, query, kBlockM, first_key, kBlockN) != flash::Seen::all) {
      mask<true>(s, first_key + warp_key + lane / 4, query + lane % 4 * 2, problem);
    }
    make_p<T, Element>(weights, s, my_stats, problem.softmax_scale * kLog2e);
    multiply_ab<kHeadDim>(dv, weights, do_tile);
    multiply_abt<kHeadDim>(dp, my_keys + T::kKeyElements, do_tile);
    make_ds<T, Element>(ds, dp, my_stats + kBlockM, weights, my_patches);
    multiply_ab<kHeadDim>(dk, ds, q_tile);
    __syncthreads();  // dS of all warps is complete
    accumulate_dq<T>(params, walk, step, patches, kv_tiles);
  }

  const size_t place = kv_offset + warp_key * kHeadDim;
  write_rows<kHeadDim>(static_cast<Element*>(params.dk) + place, dk, problem.softmax_scale, keys_left - warp_key);
  write_rows<kHeadDim>(static_cast<Element*>(params.dv) + place, dv, kPUnit<Element>, keys_left - warp_key);
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
    // @lse2: exp(S - inf) = 0 for a row that sees no key, and for the rows of the padding.
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
    flash::backward_step(kName, "the backward pass on tensor cores, transposed: accumulators become operands",
                         {flash::Dtype::bf16, flash::Dtype::fp16}, {64, 128}, plan, backward)));

}  // namespace
