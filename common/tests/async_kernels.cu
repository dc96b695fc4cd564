// Mistakes with TMA, mbarriers, named barriers and fences, each beside its correct twin; see watch_kernels.h.
#include <numeric>

#include "common/device/device.h"
#include "common/device/memory.h"
#include "common/device/timing.h"
#include "common/kernel/cuda.cuh"
#include "common/kernel/ptx/fence.cuh"
#include "common/kernel/ptx/mbarrier.cuh"
#include "common/kernel/ptx/named_barrier.cuh"
#include "common/kernel/ptx/setmaxnreg.cuh"
#include "common/kernel/ptx/tensor_map.cuh"
#include "common/kernel/ptx/tma.cuh"
#include "common/kernel/ptx/wgmma.cuh"
#include "common/tests/watch_kernels.h"

namespace {

using flash::DeviceBuffer;

constexpr int kTile = 64, kTiles = 8, kStages = 2;  // a tile is a row of floats
constexpr int kBytes = kTile * sizeof(float);
constexpr int kWorkers = 64;  // two warps that use tiles; a third may load them
constexpr int kThreads = kWorkers + kWarpSize;

float* floats(const DeviceBuffer& buffer) { return static_cast<float*>(buffer.data()); }

// in: [kTiles][kTile], filled; out: as large.
struct Arrays {
  Arrays() : in("in", kTiles * kBytes), out("out", kTiles * kBytes) {
    std::vector<float> values(kTiles * kTile);
    std::iota(values.begin(), values.end(), 0.0f);
    in.copy_from_host(values.data());
  }
  static CUtensorMap map(const DeviceBuffer& array, int rows = kTiles) {
    return make_tensor_map(floats(array), {kTile, rows}, {kBytes}, {kTile, 1}, Swizzle::none);
  }
  DeviceBuffer in, out;
};

using Kernel = void (*)(CUtensorMap, CUtensorMap, float*);
void run(Kernel kernel, int threads, int blocks = 1) {
  const Arrays arrays;
  launch(kernel, blocks, threads, 0, nullptr, Arrays::map(arrays.in), Arrays::map(arrays.out), floats(arrays.out));
  flash::synchronize();
}

#define MAPS const __grid_constant__ CUtensorMap in, const __grid_constant__ CUtensorMap out_map, float *out
#define UNUSED_MAPS (void)in, (void)out_map, (void)out

__device__ __forceinline__ void init(uint64_t* barrier, int arrivals) {
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, uint32_t(arrivals));
    mbarrier_init_fence();
  }
  __syncthreads();
}

// ---- loads ----------------------------------------------------------------------------------------------------------

template <bool kFaulty>
__global__ void load_without_wait(MAPS) {
  UNUSED_MAPS;
  __shared__ __align__(128) float tile[kTile];
  __shared__ uint64_t full;
  const int t = threadIdx.x;
  init(&full, 1);
  if (t == 0) {
    mbarrier_arrive_expect(&full, kBytes);
    tma_load(tile, &in, &full, 0, 0);
  }
  if (!kFaulty || t >= kWarpSize) mbarrier_wait(&full, 0);  // one warp of two forgets
  out[t] = tile[t];
  mbarrier_wait(&full, 0);
}

// One thread waits, and nothing tells the others.
template <bool kFaulty>
__global__ void wait_of_one(MAPS) {
  UNUSED_MAPS;
  __shared__ __align__(128) float tile[kTile];
  __shared__ uint64_t full;
  const int t = threadIdx.x;
  init(&full, 1);
  if (t == 0) {
    mbarrier_arrive_expect(&full, kBytes);
    tma_load(tile, &in, &full, 0, 0);
    mbarrier_wait(&full, 0);
  }
  if (kFaulty) {
    __syncwarp();  // tells the first warp alone
  } else {
    __syncthreads();
  }
  out[t] = tile[t];
}

template <bool kFaulty>
__global__ void wait_for_wrong_stage(MAPS) {
  UNUSED_MAPS;
  __shared__ __align__(128) float tiles[kStages][kTile];
  __shared__ uint64_t full[kStages];
  const int t = threadIdx.x;
  init(&full[0], 1);
  init(&full[1], 1);
  if (t == 0) {
    for (int s = 0; s < kStages; ++s) {
      mbarrier_arrive_expect(&full[s], kBytes);
      tma_load(tiles[s], &in, &full[s], 0, s);
    }
  }
  mbarrier_wait(&full[0], 0);
  out[t] = tiles[kFaulty ? 1 : 0][t];
  mbarrier_wait(&full[1], 0);
  out[kTile + t] = tiles[1][t];
}

// ---- rings ----------------------------------------------------------------------------------------------------------

enum class Ring { correct, no_empty_wait, early_release, one_lane, parity, too_many_arrivals, too_few_arrivals };

// A warp loads, two use.
template <Ring kKind>
__device__ void ring(const CUtensorMap* in, float* out) {
  __shared__ __align__(128) float tiles[kStages][kTile];
  __shared__ uint64_t full[kStages], empty[kStages];
  const int t = threadIdx.x, lane = t % kWarpSize;
  if (t == 0) {
    for (int s = 0; s < kStages; ++s) {
      mbarrier_init(&full[s], 1);
      mbarrier_init(&empty[s], kKind == Ring::too_few_arrivals ? 3 : kKind == Ring::too_many_arrivals ? 1 : 2);
    }
    mbarrier_init_fence();
  }
  __syncthreads();
  if (t >= kWorkers) {
    if (lane != 0) return;
    for (int n = 0; n < kTiles; ++n) {
      const int s = n % kStages;
      const uint32_t parity = uint32_t(n / kStages + (kKind == Ring::parity ? 0 : 1)) & 1;
      if (kKind != Ring::no_empty_wait) mbarrier_wait(&empty[s], parity);
      mbarrier_arrive_expect(&full[s], kBytes);
      tma_load(tiles[s], in, &full[s], 0, n);
    }
    return;
  }
  float sum = 0;
  for (int n = 0; n < kTiles; ++n) {
    const int s = n % kStages;
    mbarrier_wait(&full[s], uint32_t(n / kStages) & 1);
    if (kKind == Ring::early_release && lane == 0) mbarrier_arrive(&empty[s]);
    sum += tiles[s][t];
    if (kKind != Ring::one_lane) __syncwarp();
    if (kKind != Ring::early_release && lane == 0) mbarrier_arrive(&empty[s]);
  }
  out[t] = sum;
}

