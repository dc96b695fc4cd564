// 07.3 specialised: one warp loads, two warpgroups multiply.
//
// Idea: who multiplies shall do nothing else. A producer, one thread of a warpgroup of its own, asks for Q, K and V; two
//   consumers of 64 rows each multiply. Between them are rings of buffers: `full` tells the consumers that a tile has
//   landed, `empty` tells the producer that both are done with it. No __syncthreads holds the consumers together any
//   more, so one's exponentials run beside the other's products. The producer needs few registers and gives the others
//   back (setmaxnreg): consumers have 240, more than a block of 384 threads could ask for.
// Global memory: as 07.2.
// Limits: as 07.2. A block loads nothing for the next one: see 07.4.
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

constexpr const char* kName = "07_hopper/3_specialised";
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
  static constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;  // @registers
};

template <class S>
struct Shared {
  using Tiles = typename S::Element[kBuffers][S::kSlabs][S::kBlockN][64];
  typename S::Element q[S::kSlabs][S::kBlockM][64];
  Tiles k, v;
  uint64_t q_full;
  uint64_t k_full[kBuffers], k_empty[kBuffers];  // released by each consumer when its products are done
  uint64_t v_full[kBuffers], v_empty[kBuffers];  // likewise
};

// One thread: asks for Q, K and V in the order of their use, each as soon as its buffer is empty.
template <class S>
struct Producer {
  const AttentionParams& params;
  Shared<S>& shared;
  Ring<kBuffers> k_ring{shared.k_full, shared.k_empty, 1}, v_ring{shared.v_full, shared.v_empty, 1};

  __device__ __forceinline__ void load(Ring<kBuffers>& ring, typename Shared<S>::Tiles& tiles, const CUtensorMap& map,
                                       int key_tile, int kv_head) {
    ring.wait_empty();
    ring.expect(S::kTileBytes);
    tma_load(tiles[ring.buffer], &map, ring.full(), 0, key_tile * S::kBlockN, 0, kv_head);
    ring.next();
  }

  __device__ __forceinline__ void run(const QueryTile& tile) {
    mbarrier_arrive_expect(&shared.q_full, S::kQBytes);
    tma_load(shared.q, &params.q_map, &shared.q_full, 0, tile.first_row, 0, tile.batch_head);
    for (int key_tile = tile.key_tiles - 1; key_tile >= 0; --key_tile) {
      load(k_ring, shared.k, params.k_map, key_tile, tile.kv_head);
      load(v_ring, shared.v, params.v_map, key_tile, tile.kv_head);
    }
  }
};

// A warpgroup: 64 rows of the query tile. A lane has two rows, i = 0 and 1 (accumulators.cuh): their maxima, and its share
// of their sums.
template <class S>
struct Consumer {
  using Element = typename S::Element;
  static constexpr int kHeadDim = S::kHeadDim, kBlockN = S::kBlockN;

  const AttentionParams& params;
  const Problem& problem;
  Shared<S>& shared;
  const QueryTile& tile;
  const int first_row;
  const uint64_t q_first = slabs_descriptor(shared.q[0][first_row - tile.first_row], S::kBlockM);
  const uint64_t k_first = slabs_descriptor(shared.k[0], kBlockN), v_first = slabs_descriptor(shared.v[0], kBlockN);
  Ring<kBuffers> k_ring{shared.k_full, shared.k_empty, 0}, v_ring{shared.v_full, shared.v_empty, 0};

  float s_acc[kBlockN / 2], o_acc[kHeadDim / 2], row_max[2], row_sum[2];
  uint32_t p_frag[kBlockN / kWgmmaK][4];

  __device__ __forceinline__ Consumer(const AttentionParams& params, const Problem& problem, Shared<S>& shared,
                                      const QueryTile& tile, int first_row)
      : params(params), problem(problem), shared(shared), tile(tile), first_row(first_row) {}

  // This consumer's products with the tile of K or V are done: one thread says so for all.
  __device__ __forceinline__ void release(Ring<kBuffers>& ring) {
    if (threadIdx.x % kWarpgroup == 0) ring.release();  // @release
    ring.next();
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
    const int whole = flash::visible_keys(problem, first_row) / kBlockN;  // key tiles of which each row sees all
    clear_rows();
    mbarrier_wait(&shared.q_full, 0);
#pragma unroll 1
    for (int key_tile = tile.key_tiles - 1; key_tile >= 0; --key_tile) {
      tile_scores();
      if (key_tile >= whole) mask_scores(s_acc, problem, first_row, key_tile * kBlockN);
      tile_weights();
      tile_values();
    }
    write_rows();
  }
};

template <class S>
__global__ void __launch_bounds__(S::kThreads, 1) specialised_kernel(const __grid_constant__ AttentionParams params) {
  Shared<S>& shared = *dynamic_shared_tiles<Shared<S>>();
  Problem problem = params.problem;
  problem.causal = S::kCausal;                                                // nothing new, but the compiler knows it
  const int warpgroup = __shfl_sync(kAllLanes, threadIdx.x / kWarpgroup, 0);  // nor this: a warp has one
  if (threadIdx.x == 0) {
    mbarrier_init(&shared.q_full, 1);
    init_ring(shared.k_full, shared.k_empty, S::kConsumers);  // @rings
    init_ring(shared.v_full, shared.v_empty, S::kConsumers);
    mbarrier_init_fence();
  }
  __syncthreads();  // the barriers are there for every thread
  const QueryTile tile = query_tile<S::kBlockM, S::kBlockN>(problem, params.order, blockIdx.x);
  if (warpgroup == S::kConsumers) {
    registers_down_to<S::kProducerRegisters>();  // @producer
    if (threadIdx.x / kWarpSize == S::kConsumers * 4 && elect_one()) Producer<S>{params, shared}.run(tile);
  } else {
    registers_up_to<S::kConsumerRegisters>();
    Consumer<S>(params, problem, shared, tile, tile.first_row + warpgroup * kWgmmaM).run();
  }
}

void forward(const flash::ForwardArgs& a, const flash::Plan& plan, void*, flash::Stream stream) {
  visit_shape<Shape>(a.problem, [&](auto shape) {
    using S = decltype(shape);
    const AttentionParams params =
        attention_params<typename S::Element>(a, plan, one_section(a.problem, plan.block_m), nullptr);
    launch(specialised_kernel<S>, plan.blocks, S::kThreads, plan.shared_bytes, stream, params);
  });
}

flash::Plan plan(const Problem& p, const flash::Device& device) {
  return visit_shape<Shape>(p, [&](auto shape) {
    using S = decltype(shape);
    return query_tiles_plan(kName, p, device, S::kBlockM, S::kBlockN, sizeof(Shared<S>));
  });
}

const flash::RegisterStep registered(flash::with_tensor_cores(
    flash::exactly(90),
    flash::forward_step(kName, "a warp loads, two warpgroups multiply, rings of buffers between them",
                        {flash::Dtype::bf16, flash::Dtype::fp16}, {64, 128, 256}, plan, forward)));

}  // namespace
