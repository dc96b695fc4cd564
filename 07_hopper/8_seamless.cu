// 07.8 seamless: no seam between query tiles.
//
// Idea: at the end of a query tile the tensor cores had nothing to do but its last P V, and at the next one's begin but
//   its first Q K^T. Now the two go out together, like those of neighbouring key tiles: a block computes one long row of
//   key tiles, and O leaves while the next tile's first scores are already there.
// Global memory: as 07.7.
// Limits: as 07.7. Not at head_dim 256, whose Q has one buffer and no registers; nor at head_dim 128 when causal, where to
//   wait for the next tile's Q and K costs more than the seam.
#include <algorithm>
#include <cmath>

#include "common/kernel/cuda.cuh"
#include "common/kernel/ptx/elect.cuh"
#include "common/kernel/ptx/ex2.cuh"
#include "common/kernel/ptx/fence.cuh"
#include "common/kernel/ptx/ldmatrix.cuh"
#include "common/kernel/ptx/mbarrier.cuh"
#include "common/kernel/ptx/named_barrier.cuh"
#include "common/kernel/ptx/pack.cuh"
#include "common/kernel/ptx/setmaxnreg.cuh"
#include "common/kernel/ptx/stmatrix.cuh"
#include "common/kernel/ptx/tma.cuh"
#include "common/kernel/ptx/wgmma.cuh"
#include "common/kernel/query_tiles.cuh"
#include "common/kernel/slab_map.cuh"
#include "common/kernel/step.h"
#include "common/kernel/visit_shape.cuh"
#include "common/problem/mask.h"

namespace {

using flash::Problem;

constexpr const char* kName = "07_hopper/8_seamless";
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr float kLn2 = 0.69314718f;
constexpr float kLowest = -3e38f;    // where maxima start: finite, so that no -inf - -inf can arise
constexpr float kSumLimit = 8192.f;  // @sum-limit: of a lane's share of a row of P: below it fp16 holds each weight
constexpr int kWarpgroup = 128;      // threads: four warps, which multiply together
constexpr int kRows = 64;            // query rows of a consumer: what a wgmma has
constexpr int kWgmmaK = 16;
constexpr int kStages = 2;  // of K, and of V
constexpr int kNoTile = -1;

template <class Element_, int kHeadDim_, bool kCausal_>
struct Shape {
  using Element = Element_;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr bool kCausal = kCausal_;
  static constexpr int kConsumers = kHeadDim == 64 ? 3 : 2;  // warpgroups
  static constexpr int kThreads = (kConsumers + 1) * kWarpgroup;
  static constexpr int kBlockM = kConsumers * kRows, kBlockN = kHeadDim == 256 ? 64 : 128;
  static constexpr int kSlabs = kHeadDim / 64;
  static constexpr int kQBytes = kRows * kHeadDim * 2, kTileBytes = kBlockN * kHeadDim * 2;
  // Per thread. 512 of 128 threads are an SM's.
  static constexpr int kProducerRegisters = kConsumers == 2 ? 24 : 32;
  static constexpr int kConsumerRegisters = kConsumers == 2 ? 240 : 160;
  static constexpr bool kKeepQ = kHeadDim == 128;  // in registers: shared memory then feeds the products K and V alone
  static constexpr int kQBuffers = kHeadDim == 64 ? 2 : 1;
  static constexpr bool kSeamless = kHeadDim == 64 || (kHeadDim == 128 && !kCausal);
  static_assert(kBlockM - kRows <= kBlockN, "a consumer passes over one key tile of a query tile at most");
};

// Tiles are in slabs of 64 columns. In the order of use: the producer fills, `full` says so; the consumers `empty`.
template <class S>
struct Shared {
  using Element = typename S::Element;
  Element q[S::kQBuffers][S::kConsumers][S::kSlabs][kRows][64];
  Element k[kStages][S::kSlabs][S::kBlockN][64], v[kStages][S::kSlabs][S::kBlockN][64];
  Element o[S::kConsumers * 4][2][16][64];        // a warp's rows on their way out, a slab at a time in two buffers
  uint64_t q_full[S::kQBuffers][S::kConsumers];   // Q and the number of its tile are there: 1 arrival and the bytes
  uint64_t q_empty[S::kQBuffers][S::kConsumers];  // the consumer needs neither any more: 1 arrival a warp
  uint64_t k_full[kStages], v_full[kStages];      // the tile is there: 1 arrival and the bytes
  uint64_t k_empty[kStages], v_empty[kStages];    // the products with it are done: 1 arrival a consumer
  int number[S::kQBuffers][S::kConsumers];        // of q's query tile, or kNoTile
};

struct Maps {
  CUtensorMap q, k, v, o;
};

// A place in a ring of buffers, and the parity of the phase to wait for there.
template <int kBuffers>
struct Ring {
  int stage = 0;
  uint32_t parity;
  __device__ __forceinline__ explicit Ring(uint32_t first_parity) : parity(first_parity) {}
  __device__ __forceinline__ void next() {
    stage = stage + 1 == kBuffers ? 0 : stage + 1;
    if (stage == 0) parity ^= 1;
  }
};

// One thread: draws query tiles, and asks for Q, K and V in the order of their use as soon as a buffer is empty.
template <class S>
struct Producer {
  using Element = typename S::Element;
  const Maps& maps;
  const Problem& problem;
  const TileOrder& order;
  Shared<S>& shared;
  Ring<S::kQBuffers> q_ring{1};
  Ring<kStages> k_ring{1}, v_ring{1};