// The ring has to go round for the stage to be filled again, so the producer must not run ahead of the full barrier.
template <bool kFaulty>
__global__ void refill_without_empty(MAPS) {
  UNUSED_MAPS;
  __shared__ __align__(128) float tile[kTile];
  __shared__ uint64_t full, empty;
  const int t = threadIdx.x;
  init(&full, 1);
  init(&empty, kWorkers);
  float sum = 0;
  for (int n = 0; n < 3; ++n) {
    if (t == kWorkers) {
      if (!kFaulty) mbarrier_wait(&empty, uint32_t(n + 1) & 1);
      mbarrier_arrive_expect(&full, kBytes);
      tma_load(tile, &in, &full, 0, n);
    }
    if (t <= kWorkers) mbarrier_wait(&full, uint32_t(n) & 1);
    if (t < kWorkers) {
      sum += tile[t];
      mbarrier_arrive(&empty);
    }
  }
  if (t < kWorkers) out[t] = sum;
}
template <bool kFaulty>
__global__ void released_too_early(MAPS) {
  UNUSED_MAPS;
  ring<kFaulty ? Ring::early_release : Ring::correct>(&in, out);
}
template <bool kFaulty>
__global__ void one_lane_arrives(MAPS) {
  UNUSED_MAPS;
  ring<kFaulty ? Ring::one_lane : Ring::correct>(&in, out);
}
template <bool kFaulty>
__global__ void producer_starts_at_0(MAPS) {
  UNUSED_MAPS;
  ring<kFaulty ? Ring::parity : Ring::correct>(&in, out);
}
template <bool kFaulty>
__global__ void arrivals_missing(MAPS) {
  UNUSED_MAPS;
  ring<kFaulty ? Ring::too_few_arrivals : Ring::correct>(&in, out);
}
template <bool kFaulty>
__global__ void arrivals_of_half(MAPS) {
  UNUSED_MAPS;
  ring<kFaulty ? Ring::too_many_arrivals : Ring::correct>(&in, out);
}

// Who waits is asleep when the arrivals come.
template <bool kFaulty>
__global__ void released_twice(MAPS) {
  UNUSED_MAPS;
  __shared__ uint64_t empty;
  const int t = threadIdx.x;
  init(&empty, 1);
  if (t == 0) {
    mbarrier_try_wait(&empty, 0);  // in vain: when nobody else can go on
    mbarrier_arrive(&empty);
    if (kFaulty) mbarrier_arrive(&empty);
  } else {
    mbarrier_wait(&empty, 0);
  }
  out[t] = float(t);
}

// Every thread announces the bytes and arrives, where one should.
template <bool kFaulty>
__global__ void arrives_too_often(MAPS) {
  UNUSED_MAPS;
  __shared__ __align__(128) float tile[kTile];
  __shared__ uint64_t full;
  const int t = threadIdx.x;
  init(&full, 1);
  if (t == 0) {
    mbarrier_arrive_expect(&full, kBytes);
    tma_load(tile, &in, &full, 0, 0);
    if (kFaulty) mbarrier_arrive(&full);
  }
  mbarrier_wait(&full, 0);
  out[t] = tile[t];
}

template <bool kFaulty>
__global__ void expects_too_much(MAPS) {
  UNUSED_MAPS;
  __shared__ __align__(128) float tile[kTile];
  __shared__ uint64_t full;
  const int t = threadIdx.x;
  init(&full, 1);
  if (t == 0) {
    mbarrier_arrive_expect(&full, kFaulty ? 2 * kBytes : kBytes);
    tma_load(tile, &in, &full, 0, 0);
  }
  mbarrier_wait(&full, 0);
  out[t] = tile[t];
}

template <bool kFaulty>
__global__ void expects_too_little(MAPS) {
  UNUSED_MAPS;
  __shared__ __align__(128) float tiles[2][kTile];
  __shared__ uint64_t full;
  const int t = threadIdx.x;
  init(&full, 1);
  if (t == 0) {
    mbarrier_arrive_expect(&full, kFaulty ? kBytes : 2 * kBytes);
    tma_load(tiles[0], &in, &full, 0, 0);
    tma_load(tiles[1], &in, &full, 0, 1);
  }
  mbarrier_wait(&full, 0);
  out[t] = tiles[0][t];
}

template <bool kFaulty>
__global__ void expects_half_a_box(MAPS) {
  UNUSED_MAPS;
  __shared__ __align__(128) float tile[kTile];
  __shared__ uint64_t full;
  const int t = threadIdx.x;
  init(&full, 1);
  if (t == 0) {
    mbarrier_arrive_expect(&full, kFaulty ? kBytes / 2 : kBytes);
    tma_load(tile, &in, &full, kTile / 2, 0);  // half of it is outside: it counts whole
  }
  mbarrier_wait(&full, 0);
  out[t] = tile[t];
}

// A loop around a test that gives up is a wait as well: the copy that it waits for was never asked for.
template <bool kFaulty>
__global__ void polls_for_ever(MAPS) {
  UNUSED_MAPS;
  __shared__ __align__(128) float tile[kTile];
  __shared__ uint64_t full;
  const int t = threadIdx.x;
  init(&full, 1);
  if (t == 0) {
    mbarrier_arrive_expect(&full, kBytes);
    if (!kFaulty) tma_load(tile, &in, &full, 0, 0);
  }
  while (!mbarrier_try_wait(&full, 0)) {
  }
  out[t] = tile[t];
}

// ---- initialisation -------------------------------------------------------------------------------------------------

