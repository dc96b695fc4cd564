// 06.2 The backward pass on tensor cores: two teams of warps, one query tile apart.
//
// Idea: a block owns kBlockN keys and walks over the query tiles that see them, all of it transposed: the accumulators
//   of S^T = K Q^T and dP^T = V dO^T, rounded, are the A operands of dV += P^T dO and dK += dS^T Q. A warp of the
//   *P team* owns 32 keys: it makes S^T and P^T and accumulates dV. Its partner in the *dS team* has the same keys: dP^T,
//   dS^T = P^T * (dP^T - D), dK. Lane by lane they hold the same places, so P is handed over as it lies in registers; and
//   the dS team works a tile behind, so one barrier a tile is enough. dS goes through shared memory once more, to all
//   warps, for dQ += dS K, two tiles behind: fp32, added to global memory by atomics, rounded by a last kernel.
//   --deterministic: no atomics, but a kernel that recomputes S and dP for a tile of dQ (deterministic_dq.cuh): 7
//   products in place of 5. tiles.cuh holds what the two kernels share: swizzle, fragments, products.
// Global memory: K, V, dK and dV once; Q and dO once a key tile, as often dQ is added to. Workspace: head_dim + 2 floats
//   a query row, 2 with --deterministic.
// Limits: bf16 and fp16, fp32 accumulation; head_dim 64 and 128; compute capability 8.0. Three sizes of tiles, by the
//   shared memory a block may have.
// Papers: FlashAttention-2 (arXiv 2307.08691), Algorithm 2; its B_c is kBlockN, its B_r kBlockM.
#include <algorithm>

#include "06_backward/deterministic_dq.cuh"
#include "06_backward/tiles.cuh"
#include "common/kernel/cuda.cuh"
#include "common/kernel/ptx/ex2.cuh"
#include "common/kernel/step.h"
#include "common/kernel/tiles_seen.h"

