// 07.4 drawn tiles: as many blocks as SMs, and each draws its next query tile from a counter.
//
// Idea: a block that has come to its end leaves its SM idle until the next has started, and a fixed order of tiles leaves
//   SMs idle at the end. So blocks stay, and a counter in global memory deals the tiles out: the longest first, which
//   matters when causal, and heads in sections whose K and V fit into L2. The producer loads the next tile's K and V while
//   consumers still write O. And O leaves by TMA, from 4 KB of shared memory a warp.
// Global memory: as 07.3, and one atomic addition a query tile.
// Limits: as 07.3. Products and exponentials of a warpgroup wait for each other: see 07.5.
#include "common/kernel/accumulators.cuh"
#include "common/kernel/attention_params.cuh"
#include "common/kernel/cuda.cuh"
#include "common/kernel/ptx/elect.cuh"
#include "common/kernel/ptx/ex2.cuh"
#include "common/kernel/ptx/fence.cuh"
#include "common/kernel/ptx/setmaxnreg.cuh"
#include "common/kernel/ptx/tma.cuh"
#include "common/kernel/ptx/wgmma.cuh"
#include "common/kernel/ring.cuh"
#include "common/kernel/step.h"
#include "common/kernel/visit_shape.cuh"

namespace {

using flash::Problem;

constexpr const char* kName = "07_hopper/4_drawn";
constexpr float kLn2 = 0.69314718f;
constexpr float kLowest = -3e38f;     // where maxima start: finite, so that no -inf - -inf can arise
constexpr float kRescaleAbove = 8.f;  // in the exponent: P may grow to 2^8 before its maximum moves
constexpr int kBuffers = 2;           // of K, and of V

template <class Element_, int kHeadDim_, bool kCausal_>
struct Shape {
  using Element = Element_;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr bool kCausal = kCausal_;
  static constexpr int kConsumers = 2, kThreads = (kConsumers + 1) * kWarpgroup;
  static constexpr int kBlockM = kConsumers * kWgmmaM, kBlockN = kHeadDim == 256 ? 64 : 128;
  static constexpr int kSlabs = kHeadDim / 64, kQBytes = kBlockM * kHeadDim * 2, kTileBytes = kBlockN * kHeadDim * 2;
  // Registers a thread: over all warpgroups no more than at launch, 3 x 168.
  static constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;
};

template <class S>
struct Shared {
  using Tiles = typename S::Element[kBuffers][S::kSlabs][S::kBlockN][64];
  typename S::Element q[S::kSlabs][S::kBlockM][64];
  Tiles k, v;
  typename S::Element o[S::kConsumers * 4][2][16][64];  // a warp's rows on their way out, by two slabs in turn
  int number;                                           // of q's query tile
  uint64_t q_full[1], q_empty[1];                       // q and number; released by each thread
  uint64_t k_full[kBuffers], k_empty[kBuffers];         // released by each consumer when its products are done
  uint64_t v_full[kBuffers], v_empty[kBuffers];         // likewise
};

// One thread: draws query tiles, and asks for Q, K and V in the order of their use, each as soon as its buffer is empty.
template <class S>
struct Producer {
  const AttentionParams& params;
  const Problem& problem;
  Shared<S>& shared;
  Ring<1> q_ring{shared.q_full, shared.q_empty, 1};
  Ring<kBuffers> k_ring{shared.k_full, shared.k_empty, 1}, v_ring{shared.v_full, shared.v_empty, 1};

  // The Q of a query tile, and its number with it. Past the last, the number alone.
  __device__ __forceinline__ void load_q(int number) {
    q_ring.wait_empty();
    shared.number = number;
    if (number < params.order.tiles()) {
      const QueryTile tile = query_tile<S::kBlockM, S::kBlockN>(problem, params.order, number);
      q_ring.expect(S::kQBytes);
      tma_load(shared.q, &params.q_map, q_ring.full(), 0, tile.first_row, 0, tile.batch_head);
    } else {
      q_ring.expect(0);  // @no-more
    }
    q_ring.next();
  }
  __device__ __forceinline__ void load(Ring<kBuffers>& ring, typename Shared<S>::Tiles& tiles, const CUtensorMap& map,
                                       int key_tile, int kv_head) {
    ring.wait_empty();
    ring.expect(S::kTileBytes);
    tma_load(tiles[ring.buffer], &map, ring.full(), 0, key_tile * S::kBlockN, 0, kv_head);
    ring.next();
  }