  __device__ __forceinline__ void load_q(int number) {
    const bool exists = number < order.tiles();
    const QueryTile tile = query_tile<S::kBlockM, S::kBlockN>(problem, order, exists ? number : 0);
    for (int c = 0; c < S::kConsumers; ++c) {
      uint64_t* const full = &shared.q_full[q_ring.stage][c];
      mbarrier_wait(&shared.q_empty[q_ring.stage][c], q_ring.parity);
      shared.number[q_ring.stage][c] = exists ? number : kNoTile;
      if (exists) {
        mbarrier_arrive_expect(full, S::kQBytes);
        tma_load(shared.q[q_ring.stage][c], &maps.q, full, 0, tile.first_row + c * kRows, 0, tile.batch_head);
      } else {
        mbarrier_arrive(full);
      }
    }
    q_ring.next();
  }
  __device__ __forceinline__ void load_k(const QueryTile& tile, int key_tile) {
    uint64_t* const full = &shared.k_full[k_ring.stage];
    mbarrier_wait(&shared.k_empty[k_ring.stage], k_ring.parity);  // @k-empty
    mbarrier_arrive_expect(full, S::kTileBytes);
    tma_load(shared.k[k_ring.stage], &maps.k, full, 0, key_tile * S::kBlockN, 0, tile.kv_head);
    k_ring.next();
  }
  __device__ __forceinline__ void load_v(const QueryTile& tile, int key_tile) {
    uint64_t* const full = &shared.v_full[v_ring.stage];
    mbarrier_wait(&shared.v_empty[v_ring.stage], v_ring.parity);
    mbarrier_arrive_expect(full, S::kTileBytes);
    tma_load(shared.v[v_ring.stage], &maps.v, full, 0, key_tile * S::kBlockN, 0, tile.kv_head);
    v_ring.next();
  }

  __device__ __forceinline__ void run(int* counter) {
    int number = blockIdx.x;
    load_q(number);
    while (number < order.tiles()) {
      const int drawn = atomicAdd(counter, 1), next = gridDim.x + drawn;
      if (drawn == order.tiles() - 1)
        atomicExch(counter, 0);  // @reset: each tile draws once, the last for the next launch
      const QueryTile tile = query_tile<S::kBlockM, S::kBlockN>(problem, order, number);
      for (int key_tile = tile.key_tiles - 1; key_tile >= 0; --key_tile) {
        load_k(tile, key_tile);
        if (key_tile + 1 < tile.key_tiles) load_v(tile, key_tile + 1);
        if (S::kSeamless && key_tile == max(tile.key_tiles - 2, 0))
          load_q(next);  // as soon as K and V needn't wait for it
      }
      load_v(tile, 0);
      if (!S::kSeamless) load_q(next);
      number = next;
    }
  }
};

// A warpgroup: 64 rows of each query tile. A lane has rows `group` and `group` + 8 of its warp's 16, i = 0 and 1, and
// columns 8 n + 2 t and + 1 of S and O, n = 0, 1 and so on. The four lanes of a group hold the same maximum, and a share
// each of the sum.
template <class S>
struct Consumer {
  using Element = typename S::Element;
  static constexpr int kHeadDim = S::kHeadDim, kBlockN = S::kBlockN;