template <bool kFaulty>
__global__ void init_not_shown(MAPS) {
  UNUSED_MAPS;
  __shared__ __align__(128) float tile[kTile];
  __shared__ uint64_t full;
  const int t = threadIdx.x;
  if (t == 0) {
    mbarrier_init(&full, 1);
    mbarrier_init_fence();
    mbarrier_arrive_expect(&full, kBytes);
    tma_load(tile, &in, &full, 0, 0);
  }
  if (kFaulty) {
    named_sync(1 + t / kWarpSize, kWarpSize);  // each warp on its own
  } else {
    __syncthreads();
  }
  if (t == 0 || t == kWarpSize) mbarrier_wait(&full, 0);
}

template <bool kFaulty>
__global__ void init_without_fence(MAPS) {
  UNUSED_MAPS;
  __shared__ __align__(128) float tile[kTile];
  __shared__ uint64_t full;
  const int t = threadIdx.x;
  if (t == 0) {
    mbarrier_init(&full, 1);
    if (!kFaulty) mbarrier_init_fence();
  }
  __syncthreads();
  if (t == kWarpSize) {
    mbarrier_arrive_expect(&full, kBytes);
    tma_load(tile, &in, &full, 0, 0);
  }
  mbarrier_wait(&full, 0);
  out[t] = tile[t];
}

template <bool kFaulty>
__global__ void init_by_all(MAPS) {
  UNUSED_MAPS;
  __shared__ uint64_t full;
  const int t = threadIdx.x;
  if (kFaulty || t == 0) mbarrier_init(&full, kWorkers);
  __syncthreads();
  mbarrier_arrive(&full);
  mbarrier_wait(&full, 0);
}

template <bool kFaulty>
__global__ void never_initialised(MAPS) {
  UNUSED_MAPS;
  __shared__ uint64_t full[2];
  init(&full[0], kWorkers);
  mbarrier_arrive(&full[kFaulty ? 1 : 0]);
  mbarrier_wait(&full[0], 0);
}

template <bool kFaulty>
__global__ void bytes_of_a_barrier(MAPS) {
  UNUSED_MAPS;
  __shared__ uint64_t full[2];
  init(&full[0], kWorkers);
  if (threadIdx.x == 0) full[kFaulty ? 0 : 1] = 0;
  mbarrier_arrive(&full[0]);
  mbarrier_wait(&full[0], 0);
}

// ---- stores ---------------------------------------------------------------------------------------------------------

enum class Store { correct, no_fence, rewritten, not_waited, read_too_early };

template <Store kKind>
__device__ void store(const CUtensorMap* out_map, float* out) {
  __shared__ __align__(128) float tile[kTile];
  const int t = threadIdx.x;
  for (int n = 0; n < 3; ++n) {
    tile[t] = float(n * t);
    if (kKind != Store::no_fence) fence_async();
    __syncthreads();
    if (t == 0) {
      tma_store(out_map, tile, 0, n);
      bulk_commit();
      if (kKind != Store::rewritten && (kKind != Store::not_waited || n < 2)) bulk_wait_read<0>();
    }
    __syncthreads();
  }
  if (t == 0 && kKind == Store::rewritten) bulk_wait_read<0>();
  if (kKind == Store::read_too_early || kKind == Store::correct) {
    if (t == 0 && kKind == Store::correct) bulk_wait<0>();
    __syncthreads();
    out[4 * kTile + t] = out[kTile + t];
  }
}

template <bool kFaulty>
__global__ void store_without_fence(MAPS) {
  UNUSED_MAPS;
  store<kFaulty ? Store::no_fence : Store::correct>(&out_map, out);
}
template <bool kFaulty>
__global__ void store_rewritten(MAPS) {
  UNUSED_MAPS;
  store<kFaulty ? Store::rewritten : Store::correct>(&out_map, out);
}
template <bool kFaulty>
__global__ void ends_while_read(MAPS) {
  UNUSED_MAPS;
  store<kFaulty ? Store::not_waited : Store::correct>(&out_map, out);
}
template <bool kFaulty>
__global__ void stored_read_too_early(MAPS) {
  UNUSED_MAPS;
  store<kFaulty ? Store::read_too_early : Store::correct>(&out_map, out);
}

// The fence of the thread that starts the copy will do as well, once it knows of the others' writes; but not before.
template <bool kFaulty>
__global__ void fence_before_barrier(MAPS) {
  UNUSED_MAPS;
  __shared__ __align__(128) float tile[kTile];
  const int t = threadIdx.x;
  tile[t] = float(t);
  if (kFaulty && t == 0) fence_async();
  __syncthreads();
  if (t == 0) {
    if (!kFaulty) fence_async();
    tma_store(&out_map, tile, 0, 0);
    bulk_commit();
    bulk_wait_read<0>();
  }
}

// Another warp writes the buffer again: it must learn that it was read.
template <bool kFaulty>
__global__ void read_wait_not_told(MAPS) {
  UNUSED_MAPS;
  __shared__ __align__(128) float tile[kTile];
  const int t = threadIdx.x;
  tile[t] = float(t);
  fence_async();
  __syncthreads();
  if (t == 0) {
    tma_store(&out_map, tile, 0, 0);
    bulk_commit();
    bulk_wait_read<0>();
  }
  if (!kFaulty) __syncthreads();
  tile[t] = float(2 * t);
}

// ---- places and boxes -----------------------------------------------------------------------------------------------

template <bool kFaulty>
__global__ void tile_in_the_pattern(const __grid_constant__ CUtensorMap in) {
  unsigned char* tiles = dynamic_shared_tiles<unsigned char>();
  __shared__ uint64_t full;
  init(&full, 1);
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(&full, 1024);
    tma_load(tiles + (kFaulty ? 128 : 1024), &in, &full, 0, 0);
  }
  mbarrier_wait(&full, 0);
}
template <bool kFaulty>
__global__ void tile_misaligned(const __grid_constant__ CUtensorMap in) {
  unsigned char* tiles = dynamic_shared_tiles<unsigned char>();
  __shared__ uint64_t full;
  init(&full, 1);
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(&full, 1024);
    tma_load(tiles + (kFaulty ? 64 : 1024), &in, &full, 0, 0);
  }
  mbarrier_wait(&full, 0);
}
template <bool kFaulty>
__global__ void coordinates_missing(const __grid_constant__ CUtensorMap in) {
  unsigned char* tiles = dynamic_shared_tiles<unsigned char>();
  __shared__ uint64_t full;
  init(&full, 1);
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(&full, 1024);
    if (kFaulty) {
      tma_load(tiles, &in, &full, 0);
    } else {
      tma_load(tiles, &in, &full, 0, 0);
    }
  }
  mbarrier_wait(&full, 0);
}
template <bool kFaulty>
__global__ void target_past_end(const __grid_constant__ CUtensorMap in) {
  unsigned char* tiles = dynamic_shared_tiles<unsigned char>();
  __shared__ uint64_t full;
  init(&full, 1);
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(&full, 1024);
    tma_load(tiles + (kFaulty ? 2048 : 1024), &in, &full, 0, 0);
  }
  mbarrier_wait(&full, 0);
}