  __device__ __forceinline__ void run() {
    const int tiles = params.order.tiles();
    int number = blockIdx.x;
    load_q(number);
    while (number < tiles) {
      const int drawn = atomicAdd(params.counter, 1), next = gridDim.x + drawn;
      if (drawn == tiles - 1) atomicExch(params.counter, 0);  // @reset: a draw a tile, and this was the last
      const QueryTile tile = query_tile<S::kBlockM, S::kBlockN>(problem, params.order, number);
      for (int key_tile = tile.key_tiles - 1; key_tile >= 0; --key_tile) {
        load(k_ring, shared.k, params.k_map, key_tile, tile.kv_head);
        load(v_ring, shared.v, params.v_map, key_tile, tile.kv_head);
      }
      load_q(next);
      number = next;
    }
  }
};

// A warpgroup: 64 rows of each query tile. A lane has two rows, i = 0 and 1 (accumulators.cuh): their maxima, and its share
// of their sums.
template <class S>
struct Consumer {
  using Element = typename S::Element;
  static constexpr int kHeadDim = S::kHeadDim, kBlockN = S::kBlockN;

  const AttentionParams& params;
  const Problem& problem;
  Shared<S>& shared;
  const int consumer, warp = threadIdx.x / kWarpSize % 4, lane = threadIdx.x % kWarpSize;
  const uint64_t q_first = slabs_descriptor(shared.q[0][consumer * kWgmmaM], S::kBlockM);
  const uint64_t k_first = slabs_descriptor(shared.k[0], kBlockN), v_first = slabs_descriptor(shared.v[0], kBlockN);
  Ring<1> q_ring{shared.q_full, shared.q_empty, 0};
  Ring<kBuffers> k_ring{shared.k_full, shared.k_empty, 0}, v_ring{shared.v_full, shared.v_empty, 0};

  QueryTile tile;
  int first_row, whole;  // key tiles of which each of these rows sees all
  float s_acc[kBlockN / 2], o_acc[kHeadDim / 2], row_max[2], row_sum[2];
  uint32_t p_frag[kBlockN / kWgmmaK][4];

  __device__ __forceinline__ Consumer(const AttentionParams& params, const Problem& problem, Shared<S>& shared,
                                      int consumer)
      : params(params), problem(problem), shared(shared), consumer(consumer) {}

  // This consumer's products with the tile of K or V are done: one thread says so for all.
  __device__ __forceinline__ void release(Ring<kBuffers>& ring) {
    if (threadIdx.x % kWarpgroup == 0) ring.release();
    ring.next();
  }
  __device__ __forceinline__ void release_q() {
    q_ring.release();
    q_ring.next();
  }
  // Waits for the next tile's Q. False: there is none.
  __device__ __forceinline__ bool next_tile() {
    q_ring.wait_full();
    const int number = __shfl_sync(kAllLanes, shared.number, 0);  // the compiler learns: one for all
    if (number >= params.order.tiles()) return false;
    tile = query_tile<S::kBlockM, kBlockN>(problem, params.order, number);
    first_row = tile.first_row + consumer * kWgmmaM;
    whole = flash::visible_keys(problem, first_row) / kBlockN;
    return true;
  }