  const Maps& maps;
  const Problem& problem;
  const TileOrder& order;
  float* const softmax_lse;
  Shared<S>& shared;
  const int consumer, warp = threadIdx.x / kWarpSize % 4, lane = threadIdx.x % kWarpSize;
  const int group = lane / 4, t = lane % 4;  // the lane's place in the lane map
  const float scale_log2 = problem.softmax_scale * kLog2e;
  const uint64_t q_first = slabs_descriptor(shared.q[0][consumer], kRows);
  const uint64_t k_first = slabs_descriptor(shared.k[0], kBlockN), v_first = slabs_descriptor(shared.v[0], kBlockN);

  Ring<S::kQBuffers> q_ring{0};
  Ring<kStages> k_ring{0}, v_ring{0};
  int q_stage = 0;  // where this tile's Q is
  QueryTile tile;
  int seen, whole;  // key tiles of which these rows see something, and of which they see everything
  float s_acc[kBlockN / 2], o_acc[kHeadDim / 2], row_max[2], row_sum[2];
  uint32_t q_frag[S::kKeepQ ? kHeadDim / kWgmmaK : 1][4], p_frag[kBlockN / kWgmmaK][4];

  __device__ __forceinline__ Consumer(const Maps& maps, const Problem& problem, const TileOrder& order,
                                      float* softmax_lse, Shared<S>& shared, int consumer)
      : maps(maps), problem(problem), order(order), softmax_lse(softmax_lse), shared(shared), consumer(consumer) {}

  __device__ __forceinline__ void wait_k() { mbarrier_wait(&shared.k_full[k_ring.stage], k_ring.parity); }
  __device__ __forceinline__ void wait_v() { mbarrier_wait(&shared.v_full[v_ring.stage], v_ring.parity); }
  __device__ __forceinline__ void release_k() {
    if (threadIdx.x % kWarpgroup == 0) mbarrier_arrive(&shared.k_empty[k_ring.stage]);  // @release-k
    k_ring.next();
  }
  __device__ __forceinline__ void release_v() {
    if (threadIdx.x % kWarpgroup == 0) mbarrier_arrive(&shared.v_empty[v_ring.stage]);
    v_ring.next();
  }
  __device__ __forceinline__ void release_q() {
    __syncwarp();  // every lane has read Q and the tile's number
    if (lane == 0) mbarrier_arrive(&shared.q_empty[q_stage][consumer]);
  }
  // Consumers take turns at issuing products. Named barrier 1 + c is consumer c's turn: it waits there, and the one
  // before it arrives.
  __device__ __forceinline__ void take_turn() { named_sync(1 + consumer, 2 * kWarpgroup); }
  __device__ __forceinline__ void pass_turn() {
    named_arrive(consumer + 1 == S::kConsumers ? 1 : consumer + 2, 2 * kWarpgroup);
  }

  // Waits for the next tile's Q. False: there is none.
  __device__ __forceinline__ bool next_tile() {
    mbarrier_wait(&shared.q_full[q_ring.stage][consumer], q_ring.parity);
    q_stage = q_ring.stage;
    q_ring.next();
    const int number = __shfl_sync(kAllLanes, shared.number[q_stage][consumer], 0);  // the compiler learns: one for all
    if (number == kNoTile) return false;
    tile = query_tile<S::kBlockM, kBlockN>(problem, order, number);
    const int first_row = tile.first_row + consumer * kRows;
    seen = key_tiles_seen<kBlockN>(problem, first_row, kRows);
    whole = flash::visible_keys(problem, first_row) / kBlockN;
    if constexpr (S::kKeepQ) {
      for (int step = 0; step < kHeadDim / kWgmmaK; ++step) {
        const int row = warp * 16 + lane % 16, chunk = step % 4 * 2 + lane / 16;
        ldmatrix_x4(q_frag[step], &shared.q[q_stage][consumer][step / 4][row][(chunk ^ row % 8) * 8]);
      }
      release_q();
    }
    return true;
  }