// Boxes that begin at byte 8 of a row, or at byte 16.
template <bool kFaulty>
__global__ void load_at_byte_8(MAPS) {
  UNUSED_MAPS;
  __shared__ __align__(128) float tile[kTile];
  __shared__ uint64_t full;
  init(&full, 1);
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(&full, kBytes);
    tma_load(tile, &in, &full, kFaulty ? 2 : 4, 0);
  }
  mbarrier_wait(&full, 0);
}
template <bool kAdds = false>
__device__ void move_out_to(const CUtensorMap* map, int column, int row) {
  __shared__ __align__(128) float tile[kTile];
  tile[threadIdx.x] = 1;
  fence_async();
  __syncthreads();
  if (threadIdx.x != 0) return;
  if (kAdds) {
    tma_reduce_add(map, tile, column, row);
  } else {
    tma_store(map, tile, column, row);
  }
  bulk_commit();
  bulk_wait_read<0>();
}
template <bool kFaulty>
__global__ void store_at_byte_8(MAPS) {
  UNUSED_MAPS;
  move_out_to(&out_map, kFaulty ? 2 : 4, 0);
}
template <bool kFaulty>
__global__ void add_at_byte_8(MAPS) {
  UNUSED_MAPS;
  move_out_to<true>(&in, kFaulty ? 2 : 4, 0);  // which is filled
}

// A store that begins a row before the tensor; and rows that end in the middle of 16 bytes.
template <bool kFaulty>
__global__ void store_before_first_row(MAPS) {
  UNUSED_MAPS;
  move_out_to(&out_map, 0, kFaulty ? -1 : 0);
}
template <bool kFaulty>
__global__ void store_over_ragged_rows(MAPS) {
  UNUSED_MAPS;
  move_out_to(&out_map, 0, 0);
}
void run_store_over_ragged_rows(bool faulty) {
  const Arrays arrays;
  const CUtensorMap map = make_tensor_map(floats(arrays.out), {faulty ? kTile - 1 : kTile - 4, kTiles}, {kBytes},
                                          {kTile, 1}, Swizzle::none);
  launch(faulty ? store_over_ragged_rows<true> : store_over_ragged_rows<false>, 1, kWorkers, 0, nullptr,
         Arrays::map(arrays.in), map, floats(arrays.out));
  flash::synchronize();
}

using SwizzledKernel = void (*)(CUtensorMap);
template <SwizzledKernel kWrong, SwizzledKernel kRight>
void run_swizzled(bool faulty) {
  const Arrays arrays;
  const CUtensorMap map = make_tensor_map(floats(arrays.in), {32, 16}, {128}, {32, 8}, Swizzle::bytes128);
  launch(faulty ? kWrong : kRight, 1, kWorkers, 2560, nullptr, map);
  flash::synchronize();
}

// The map has more rows than the array.
template <bool kFaulty>
__global__ void map_past_end(MAPS) {
  UNUSED_MAPS;
  __shared__ __align__(128) float tile[kTile];
  __shared__ uint64_t full;
  const int t = threadIdx.x;
  init(&full, 1);
  if (t == 0) {
    mbarrier_arrive_expect(&full, kBytes);
    tma_load(tile, &in, &full, 0, kTiles);
  }
  mbarrier_wait(&full, 0);
  out[t] = tile[t];
}
void run_map_past_end(bool faulty) {
  const Arrays arrays;
  launch(faulty ? map_past_end<true> : map_past_end<false>, 1, kWorkers, 0, nullptr,
         Arrays::map(arrays.in, faulty ? kTiles + 1 : kTiles), Arrays::map(arrays.out), floats(arrays.out));
  flash::synchronize();
}

// ---- named barriers -------------------------------------------------------------------------------------------------

template <bool kFaulty>
__global__ void barrier_of_two_warps(MAPS) {
  UNUSED_MAPS;
  __shared__ float value[kThreads];
  const int t = threadIdx.x, warp = t / kWarpSize;
  value[t] = float(t);
  if (warp < 2) named_sync(1, 2 * kWarpSize);
  // The third warp isn't at the barrier: neither does it wait for it, nor does it see.
  if (warp < 2) out[t] = value[kFaulty && warp == 1 ? t + kWarpSize : t ^ kWarpSize];
}

template <bool kFaulty>
__global__ void barrier_counts_differ(MAPS) {
  UNUSED_MAPS;
  const int warp = int(threadIdx.x) / kWarpSize;
  if (warp < 2) named_sync(1, kFaulty && warp == 1 ? 3 * kWarpSize : 2 * kWarpSize);
}

template <bool kFaulty>
__global__ void barrier_overtaken(MAPS) {
  UNUSED_MAPS;
  const int warp = int(threadIdx.x) / kWarpSize;
  if (warp == 0) {
    named_arrive(1, 3 * kWarpSize);
    named_arrive(kFaulty ? 1 : 2, 3 * kWarpSize);
  } else {
    named_sync(1, 3 * kWarpSize);
    named_sync(kFaulty ? 1 : 2, 3 * kWarpSize);
  }
}

template <bool kFaulty>
__global__ void barrier_never_full(MAPS) {
  UNUSED_MAPS;
  const int warp = int(threadIdx.x) / kWarpSize;
  if (warp < 2) named_sync(1, kFaulty ? 3 * kWarpSize : 2 * kWarpSize);
}