namespace {

constexpr const char* kName = "06_backward/2_tensor_core";
constexpr int kStages = 3;     // query tiles in shared memory: landing, at the P team, at the dS team
constexpr int kWarpKeys = 32;  // keys of a warp: every B fragment it loads serves two mma
constexpr int kMTiles = kWarpKeys / 16;
constexpr int kPatch = 16 * 16;   // elements of a patch, the unit in which P, dS and dQ are kept
constexpr int kRowPadding = 128;  // workspace rows of a head are a multiple of this, which every kBlockM divides

template <int HeadDim, int BlockM, int BlockN>
struct Tiles {
  static constexpr int kHeadDim = HeadDim, kBlockM = BlockM, kBlockN = BlockN;
  static constexpr int kPairs = kBlockN / kWarpKeys;  // a pair: one warp of each team, for the same keys
  static constexpr int kWarps = 2 * kPairs, kThreads = kWarps * kWarpSize;
  static constexpr int kQueryElements = 2 * kBlockM * kHeadDim;  // a stage: a tile of Q and one of dO
  static constexpr int kElements = 2 * kBlockN * kHeadDim + kStages * (kQueryElements + kBlockN * kBlockM);
  static constexpr int kSharedBytes = 2 * kElements + kStages * 2 * kBlockM * int(sizeof(float));
  static_assert(kBlockM % 32 == 0 && kRowPadding % kBlockM == 0, "TILE=MxN: M must be 32, 64 or 128");
  static_assert(kBlockN % kWarpKeys == 0, "TILE=MxN: N must be a multiple of 32: a pair of warps owns 32 keys");
  // For dQ the warps share out kBlockM x kHeadDim in squares of 32 x 32, and what is left of them, the keys.
  static constexpr int kSquaresM = kBlockM / 32, kSquaresN = kHeadDim / 32;
  static constexpr int kKeySplits = std::max(1, kWarps / (kSquaresM * kSquaresN)), kDqKeys = kBlockN / kKeySplits;
  static_assert(kSquaresM * kSquaresN * kKeySplits == kWarps,
                "TILE=MxN: dQ is M/32 times head_dim/32 squares, and N/16 warps must be a multiple of that");
};

// ---- the softmax and its gradient, on fragments ----

// P^T = exp(scale * S^T - LSE), rounded; c[i] of an accumulator lies in key row i / 2 * 8, query column i % 2.
template <class Element, int kQueries>
__device__ __forceinline__ void make_p(uint32_t (&p_t)[kMTiles][kQueries][4], const float (&s)[kMTiles][kQueries][2][4],
                                       const float* lse2, float scale_log2, uint4* handover) {
  for (int n = 0; n < kQueries; ++n) {
    for (int half = 0; half < 2; ++half) {
      const float2 lse = *reinterpret_cast<const float2*>(lse2 + n * 16 + half * 8);
      for (int m = 0; m < kMTiles; ++m) {
        const float(&c)[4] = s[m][n][half];
        p_t[m][n][2 * half] = pack<Element>(ex2(c[0] * scale_log2 - lse.x), ex2(c[1] * scale_log2 - lse.y));
        p_t[m][n][2 * half + 1] = pack<Element>(ex2(c[2] * scale_log2 - lse.x), ex2(c[3] * scale_log2 - lse.y));
      }
    }
    for (int m = 0; m < kMTiles; ++m) {
      handover[(m * kQueries + n) * kWarpSize] = make_uint4(p_t[m][n][0], p_t[m][n][1], p_t[m][n][2], p_t[m][n][3]);
    }
  }
}

// dS^T = P^T * (dP^T - D), rounded; P^T is taken from where the partner left it, and dS^T put in its place: a patch is
// 32 chunks of 16 bytes, 8 queries of a key each, the keys 0..15 with the first 8 queries, then with the others.
template <class Element, int kQueries>
__device__ __forceinline__ void make_ds(uint32_t (&ds_t)[kMTiles][kQueries][4],
                                        const float (&dp)[kMTiles][kQueries][2][4], const float* d_sum, uint4* handover,
                                        uint32_t* patches) {
  constexpr float kUnit = kPUnit<Element>;
  for (int n = 0; n < kQueries; ++n) {
    const float2 d[2] = {*reinterpret_cast<const float2*>(d_sum + n * 16),
                         *reinterpret_cast<const float2*>(d_sum + n * 16 + 8)};
    for (int m = 0; m < kMTiles; ++m) {
      const uint4 packed = handover[(m * kQueries + n) * kWarpSize];
      __syncwarp();  // all lanes have their P: its place is free
      const uint32_t p_t[4] = {packed.x, packed.y, packed.z, packed.w};
      for (int i = 0; i < 4; ++i) {
        const float2 p = unpack<Element>(p_t[i]);
        const float* const c = &dp[m][n][i / 2][i % 2 * 2];
        ds_t[m][n][i] = pack<Element>(p.x * kUnit * (c[0] - d[i / 2].x), p.y * kUnit * (c[1] - d[i / 2].y));
        patches[(m * kQueries + n) * (kPatch / 2) + i * kWarpSize] = ds_t[m][n][i];
      }
    }
  }
}

// Four floats to one lane's place in the dQ accumulator.
__device__ __forceinline__ void add_to_global(float* address, float4 value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  atomicAdd(reinterpret_cast<float4*>(address), value);
#else
  atomicAdd(address, value.x);
  atomicAdd(address + 1, value.y);
  atomicAdd(address + 2, value.z);
  atomicAdd(address + 3, value.w);
#endif
}

// dQ += dS K for this warp's 32 queries and 32 columns of a query tile (and its share of the keys).
template <class T, class Element>
__device__ __forceinline__ void add_dq(float* dq_tile, const Element* ds_patches, const Element* k_tile) {
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const int row = warp % T::kSquaresM * 32, col = warp / T::kSquaresM % T::kSquaresN * 32;
  const int key0 = warp / (T::kSquaresM * T::kSquaresN) * T::kDqKeys;
  const int chunk = lane / 8 % 2 * 16 + lane / 16 * 8 + lane % 8;  // of dS^T, right first, and transposed by .trans
  float dq[2][2][2][4] = {};
  for (int key = 0; key < T::kDqKeys; key += 16) {
    uint32_t a[2][4];
    for (int m = 0; m < 2; ++m) {
      const int patch = (key0 + key) / 16 * (T::kBlockM / 16) + row / 16 + m;
      ldmatrix_x4_trans(a[m], ds_patches + patch * kPatch + chunk * 8);
    }
    for (int n = 0; n < 2; ++n) {
      uint32_t b[2][2];
      ldmatrix_x4_trans(b, down_first<T::kHeadDim>(k_tile + key0 * T::kHeadDim, key, col + n * 16));
      for (int m = 0; m < 2; ++m) mma_pair<Element>(dq[m][n], a[m], b);
    }
  }
  for (int m = 0; m < 2; ++m) {
    for (int n = 0; n < 2; ++n) {
      const int patch = (row / 16 + m) * (T::kHeadDim / 16) + col / 16 + n;
      const float(&c)[2][4] = dq[m][n];  // a lane's 8 elements as two times 16 bytes, its neighbour's beside them
      float* const place = dq_tile + patch * kPatch + lane * 4;
      add_to_global(place, make_float4(c[0][0], c[0][1], c[1][0], c[1][1]));
      add_to_global(place + kPatch / 2, make_float4(c[0][2], c[0][3], c[1][2], c[1][3]));
    }
  }
}

// The query tiles that see a key tile: from the first to the last of a head.
__host__ __device__ inline int first_query_tile(bool causal, int diagonal, int first_key, int block_m) {
  return causal ? max(0, first_key - diagonal) / block_m : 0;
}

template <class Element, class T>
__global__ void __launch_bounds__(T::kThreads) backward_kernel(Params p) {
  constexpr int kHeadDim = T::kHeadDim, kBlockM = T::kBlockM, kBlockN = T::kBlockN, kQueries = kBlockM / 16;
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const bool ds_team = warp >= T::kPairs;
  const int warp_key = warp % T::kPairs * kWarpKeys;  // the pair's first key in the tile
  const int key_tiles = ceil_div(p.seqlen_k, kBlockN);
  const int first_key = blockIdx.x % key_tiles * kBlockN;  // causal: the first keys have most to do and start first
  const size_t kv_head = blockIdx.x / key_tiles;           // over [batch, kv_heads]
  const int group = p.heads / p.kv_heads;
  const size_t first_head = kv_head * group;  // over [batch, heads]
  const int first_tile = first_query_tile(p.causal, p.diagonal(), first_key, kBlockM);
  const int head_steps = max(0, ceil_div(p.seqlen_q, kBlockM) - first_tile);
  const int steps = head_steps * group;  // a step: one query tile of one query head

  Element* const k_tile = dynamic_shared<Element>();               // [kBlockN][kHeadDim]
  Element* const v_tile = k_tile + kBlockN * kHeadDim;             // [kBlockN][kHeadDim]
  Element* const queries = v_tile + kBlockN * kHeadDim;            // [kStages][Q, dO][kBlockM][kHeadDim]
  Element* const patches = queries + kStages * T::kQueryElements;  // [kStages][kBlockN / 16][kBlockM / 16][kPatch]
  float* const stats = reinterpret_cast<float*>(patches + kStages * kBlockN * kBlockM);  // [kStages][LSE, D][kBlockM]

  const auto head_of = [&](int step) { return first_head + step / head_steps; };
  const auto query_of = [&](int step) { return (first_tile + step % head_steps) * kBlockM; };
  const auto copy_step = [&](int step, int stage) {
    const int query = query_of(step), rows = p.seqlen_q - query;
    const size_t offset = (head_of(step) * p.seqlen_q + query) * kHeadDim;
    Element* const q_tile = queries + stage * T::kQueryElements;
    copy_tile<kBlockM, kHeadDim, T::kThreads>(q_tile, p.q, offset, rows);
    copy_tile<kBlockM, kHeadDim, T::kThreads>(q_tile + kBlockM * kHeadDim, p.d_o, offset, rows);
    if (threadIdx.x < 2 * kBlockM / 4) {
      const int is_d = threadIdx.x / (kBlockM / 4), i = threadIdx.x % (kBlockM / 4) * 4;
      cp_async<16>(stats + (2 * stage + is_d) * kBlockM + i,
                   (is_d ? p.d_sum : p.lse2) + head_of(step) * p.padded_q + query + i);
    }
  };

  const size_t kv_offset = (kv_head * p.seqlen_k + first_key) * kHeadDim;
  copy_tile<kBlockN, kHeadDim, T::kThreads>(k_tile, p.k, kv_offset, p.seqlen_k - first_key);
  copy_tile<kBlockN, kHeadDim, T::kThreads>(v_tile, p.v, kv_offset, p.seqlen_k - first_key);
  if (steps > 0) copy_step(0, 0);
  cp_async_commit();

  float accum[kMTiles][kHeadDim / 16][2][4] = {};  // P team: dV in units of P; dS team: dK / scale
  int stage = 0;                                   // step % kStages
  for (int step = 0; step < steps + 2; ++step) {
    const int stage_before = stage == 0 ? kStages - 1 : stage - 1, stage_after = stage == kStages - 1 ? 0 : stage + 1;
    cp_async_wait<0>();
    // Q and dO of this step have landed, P of the step before and dS of the one before that are complete, for all
    // warps; and none still reads the stage of step - 2 = stage_after, but for its dS.
    __syncthreads();
    if (step + 1 < steps) copy_step(step + 1, stage_after);
    cp_async_commit();

    const bool dq_due = step >= 2 && p.dq_accum != nullptr;
    const auto add_dq_due = [&] {
      float* const dq_tile = p.dq_accum + (head_of(step - 2) * p.padded_q + query_of(step - 2)) * kHeadDim;
      add_dq<T>(dq_tile, patches + stage_after * kBlockN * kBlockM, k_tile);
    };
    if (ds_team && dq_due) add_dq_due();  // the teams do this at different times: one computes, the other waits less

    const int my_step = ds_team ? step - 1 : step, my_stage = ds_team ? stage_before : stage;
    if (my_step >= 0 && my_step < steps) {
      const Element* const q_tile = queries + my_stage * T::kQueryElements;
      const Element* const do_tile = q_tile + kBlockM * kHeadDim;
      float x[kMTiles][kQueries][2][4] = {};  // S^T or dP^T
      multiply_abt<kHeadDim>(x, (ds_team ? v_tile : k_tile) + warp_key * kHeadDim, ds_team ? do_tile : q_tile);

      uint32_t fragments[kMTiles][kQueries][4];  // P^T or dS^T
      Element* const my_patches = patches + (my_stage * kBlockN + warp_key) * kBlockM;
      uint4* const handover = reinterpret_cast<uint4*>(my_patches) + lane;
      const float* const my_stats = stats + (2 * my_stage + ds_team) * kBlockM + lane % 4 * 2;
      if (!ds_team) {
        const int query = query_of(step);
        if (first_key + kBlockN > p.seqlen_k || (p.causal && first_key + kBlockN - 1 > query + p.diagonal())) {
          mask<true>(x, first_key + warp_key + lane / 4, query + lane % 4 * 2, p);
        }
        make_p<Element>(fragments, x, my_stats, p.scale * kLog2e, handover);
      } else {
        make_ds<Element>(fragments, x, my_stats, handover, reinterpret_cast<uint32_t*>(my_patches) + lane);
      }
      multiply_ab<kHeadDim>(accum, fragments, ds_team ? q_tile : do_tile);
    }
    if (!ds_team && dq_due) add_dq_due();
    stage = stage_after;
  }

  write_rows<kHeadDim>(static_cast<Element*>(ds_team ? p.dk : p.dv) + kv_offset + warp_key * kHeadDim, accum,
                       ds_team ? p.scale : kPUnit<Element>, p.seqlen_k - first_key - warp_key);
}

// Before it: D = rowsum(dO * O), the LSE in base 2, and zeros for the dQ accumulator. 8 columns a thread.
template <class Element, int kHeadDim>
__global__ void prepare_kernel(const Element* o, const Element* d_o, const float* softmax_lse, float* lse2,
                               float* d_sum, float* dq_accum, int seqlen_q, int padded_q) {
  constexpr int kLanes = kHeadDim / 8;  // lanes of a row
  const size_t index = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const size_t padded_row = index / kLanes, head = padded_row / padded_q;
  const int i = int(padded_row % padded_q);
  const size_t row = head * seqlen_q + i;
  float sum = 0.f;
  if (i < seqlen_q) {
    const uint4 o_chunk = reinterpret_cast<const uint4*>(o)[row * kLanes + index % kLanes];
    const uint4 do_chunk = reinterpret_cast<const uint4*>(d_o)[row * kLanes + index % kLanes];
    const uint32_t a[4] = {o_chunk.x, o_chunk.y, o_chunk.z, o_chunk.w};
    const uint32_t b[4] = {do_chunk.x, do_chunk.y, do_chunk.z, do_chunk.w};
    for (int n = 0; n < 4; ++n) {
      const float2 x = unpack<Element>(a[n]), y = unpack<Element>(b[n]);
      sum += x.x * y.x + x.y * y.y;
    }
  }
  for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
  if (index % kLanes == 0) {
    const float lse = i < seqlen_q ? softmax_lse[row] : -INFINITY;
    // @lse2: exp(S - inf) = 0 for a row that sees no key, and for the rows of the padding.
    lse2[padded_row] = lse == -INFINITY ? INFINITY : lse * kLog2e - kPExponent<Element>;
    d_sum[padded_row] = sum;
  }
  if (dq_accum == nullptr) return;
  float4* const zeros = reinterpret_cast<float4*>(dq_accum) + index * 2;
  zeros[0] = make_float4(0.f, 0.f, 0.f, 0.f);
  zeros[1] = make_float4(0.f, 0.f, 0.f, 0.f);
}

// After it: dQ = scale * the accumulator, out of its patches and rounded. 8 columns of a row a thread.
template <class Element, int kHeadDim>
__global__ void round_dq_kernel(const float* dq_accum, Element* dq, float scale, int seqlen_q, int padded_q) {
  const size_t index = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const size_t padded_row = index / (kHeadDim / 8), head = padded_row / padded_q;
  const int i = int(padded_row % padded_q), chunk = int(index % (kHeadDim / 8));
  if (i >= seqlen_q) return;
  const float* const patch = dq_accum + padded_row / 16 * 16 * kHeadDim + chunk / 2 * kPatch;
  const float* const place = patch + i % 16 * 16 + chunk % 2 * 2;  // lane i % 8 * 4 of half i / 8, 4 floats a lane
  uint32_t packed[4];
  for (int n = 0; n < 4; ++n) {
    const float2 x = *reinterpret_cast<const float2*>(place + n * 4);
    packed[n] = pack<Element>(x.x * scale, x.y * scale);
  }
  reinterpret_cast<uint4*>(dq)[(head * seqlen_q + i) * (kHeadDim / 8) + chunk] =
      make_uint4(packed[0], packed[1], packed[2], packed[3]);
}

// ---- launching ----

int padded(int seqlen_q) { return ceil_div(seqlen_q, kRowPadding) * kRowPadding; }

template <class Element, class T>
void run_kernels(const flash::BackwardArgs& args, const flash::Plan& plan, void* workspace, flash::Stream stream) {
  constexpr int kHeadDim = T::kHeadDim, kThreads = 256;
  const flash::Problem& p = args.problem;
  const int padded_q = padded(p.seqlen_q);
  const size_t rows = size_t(p.batch) * p.heads * padded_q;
  float* const lse2 = static_cast<float*>(workspace);
  float* const d_sum = lse2 + rows;
  float* const dq_accum = p.deterministic ? nullptr : d_sum + rows;
  const Params params = {args.q,     args.k,     args.v,   args.d_o,        lse2,    d_sum,
                         dq_accum,   args.dq,    args.dk,  args.dv,         p.heads, p.kv_heads,
                         p.seqlen_q, p.seqlen_k, padded_q, p.softmax_scale, p.causal};
  const size_t kv_tiles = size_t(p.batch) * p.kv_heads * ceil_div(p.seqlen_k, T::kBlockN);
  const size_t q_tiles = size_t(p.batch) * p.heads * ceil_div(p.seqlen_q, kDqBlockM);
  const unsigned row_blocks = unsigned(rows * (kHeadDim / 8) / kThreads);  // no rest: rows is a multiple of 128

  launch(prepare_kernel<Element, kHeadDim>, row_blocks, kThreads, 0, stream, args.o, args.d_o, args.softmax_lse, lse2,
         d_sum, dq_accum, p.seqlen_q, padded_q);
  launch(backward_kernel<Element, T>, unsigned(kv_tiles), T::kThreads, plan.shared_bytes, stream, params);
  if (p.deterministic) {
    launch(deterministic_dq_kernel<Element, kHeadDim>, unsigned(q_tiles), kDqThreads, dq_shared_bytes(kHeadDim), stream,
           params);
  } else {
    launch(round_dq_kernel<Element, kHeadDim>, row_blocks, kThreads, 0, stream, dq_accum, args.dq, p.softmax_scale,
           p.seqlen_q, padded_q);
  }
}

// Calls use(T()) with the largest tiles that fit so many bytes of shared memory, or the smallest there are.
template <int kHeadDim, class Use>
void with_tiles_of(size_t shared_bytes, const Use& use) {
#ifdef TILE_M
  use(Tiles<kHeadDim, TILE_M, TILE_N>());
#else
  using Large = Tiles<kHeadDim, 8192 / kHeadDim, 128>;   // 225 or 227 KB: H100, H200
  using Medium = Tiles<kHeadDim, 4096 / kHeadDim, 128>;  // 129 or 137 KB: A100
  using Small = Tiles<kHeadDim, 4096 / kHeadDim, 64>;    // 89 or 93 KB: all others
  static_assert(Small::kSharedBytes <= 99 * 1024 && dq_shared_bytes(kHeadDim) <= 99 * 1024);
  if (shared_bytes >= Large::kSharedBytes) return use(Large());
  if (shared_bytes >= Medium::kSharedBytes) return use(Medium());
  use(Small());
#endif
}

template <class Use>
void with_tiles(int head_dim, size_t shared_bytes, const Use& use) {
  head_dim == 64 ? with_tiles_of<64>(shared_bytes, use) : with_tiles_of<128>(shared_bytes, use);
}

flash::Traffic traffic(const flash::Problem& p, int block_m, int block_n, int key_splits) {
  const double heads = double(p.batch) * p.heads, rows = heads * p.seqlen_q, padded_rows = heads * padded(p.seqlen_q);
  const double kv_rows = double(p.batch) * p.kv_heads * p.seqlen_k, row = 2 * p.head_dim, float_row = 2 * row;  // bytes
  double query_rows = 0, steps = 0;  // of all key tiles, over one head
  for (int key = 0; key < p.seqlen_k; key += block_n) {
    const int queries = flash::queries_visited(p, key, block_m);
    query_rows += queries, steps += ceil_div(queries, block_m);
  }
  double read = 2 * rows * row + 4 * rows, write = 8 * padded_rows;  // prepare_kernel: O, dO, LSE; LSE, D
  read += 2 * kv_rows * row + heads * (2 * query_rows * row + steps * 8 * block_m);  // K, V; Q, dO, LSE and D
  write += 2 * kv_rows * row + rows * row;                                           // dK, dV; dQ
  if (!p.deterministic) {
    write += padded_rows * float_row + heads * steps * block_m * float_row * key_splits;  // zeros, atomic adds
    read += rows * float_row;                                                             // round_dq_kernel
  } else {  // deterministic_dq_kernel: Q, dO; LSE and D, 16 bytes a thread; K, V
    read += 2 * rows * row + heads * ceil_div(p.seqlen_q, kDqBlockM) * 16 * kDqThreads;
    read += heads * 2 * flash::keys_visited_by_all(p, kDqBlockM, kDqBlockN) * row;
  }
  return {read, write};
}

flash::Plan plan(const flash::Problem& p, const flash::Device& device) {
  flash::Plan plan;
  with_tiles(p.head_dim, device.shared_bytes_per_block, [&](auto tiles) {
    using T = decltype(tiles);
    plan.block_m = T::kBlockM, plan.block_n = T::kBlockN, plan.shared_bytes = T::kSharedBytes;
    plan.traffic = traffic(p, T::kBlockM, T::kBlockN, T::kKeySplits);
  });
  const size_t floats_per_row = 2 + (p.deterministic ? 0 : p.head_dim);
  plan.workspace_bytes = size_t(p.batch) * p.heads * padded(p.seqlen_q) * floats_per_row * sizeof(float);
  plan.refusal = flash::tiles_refusal(kName, plan, p, device);
  return plan;
}

void backward(const flash::BackwardArgs& args, const flash::Plan& plan, void* workspace, flash::Stream stream) {
  with_tiles(args.problem.head_dim, plan.shared_bytes, [&](auto tiles) {
    using T = decltype(tiles);
    const auto run = args.problem.dtype == flash::Dtype::bf16 ? run_kernels<__nv_bfloat16, T> : run_kernels<__half, T>;
    run(args, plan, workspace, stream);
  });
}

const flash::RegisterStep registered(flash::with_tensor_cores(
    flash::at_least(80),
    flash::backward_step(kName, "the backward pass on tensor cores: two teams of warps, one query tile apart",
                         {flash::Dtype::bf16, flash::Dtype::fp16}, {64, 128}, plan, backward)));

}  // namespace