  // S = Q K^T
  __device__ __forceinline__ void issue_scores() {
    const uint64_t k = k_first + k_ring.stage * bytes_on(S::kTileBytes);
    [[maybe_unused]] const uint64_t q = q_first + q_stage * bytes_on(S::kConsumers * S::kQBytes);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kHeadDim / kWgmmaK; ++step) {
      if constexpr (S::kKeepQ) {
        Wgmma<kBlockN, Element>::template rs<0>(s_acc, q_frag[step], k + columns_on(step, kBlockN), step > 0);
      } else {
        Wgmma<kBlockN, Element>::template ss<0, 0>(s_acc, q + columns_on(step, kRows), k + columns_on(step, kBlockN),
                                                   step > 0);
      }
    }
    wgmma_commit();
  }
  // O += P V
  __device__ __forceinline__ void issue_values() {
    const uint64_t v = v_first + v_ring.stage * bytes_on(S::kTileBytes);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kBlockN / kWgmmaK; ++step) {
      Wgmma<kHeadDim, Element>::template rs<1>(o_acc, p_frag[step], v + rows_on(step), 1);
    }
    wgmma_commit();
  }

  // Scores of keys that a row doesn't see become -inf.
  __device__ __forceinline__ void mask_scores(int key_tile) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = tile.first_row + consumer * kRows + warp * 16 + group + 8 * i;
      const int end = flash::visible_keys(problem, row) - key_tile * kBlockN - 2 * t;