// ---- wgmma ----------------------------------------------------------------------------------------------------------

enum class Product { correct, refilled, released, not_fenced, not_waited, warps_apart, descriptors_differ };
constexpr int kSide = 64, kMatrixBytes = kSide * kSide * 2;

// D = A B^T of two 64 x 64 matrices; then the second is loaded again.
template <Product kKind>
__device__ void multiply(const CUtensorMap* map, float* out) {
  unsigned char *a = dynamic_shared_tiles<unsigned char>(), *b = a + kMatrixBytes;
  __shared__ uint64_t full[2], empty;
  const int t = threadIdx.x, warp = t / kWarpSize;
  init(&full[0], 1);
  init(&full[1], 1);
  init(&empty, kWarpgroup);
  if (t == 0) {
    mbarrier_arrive_expect(&full[0], 2 * kMatrixBytes);
    tma_load(a, map, &full[0], 0, 0);
    tma_load(b, map, &full[0], 0, 0);
  }
  mbarrier_wait(&full[0], 0);
  if (t == 0) *reinterpret_cast<uint32_t*>(b) = 0;
  if (kKind != Product::not_fenced) fence_async();
  __syncthreads();
  const uint64_t a_at = wgmma_descriptor(a, Swizzle::bytes128, 16, 1024);
  uint64_t b_at = wgmma_descriptor(b, Swizzle::bytes128, 16, 1024);
  if (kKind == Product::descriptors_differ && warp == 2) b_at += 2;
  float d[kSide / 2];
  wgmma_fence();
  for (int k = 0; k < 4; ++k) Wgmma<kSide, __nv_bfloat16>::template ss<0, 0>(d, a_at + 2 * k, b_at + 2 * k, k > 0);
  if (kKind == Product::warps_apart && warp == 3) {
    wgmma_commit();
  } else {
    wgmma_commit();
  }
  if (kKind == Product::not_waited) return;
  if (kKind == Product::released) mbarrier_arrive(&empty);
  if (kKind != Product::refilled && kKind != Product::released) {
    wgmma_wait<0>();
    mbarrier_arrive(&empty);
  }
  if (t == 0) {
    if (kKind != Product::refilled) mbarrier_wait(&empty, 0);
    mbarrier_arrive_expect(&full[1], kMatrixBytes);
    tma_load(b, map, &full[1], 0, 0);
  }
  if (kKind == Product::refilled || kKind == Product::released) wgmma_wait<0>();
  pin(d);
  mbarrier_wait(&full[1], 0);
  out[t] = d[0];
}

// Two groups of products; b is the newer one's. The producer comes long after both are done, and nothing has told it.
template <bool kFaulty>
__global__ void released_with_the_older(const __grid_constant__ CUtensorMap map, float* out) {
  unsigned char *a = dynamic_shared_tiles<unsigned char>(), *b = a + kMatrixBytes;
  __shared__ uint64_t full[2], empty;
  const int t = threadIdx.x;
  init(&full[0], 1);
  init(&full[1], 1);
  init(&empty, kWarpgroup);
  if (t > kWarpgroup) return;
  if (t == kWarpgroup) {
    mbarrier_arrive_expect(&full[0], 2 * kMatrixBytes);
    tma_load(a, &map, &full[0], 0, 0);
    tma_load(b, &map, &full[0], 0, 0);
    mbarrier_wait(&empty, 0);
    mbarrier_try_wait(&full[1], 0);  // in vain: when nobody else can go on
    mbarrier_arrive_expect(&full[1], kMatrixBytes);
    tma_load(b, &map, &full[1], 0, 0);
    return;
  }
  mbarrier_wait(&full[0], 0);
  const uint64_t a_at = wgmma_descriptor(a, Swizzle::bytes128, 16, 1024);
  const uint64_t b_at = wgmma_descriptor(b, Swizzle::bytes128, 16, 1024);
  float d[2][kSide / 2];
  wgmma_fence();
  Wgmma<kSide, __nv_bfloat16>::template ss<0, 0>(d[0], a_at, a_at, 0);
  wgmma_commit();
  Wgmma<kSide, __nv_bfloat16>::template ss<0, 0>(d[1], a_at, b_at, 0);
  wgmma_commit();
  wgmma_wait<kFaulty ? 1 : 0>();
  mbarrier_arrive(&empty);
  wgmma_wait<0>();
  pin(d[0]);
  pin(d[1]);
  mbarrier_wait(&full[1], 0);
  out[t] = d[0][0] + d[1][0];
}

using ProductKernel = void (*)(CUtensorMap, float*);
#define PRODUCT(name, kind)                                                   \
  template <bool kFaulty>                                                     \
  __global__ void name(const __grid_constant__ CUtensorMap map, float* out) { \
    multiply<kFaulty ? Product::kind : Product::correct>(&map, out);          \
  }
PRODUCT(operand_refilled, refilled)
PRODUCT(operand_released_early, released)
PRODUCT(operand_not_fenced, not_fenced)
PRODUCT(result_never_waited, not_waited)
PRODUCT(warps_apart, warps_apart)
PRODUCT(descriptors_differ, descriptors_differ)
#undef PRODUCT

template <ProductKernel kWrong, ProductKernel kRight, int kBlock = kWarpgroup>
void run_product(bool faulty) {
  DeviceBuffer in("in", kMatrixBytes), out("out", kWarpgroup * sizeof(float));
  in.copy_from_host(std::vector<char>(kMatrixBytes).data());
  const CUtensorMap map = make_tensor_map(static_cast<const __nv_bfloat16*>(in.data()), {kSide, kSide}, {2 * kSide},
                                          {kSide, kSide}, Swizzle::bytes128);
  launch(faulty ? kWrong : kRight, 1, kBlock, 2 * kMatrixBytes, nullptr, map, floats(out));
  flash::synchronize();
}