  // S = Q K^T
  __device__ __forceinline__ void issue_scores() {
    const uint64_t k = k_first + k_ring.buffer * bytes_on(S::kTileBytes);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kHeadDim / kWgmmaK; ++step) {
      Wgmma<kBlockN, Element>::template ss<0, 0>(s_acc, q_first + columns_on(step, S::kBlockM),
                                                 k + columns_on(step, kBlockN), step > 0);
    }
    wgmma_commit();
  }
  // O += P V
  __device__ __forceinline__ void issue_values() {
    const uint64_t v = v_first + v_ring.buffer * bytes_on(S::kTileBytes);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kBlockN / kWgmmaK; ++step) {
      Wgmma<kHeadDim, Element>::template rs<1>(o_acc, p_frag[step], v + rows_on(step), 1);
    }
    wgmma_commit();
  }
  __device__ __forceinline__ void tile_scores() {
    k_ring.wait_full();
    issue_scores();
    wgmma_wait<0>();
    pin(s_acc);
    release(k_ring);
  }
  __device__ __forceinline__ void tile_values() {
    v_ring.wait_full();
    issue_values();
    wgmma_wait<0>();
    pin(o_acc);
    release(v_ring);
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

  // O / sum leaves by the warp's two slabs; TMA drops rows past the end.
  __device__ __forceinline__ void write_rows() {
    float inverse[2], lse[2];
    for (int i = 0; i < 2; ++i) {
      const float sum = group_sum(row_sum[i]);
      inverse[i] = sum > 0.f ? 1.f / sum : 0.f;  // a row that has seen no key has the sum 0 and gives 0 and -inf
      lse[i] = (row_max[i] + log2f(sum)) * kLn2;
    }
#pragma unroll
    for (int slab = 0; slab < S::kSlabs; ++slab) {
      auto& rows = shared.o[consumer * 4 + warp][slab % 2];  // @slab
      if (lane == 0) bulk_wait_read<S::kSlabs == 1 ? 0 : 1>();
      __syncwarp();  // what left from this slab before has left it
      store_slab<Element>(rows, &o_acc[32 * slab], inverse);
      fence_async();
      __syncwarp();  // the slab is whole, for TMA too
      if (lane == 0) tma_store(&params.o_map, rows, 0, first_row + warp * 16, slab, tile.batch_head);
      if (lane == 0) bulk_commit();
    }
    for (int i = 0; i < 2; ++i) {  // not before the fence, which waits for stores
      const int row = first_row + lane_row() + 8 * i;
      if (lane_column() == 0 && row < problem.seqlen_q)
        params.softmax_lse[size_t(tile.batch_head) * problem.seqlen_q + row] = lse[i];
    }
  }

  __device__ __forceinline__ void run() {
    while (next_tile()) {
      clear_rows();
#pragma unroll 1
      for (int key_tile = tile.key_tiles - 1; key_tile >= 0; --key_tile) {
        tile_scores();
        if (key_tile >= whole) mask_scores(s_acc, problem, first_row, key_tile * kBlockN);
        tile_weights();
        tile_values();
      }
      release_q();
      write_rows();
    }
    if (lane == 0) bulk_wait_read<0>();  // @exit: shared memory is nobody else's before O has left it
  }
};

template <class S>
__global__ void __launch_bounds__(S::kThreads, 1) drawn_kernel(const __grid_constant__ AttentionParams params) {
  Shared<S>& shared = *dynamic_shared_tiles<Shared<S>>();
  Problem problem = params.problem;
  problem.causal = S::kCausal;                                                // nothing new, but the compiler knows it
  const int warpgroup = __shfl_sync(kAllLanes, threadIdx.x / kWarpgroup, 0);  // nor this: a warp has one
  if (threadIdx.x == 0) {
    init_ring(shared.q_full, shared.q_empty, S::kConsumers * kWarpgroup);
    init_ring(shared.k_full, shared.k_empty, S::kConsumers);
    init_ring(shared.v_full, shared.v_empty, S::kConsumers);
    mbarrier_init_fence();
  }
  __syncthreads();  // the barriers are there for every thread
  if (warpgroup == S::kConsumers) {
    registers_down_to<S::kProducerRegisters>();
    if (threadIdx.x / kWarpSize == S::kConsumers * 4 && elect_one()) Producer<S>{params, problem, shared}.run();
  } else {
    registers_up_to<S::kConsumerRegisters>();
    Consumer<S>(params, problem, shared, warpgroup).run();
  }
}

void forward(const flash::ForwardArgs& a, const flash::Plan& plan, void* workspace, flash::Stream stream) {
  visit_shape<Shape>(a.problem, [&](auto shape) {
    using S = decltype(shape);
    const AttentionParams params =
        attention_params<typename S::Element>(a, plan, in_sections(a.problem, plan), workspace);
    launch(drawn_kernel<S>, plan.blocks, S::kThreads, plan.shared_bytes, stream, params);
  });
}

flash::Plan plan(const Problem& p, const flash::Device& device) {
  return visit_shape<Shape>(p, [&](auto shape) {
    using S = decltype(shape);
    return drawn_tiles_plan(kName, p, device, S::kBlockM, S::kBlockN, sizeof(Shared<S>));
  });
}

const flash::RegisterStep registered(flash::with_tensor_cores(
    flash::exactly(90), flash::forward_step(kName, "blocks stay and draw query tiles from a counter, the longest first",
                                            {flash::Dtype::bf16, flash::Dtype::fp16}, {64, 128, 256}, plan, forward)));

}  // namespace