#pragma unroll
      for (int n = 0; n < kBlockN / 8; ++n) {
        if (8 * n >= end) s_acc[4 * n + 2 * i] = -INFINITY;
        if (8 * n + 1 >= end) s_acc[4 * n + 2 * i + 1] = -INFINITY;
      }
    }
  }
  // Moves the maxima up to this tile's; `rescale` is for what was summed with the old ones. Maxima are scaled and base 2.
  __device__ __forceinline__ void move_maxima(float (&rescale)[2]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float new_max = -INFINITY;
#pragma unroll
      for (int n = 0; n < kBlockN / 8; ++n) {
        new_max = fmaxf(new_max, fmaxf(s_acc[4 * n + 2 * i], s_acc[4 * n + 2 * i + 1]));
      }
      new_max = fmaxf(new_max, __shfl_xor_sync(kAllLanes, new_max, 1));  // the four lanes of a group share the row
      new_max = fmaxf(new_max, __shfl_xor_sync(kAllLanes, new_max, 2));
      new_max = fmaxf(new_max * scale_log2, row_max[i]);
      rescale[i] = ex2(row_max[i] - new_max);
      row_max[i] = new_max;
    }
  }
  // The weights P = 2^(S - maximum), packed as an operand, and this lane's share of their sums.
  __device__ __forceinline__ void tile_weights(float (&sum)[2]) {
    sum[0] = 0.f;
    sum[1] = 0.f;
#pragma unroll
    for (int n = 0; n < kBlockN / 8; ++n) {
      float weights[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        weights[e] = ex2(s_acc[4 * n + e] * scale_log2 - row_max[e / 2]);
        sum[e / 2] += weights[e];
      }
      p_frag[n / 2][n % 2 * 2] = pack<Element>(weights[0], weights[1]);
      p_frag[n / 2][n % 2 * 2 + 1] = pack<Element>(weights[2], weights[3]);
    }
  }
  // The first key tile's.
  __device__ __forceinline__ void first_weights() {
    float unused[2];
    row_max[0] = kLowest;
    row_max[1] = kLowest;
    if (seen > whole) mask_scores(seen - 1);
    move_maxima(unused);
    tile_weights(row_sum);
#pragma unroll
    for (int n = 0; n < kHeadDim / 2; ++n) o_acc[n] = 0.f;
  }
  // Every other's: as if no maximum moved. If one did by much, the sums show it, and the tile is computed again.
  __device__ __forceinline__ void next_weights() {
    float sum[2];
    tile_weights(sum);
    if (__any_sync(kAllLanes, !(sum[0] <= kSumLimit && sum[1] <= kSumLimit))) {  // @vote: or NaN
      float rescale[2];
      move_maxima(rescale);
      row_sum[0] *= rescale[0];
      row_sum[1] *= rescale[1];
#pragma unroll
      for (int n = 0; n < kHeadDim / 2; ++n) o_acc[n] *= rescale[n / 2 % 2];  // @rescale
      tile_weights(sum);
    }
    row_sum[0] += sum[0];
    row_sum[1] += sum[1];
  }

  // The tile's last K and V may be no concern of these rows: they are released, and the turn is passed.
  __device__ __forceinline__ void pass_over_k() {
    if (!S::kCausal || seen == tile.key_tiles) return;
    take_turn();
    pass_turn();
    wait_k();
    release_k();
  }
  __device__ __forceinline__ void pass_over_v() {
    if (!S::kCausal || seen == tile.key_tiles) return;
    wait_v();
    release_v();
  }
  __device__ __forceinline__ void first_scores() {
    pass_over_k();
    wait_k();
    issue_scores();
    wgmma_wait<0>();
    pin(s_acc);
    release_k();
    pass_over_v();
  }
  __device__ __forceinline__ void last_values() {
    wait_v();
    issue_values();
    wgmma_wait<0>();
    pin(o_acc);
    release_v();
  }
  // The next Q K^T and the P V before it, together.
  __device__ __forceinline__ void scores_and_values() {
    wait_k();
    take_turn();
    issue_scores();
    wait_v();
    issue_values();
    pass_turn();
    wgmma_wait<0>();
    pin(s_acc);
    pin(o_acc);
    release_k();
    release_v();
  }

  // O / sum leaves by the warp's two buffers; TMA drops the rows past the end.
  __device__ __forceinline__ void write_rows(const QueryTile& tile) {
    const int first_row = tile.first_row + consumer * kRows + warp * 16;
    float inverse[2], lse[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float sum = row_sum[i];
      sum += __shfl_xor_sync(kAllLanes, sum, 1);
      sum += __shfl_xor_sync(kAllLanes, sum, 2);
      inverse[i] = sum > 0.f ? 1.f / sum : 0.f;  // a row that has seen no key has the sum 0 and gives 0 and -inf
      lse[i] = (row_max[i] + log2f(sum)) * kLn2;
    }
#pragma unroll
    for (int slab = 0; slab < S::kSlabs; ++slab) {
      Element(&rows)[16][64] = shared.o[consumer * 4 + warp][slab % 2];
      if (lane == 0) bulk_wait_read<S::kSlabs == 1 ? 0 : 1>();
      __syncwarp();  // the copy that left from here has read it
#pragma unroll
      for (int n = 0; n < 4; ++n) {  // 16 columns
        const float* const o = &o_acc[32 * slab + 8 * n];
        const int row = lane % 16, chunk = 2 * n + lane / 16;
        stmatrix_x4(&rows[row][(chunk ^ row % 8) * 8], pack<Element>(o[0] * inverse[0], o[1] * inverse[0]),
                    pack<Element>(o[2] * inverse[1], o[3] * inverse[1]),
                    pack<Element>(o[4] * inverse[0], o[5] * inverse[0]),
                    pack<Element>(o[6] * inverse[1], o[7] * inverse[1]));
      }
      fence_async();
      __syncwarp();  // the slab is there from every lane, for the copy engine too
      if (lane == 0) {
        tma_store(&maps.o, rows, 0, first_row, slab, tile.batch_head);
        bulk_commit();
      }
    }
    for (int i = 0; i < 2; ++i) {  // after the fence, which waits for stores before it
      const int row = first_row + group + 8 * i;
      if (t == 0 && row < problem.seqlen_q) softmax_lse[size_t(tile.batch_head) * problem.seqlen_q + row] = lse[i];
    }
  }

  __device__ __forceinline__ void run() {
    if (consumer == S::kConsumers - 1) pass_turn();  // the first turn is consumer 0's
    bool more = next_tile();
    if (more) first_scores();
    while (more) {
      first_weights();
      int key_tile = seen - 2;
      if (S::kCausal) {
#pragma unroll 1
        for (; key_tile >= whole; --key_tile) {
          scores_and_values();
          mask_scores(key_tile);
          next_weights();
        }
      }
#pragma unroll 1
      for (; key_tile >= 0; --key_tile) {
        scores_and_values();
        next_weights();
      }
      if (!S::kKeepQ) release_q();
      const QueryTile done = tile;
      if (S::kSeamless) {
        more = next_tile();
        if (more) {  // @seam
          pass_over_k();
          scores_and_values();
          pass_over_v();
        } else {
          last_values();
        }
        write_rows(done);
      } else {
        last_values();
        write_rows(done);
        more = next_tile();
        if (more) first_scores();
      }
    }
    if (lane == 0) bulk_wait_read<0>();  // shared memory is not another block's before O has left it
  }
};