// Accumulators and A from registers: D = A B, twice D, D += A' B.
enum class Fragments { correct, read_early, written_early, a_written_early, never_fenced, scaled, packed_late };
template <Fragments kKind>
__device__ void multiply_from_registers(const CUtensorMap* map, float* out) {
  unsigned char* b = dynamic_shared_tiles<unsigned char>();
  __shared__ uint64_t full;
  const int t = threadIdx.x;
  init(&full, 1);
  if (t == 0) {
    mbarrier_arrive_expect(&full, kMatrixBytes);
    tma_load(b, map, &full, 0, 0);
  }
  mbarrier_wait(&full, 0);
  const uint64_t b_at = wgmma_descriptor(b, Swizzle::bytes128, 16, 1024);
  float d[kSide / 2];
  uint32_t a[2][4];
  for (int i = 0; i < 4; ++i) a[0][i] = a[1][i] = uint32_t(t);
  if (kKind != Fragments::never_fenced) wgmma_fence();
  if (kKind == Fragments::packed_late) a[0][2] = 0;
  Wgmma<kSide, __nv_bfloat16>::template rs<0>(d, a[0], b_at, 0);
  wgmma_commit();
  if (kKind == Fragments::read_early) out[t] = d[1];
  if (kKind == Fragments::written_early) d[1] = 0;
  if (kKind == Fragments::a_written_early) a[0][2] = 0;
  wgmma_wait<0>();
  pin(d);
  for (float& x : d) x *= 2;
  if (kKind != Fragments::never_fenced && kKind != Fragments::scaled) wgmma_fence();
  Wgmma<kSide, __nv_bfloat16>::template rs<0>(d, a[1], b_at + 2, 1);
  wgmma_commit();
  wgmma_wait<0>();
  pin(d);
  out[t] = d[0] + float(a[0][2]);
}
#define FRAGMENTS(name, kind)                                                           \
  template <bool kFaulty>                                                               \
  __global__ void name(const __grid_constant__ CUtensorMap map, float* out) {           \
    multiply_from_registers<kFaulty ? Fragments::kind : Fragments::correct>(&map, out); \
  }
FRAGMENTS(accumulator_read_early, read_early)
FRAGMENTS(accumulator_written_early, written_early)
FRAGMENTS(a_written_early, a_written_early)
FRAGMENTS(never_fenced, never_fenced)
FRAGMENTS(accumulator_not_fenced, scaled)
FRAGMENTS(a_not_fenced, packed_late)
#undef FRAGMENTS

// Descriptors: A [64][128] with rows along k, B [128 k][128] with rows along its columns; both in two slabs of 64 columns.
enum class Walk { correct, swizzle, leading, stride, step_of_a, slab_of_a, step_of_b };
constexpr int kLong = 2 * kSide, kSlabOfA = kSide * 128, kSlabOfB = kLong * 128;
template <Walk kKind>
__device__ void multiply_slabs(const CUtensorMap* a_map, const CUtensorMap* b_map, float* out) {
  unsigned char *a = dynamic_shared_tiles<unsigned char>(), *b = a + 2 * kSlabOfA;
  __shared__ uint64_t full;
  const int t = threadIdx.x;
  init(&full, 1);
  if (t == 0) {
    mbarrier_arrive_expect(&full, 2 * kSlabOfA + 2 * kSlabOfB);
    tma_load(a, a_map, &full, 0, 0, 0);
    tma_load(b, b_map, &full, 0, 0, 0);
  }
  mbarrier_wait(&full, 0);
  const uint64_t a_at = wgmma_descriptor(a, kKind == Walk::swizzle ? Swizzle::bytes64 : Swizzle::bytes128, 16,
                                         kKind == Walk::stride ? 512 : 1024);
  const uint64_t b_at = wgmma_descriptor(b, Swizzle::bytes128, kKind == Walk::leading ? kSlabOfA : kSlabOfB, 1024);
  float d[kLong / 2];
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < kLong / 16; ++k) {
    int on_a = k / 4 * kSlabOfA + k % 4 * 32, on_b = k * 16 * 128;
    if (kKind == Walk::step_of_a) on_a = k / 4 * kSlabOfA + k % 4 * 64;
    if (kKind == Walk::slab_of_a) on_a = k * 32;
    if (kKind == Walk::step_of_b) on_b = k * 8 * 128;
    Wgmma<kLong, __nv_bfloat16>::template ss<0, 1>(d, a_at + uint64_t(on_a >> 4), b_at + uint64_t(on_b >> 4), k > 0);
  }
  wgmma_commit();
  wgmma_wait<0>();
  pin(d);
  out[t] = d[0];
}
#define WALK(name, kind)                                                                                           \
  template <bool kFaulty>                                                                                          \
  __global__ void name(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b, float* out) { \
    multiply_slabs<kFaulty ? Walk::kind : Walk::correct>(&a, &b, out);                                             \
  }
WALK(swizzles_differ, swizzle)
WALK(leading_bytes_wrong, leading)
WALK(stride_wrong, stride)
WALK(step_of_a_wrong, step_of_a)
WALK(slab_of_a_forgotten, slab_of_a)
WALK(step_of_b_wrong, step_of_b)
#undef WALK

template <Kernel kWrong, Kernel kRight>
void run_slabs(bool faulty) {
  DeviceBuffer a("a", 2 * kSlabOfA), b("b", 2 * kSlabOfB), out("out", kWarpgroup * sizeof(float));
  a.copy_from_host(std::vector<char>(a.bytes()).data());
  b.copy_from_host(std::vector<char>(b.bytes()).data());
  const auto map = [](const DeviceBuffer& array, int rows) {
    return make_tensor_map(static_cast<const __nv_bfloat16*>(array.data()), {64, rows, 2}, {2 * kLong, 128},
                           {64, rows, 2}, Swizzle::bytes128);
  };
  launch(faulty ? kWrong : kRight, 1, kWarpgroup, a.bytes() + b.bytes(), nullptr, map(a, kSide), map(b, kLong),
         floats(out));
  flash::synchronize();
}

// ---- registers ------------------------------------------------------------------------------------------------------

constexpr int kRegisterThreads = 3 * kWarpgroup;  // 168 registers each
enum class Give { correct, by_one_warp, by_nobody, too_few, wrong_way };

// One warpgroup gives registers, two take them.
template <Give kKind>
__device__ void deal_registers(float* out) {
  const int warp = int(threadIdx.x) / kWarpSize;
  if (warp < 4) {
    if (kKind == Give::by_nobody || (kKind == Give::by_one_warp && warp > 0)) return;
    if (kKind == Give::wrong_way) {
      registers_up_to<24>();
    } else {
      registers_down_to<kKind == Give::too_few ? 32 : 24>();
    }
  } else {
    registers_up_to<240>();
    out[threadIdx.x] = 1;
  }
}
#define REGISTERS(name, kind)                                         \
  template <bool kFaulty>                                             \
  __global__ void __launch_bounds__(kRegisterThreads, 1) name(MAPS) { \
    UNUSED_MAPS;                                                      \
    deal_registers<kFaulty ? Give::kind : Give::correct>(out);        \
  }
REGISTERS(registers_of_one_warp, by_one_warp)
REGISTERS(registers_never_given, by_nobody)
REGISTERS(registers_too_many, too_few)
REGISTERS(registers_up_to_less, wrong_way)
#undef REGISTERS

// ---- blocks ---------------------------------------------------------------------------------------------------------

constexpr int kBlocks = 6;

// The last block adds up what all left; partial: [kBlocks][kWorkers] and a counter that starts at 0.
template <bool kFaulty>
__global__ void last_block_adds(float* partial, unsigned* counter, float* out) {
  __shared__ bool is_last;
  const int t = threadIdx.x, b = blockIdx.x;
  partial[b * kWorkers + t] = float(b + t);
  __syncthreads();
  if (t == 0) {
    if (!kFaulty) __threadfence();
    is_last = atomicAdd(counter, 1u) == unsigned(gridDim.x - 1);
    if (!kFaulty) __threadfence();
  }
  __syncthreads();
  if (!is_last) return;
  float sum = 0;
  for (int i = 0; i < kBlocks; ++i) sum += partial[i * kWorkers + t];
  out[t] = sum;
  if (t == 0) *counter = 0;
}
// Every thread fences what it wrote, then one counts.
template <bool kFaulty>
__global__ void each_fences(float* partial, unsigned* counter, float* out) {
  __shared__ bool is_last;
  const int t = threadIdx.x, b = blockIdx.x;
  partial[b * kWorkers + t] = float(b + t);
  __threadfence();
  if (!kFaulty) __syncthreads();
  if (t == 0) is_last = atomicAdd(counter, 1u) == unsigned(gridDim.x - 1);
  __syncthreads();
  if (!is_last) return;
  float sum = 0;
  for (int i = 0; i < kBlocks; ++i) sum += partial[i * kWorkers + t];
  out[t] = sum;
}
using BlockKernel = void (*)(float*, unsigned*, float*);
template <BlockKernel kWrong, BlockKernel kRight>
void run_blocks(bool faulty) {
  DeviceBuffer partial("partial", kBlocks * kWorkers * sizeof(float)), counter("counter", sizeof(unsigned)),
      out("out", kWorkers * sizeof(float));
  const unsigned zero = 0;
  counter.copy_from_host(&zero);
  launch(faulty ? kWrong : kRight, kBlocks, kWorkers, 0, nullptr, floats(partial),
         static_cast<unsigned*>(counter.data()), floats(out));
  flash::synchronize();
}

}  // namespace