template <int kBuffers>
__device__ __forceinline__ void init_ring(uint64_t (&full)[kBuffers], uint64_t (&empty)[kBuffers], int releases) {
  for (int i = 0; i < kBuffers; ++i) {
    mbarrier_init(&full[i], 1);
    mbarrier_init(&empty[i], releases);
  }
}

template <class S>
__global__ void __launch_bounds__(S::kThreads, 1)
    seamless_kernel(const __grid_constant__ Maps maps, Problem problem, const TileOrder order, int* counter,
                    float* softmax_lse) {
  Shared<S>& shared = *dynamic_shared_tiles<Shared<S>>();
  problem.causal = S::kCausal;                                                // nothing new, but the compiler knows it
  const int warpgroup = __shfl_sync(kAllLanes, threadIdx.x / kWarpgroup, 0);  // as for the tile's number
  if (threadIdx.x == 0) {
    for (int i = 0; i < S::kQBuffers; ++i) init_ring(shared.q_full[i], shared.q_empty[i], 4);
    init_ring(shared.k_full, shared.k_empty, S::kConsumers);
    init_ring(shared.v_full, shared.v_empty, S::kConsumers);
    mbarrier_init_fence();
  }
  __syncthreads();  // the barriers are there for every thread
  if (warpgroup == S::kConsumers) {
    registers_give<S::kProducerRegisters>();
    const bool first_warp = threadIdx.x / kWarpSize == S::kConsumers * 4;
    if (first_warp && elect_one()) Producer<S>{maps, problem, order, shared}.run(counter);
  } else {
    registers_take<S::kConsumerRegisters>();
    Consumer<S>(maps, problem, order, softmax_lse, shared, warpgroup).run();
  }
}

void forward(const flash::ForwardArgs& a, const flash::Plan& plan, void* workspace, flash::Stream stream) {
  const Problem& p = a.problem;
  visit_shape<Shape>(p, [&](auto shape) {
    using S = decltype(shape);
    using Element = typename S::Element;
    const auto map = [&](const void* data, int heads, int rows, int box_rows, int slabs) {
      return slab_map(static_cast<const Element*>(data), p.batch * heads, rows, p.head_dim, box_rows, slabs);
    };
    const Maps maps = {map(a.q, p.heads, p.seqlen_q, kRows, S::kSlabs),
                       map(a.k, p.kv_heads, p.seqlen_k, S::kBlockN, S::kSlabs),
                       map(a.v, p.kv_heads, p.seqlen_k, S::kBlockN, S::kSlabs), map(a.o, p.heads, p.seqlen_q, 16, 1)};
    launch(seamless_kernel<S>, plan.blocks, S::kThreads, plan.shared_bytes, stream, maps, p,
           in_sections(p, plan.block_m, plan.blocks), workspace, a.softmax_lse);
  });
}

flash::Plan plan(const Problem& p, const flash::Device& device) {
  flash::Plan plan;
  visit_shape<Shape>(p, [&](auto shape) {
    using S = decltype(shape);
    plan.block_m = S::kBlockM;
    plan.block_n = S::kBlockN;
    plan.shared_bytes = sizeof(Shared<S>);
  });
  plan.refusal = flash::tiles_refusal(kName, plan, p, device);
  plan.workspace_bytes = sizeof(int);  // the counter that tiles are drawn from
  plan.zeroed_bytes = sizeof(int);
  const int tiles = one_section(p, plan.block_m).tiles();
  plan.blocks = std::min(tiles, device.sm_count);
  plan.traffic = query_tiles_traffic(p, plan.block_m, plan.block_n);
  plan.traffic.write_bytes += (tiles + 1.0) * sizeof(int);  // draws, and the reset
  return plan;
}

const flash::RegisterStep registered(flash::with_tensor_cores(
    flash::exactly(90), flash::forward_step(kName, "a query tile's last product goes with the next tile's first",
                                            {flash::Dtype::bf16, flash::Dtype::fp16}, {64, 128, 256}, plan, forward)));

}  // namespace