namespace flash::watch_kernels {

#define CASE(kernel, threads, kind, array, what)                                                                \
  {                                                                                                             \
#kernel, what, kind, array, [](bool faulty) { run(faulty ? kernel<true> : kernel<false>, threads); }, false \
  }
#define CASE_AND_MORE(kernel, threads, kind, array, what)                                                      \
  {                                                                                                            \
#kernel, what, kind, array, [](bool faulty) { run(faulty ? kernel<true> : kernel<false>, threads); }, true \
  }

#define SLABS_CASE(kernel, what) \
  { #kernel, what, "wgmma", "dynamic shared memory", run_slabs < kernel < true>, kernel < false>>, false }
#define PRODUCT_CASE(kernel, kind, array, what) \
  { #kernel, what, kind, array, run_product < kernel < true>, kernel < false>>, false }

const std::vector<FaultCase>& async_fault_cases() {
  static const std::vector<FaultCase> cases = {
      CASE(load_without_wait, kWorkers, "async-copy", "tile", "a TMA load's tile read before the wait"),
      CASE(wait_of_one, kWorkers, "async-copy", "tile", "one thread waits for a TMA load, and another warp isn't told"),
      CASE(wait_for_wrong_stage, kWorkers, "async-copy", "tiles", "a wait for the other stage's mbarrier"),
      CASE_AND_MORE(refill_without_empty, kThreads, "async-copy", "tile",
                    "a TMA load into a tile that others still read"),
      CASE_AND_MORE(released_too_early, kThreads, "async-copy", "tiles", "a stage released before it is read"),
      CASE_AND_MORE(one_lane_arrives, kThreads, "async-copy", "tiles",
                    "one lane arrives for its warp without a __syncwarp"),
      CASE_AND_MORE(arrivals_of_half, kThreads, "async-copy", "tiles",
                    "an mbarrier initialised with fewer arrivals than come"),
      CASE(released_twice, kWorkers, "mbarrier", "empty",
           "two phases end before a thread that waits has seen the first"),
      CASE(producer_starts_at_0, kThreads, "barrier", "", "a producer that waits for parity 0 first"),
      CASE(arrivals_missing, kThreads, "barrier", "", "an mbarrier initialised with more arrivals than come"),
      CASE(polls_for_ever, kWorkers, "barrier", "", "a copy that is announced and never asked for"),
      CASE(expects_too_much, kWorkers, "barrier", "", "more bytes announced than copied"),
      CASE_AND_MORE(expects_too_little, kWorkers, "mbarrier", "", "fewer bytes announced than copied"),
      CASE(expects_half_a_box, kWorkers, "mbarrier", "", "only the bytes inside of the tensor announced"),
      CASE(arrives_too_often, kWorkers, "mbarrier", "", "an arrival too many"),
      CASE(init_not_shown, kWorkers, "mbarrier", "full", "an mbarrier used before a barrier shows its initialisation"),
      CASE(init_without_fence, kWorkers, "proxy", "full",
           "no fence between an mbarrier's initialisation and a TMA load"),
      CASE(init_by_all, kWorkers, "mbarrier", "", "every thread initialises the mbarrier"),
      CASE(never_initialised, kWorkers, "mbarrier", "", "an mbarrier that nobody initialised"),
      CASE(bytes_of_a_barrier, kWorkers, "mbarrier", "full", "an ordinary store to an mbarrier"),
      CASE(store_without_fence, kWorkers, "proxy", "tile", "no fence_async before a TMA store"),
      CASE(fence_before_barrier, kWorkers, "proxy", "tile", "one thread fences before it knows of the others' writes"),
      CASE(store_rewritten, kWorkers, "async-copy", "tile", "a TMA store's tile rewritten before it was read"),
      CASE(read_wait_not_told, kWorkers, "async-copy", "tile", "the wait for a TMA store's reading isn't passed on"),
      CASE(ends_while_read, kWorkers, "async-copy", "", "a block ends while its tile is still being stored"),
      CASE(stored_read_too_early, kWorkers, "async-copy", "out", "what a TMA store writes is read before the wait"),
      {"tile_in_the_pattern", "a swizzled tile that begins in the middle of the pattern", "misaligned", "",
       run_swizzled<tile_in_the_pattern<true>, tile_in_the_pattern<false>>, false},
      {"tile_misaligned", "a tile at no multiple of 128", "misaligned", "",
       run_swizzled<tile_misaligned<true>, tile_misaligned<false>>, false},
      {"coordinates_missing", "fewer coordinates than the map has dimensions", "other", "",
       run_swizzled<coordinates_missing<true>, coordinates_missing<false>>, false},
      CASE(load_at_byte_8, kWorkers, "misaligned", "", "a TMA load from between two 16-byte chunks of a row"),
      CASE(store_at_byte_8, kWorkers, "misaligned", "", "a TMA store to between two 16-byte chunks of a row"),
      CASE(add_at_byte_8, kWorkers, "misaligned", "", "a TMA reduction between two 16-byte chunks of a row"),
      CASE(store_before_first_row, kWorkers, "out-of-bounds", "", "a TMA store that begins before the tensor"),
      {"store_over_ragged_rows", "a TMA store over the end of rows that aren't multiples of 16 bytes", "out-of-bounds",
       "", run_store_over_ragged_rows, false},
      {"target_past_end", "a tile that reaches past the end of shared memory", "out-of-bounds", "",
       run_swizzled<target_past_end<true>, target_past_end<false>>, false},
      {"map_past_end", "a tensor map larger than its array", "out-of-bounds", "", run_map_past_end, false},
      CASE(barrier_of_two_warps, kThreads, "race", "value", "a warp that isn't at the named barrier"),
      CASE(barrier_counts_differ, kThreads, "barrier", "", "two counts for one named barrier"),
      CASE(barrier_overtaken, kThreads, "barrier", "", "one named barrier for two purposes"),
      CASE(barrier_never_full, kThreads, "barrier", "", "a named barrier for more threads than come"),
      PRODUCT_CASE(operand_refilled, "wgmma", "dynamic shared memory",
                   "a TMA load into a tile that a wgmma still reads"),
      PRODUCT_CASE(operand_released_early, "wgmma", "dynamic shared memory",
                   "a tile released before the wait for the wgmma that reads it"),
      {"released_with_the_older", "a tile released after a wait that covers an older product only", "async-copy",
       "dynamic shared memory",
       run_product<released_with_the_older<true>, released_with_the_older<false>, kWarpgroup + kWarpSize>, false},
      PRODUCT_CASE(operand_not_fenced, "proxy", "dynamic shared memory", "no fence_async before a wgmma"),
      PRODUCT_CASE(result_never_waited, "wgmma", "", "a wgmma that nobody waits for"),
      PRODUCT_CASE(warps_apart, "barrier", "", "the warps of a warpgroup in two branches"),
      PRODUCT_CASE(descriptors_differ, "other", "", "descriptors that differ between the warps"),
      PRODUCT_CASE(accumulator_read_early, "wgmma", "", "an accumulator read before the wait"),
      PRODUCT_CASE(accumulator_written_early, "wgmma", "", "an accumulator written before the wait"),
      PRODUCT_CASE(a_written_early, "wgmma", "", "A's registers written before the wait"),
      PRODUCT_CASE(never_fenced, "wgmma", "", "no wgmma_fence before the first wgmma"),
      PRODUCT_CASE(accumulator_not_fenced, "wgmma", "", "no wgmma_fence after the accumulators were scaled"),
      PRODUCT_CASE(a_not_fenced, "wgmma", "", "A's registers written after the wgmma_fence"),
      SLABS_CASE(swizzles_differ, "a descriptor with another swizzle than the tile"),
      SLABS_CASE(leading_bytes_wrong, "a descriptor with the wrong leading bytes"),
      SLABS_CASE(stride_wrong, "a descriptor with the wrong stride"),
      SLABS_CASE(step_of_a_wrong, "the next 16 k of A begin too late"),
      SLABS_CASE(slab_of_a_forgotten, "after 64 k A goes on in the next row, not in the next slab"),
      SLABS_CASE(step_of_b_wrong, "the next 16 k of B begin too early"),
      CASE(registers_of_one_warp, kRegisterThreads, "barrier", "", "one warp of a warpgroup gives registers, not four"),
      CASE(registers_never_given, kRegisterThreads, "barrier", "", "registers taken that nobody gives"),
      CASE(registers_too_many, kRegisterThreads, "barrier", "", "more registers taken than given"),
      CASE(registers_up_to_less, kRegisterThreads, "other", "", "registers_up_to fewer than the threads have"),
      {"last_block_adds", "no __threadfence before the atomic that says a block is done", "race", "",
       run_blocks<last_block_adds<true>, last_block_adds<false>>, false},
      {"each_fences", "no barrier between the fences of a block and its atomic", "race", "partial",
       run_blocks<each_fences<true>, each_fences<false>>, false},
  };
  return cases;
}

}  // namespace flash::watch_kernels
