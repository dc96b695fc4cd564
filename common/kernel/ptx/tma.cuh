// TMA, the engine that copies between global and shared memory by itself: one thread asks, the others have nothing to do
// with it. Boxes of tensors (tensor_map.cuh says of which), or plain rows of bytes.
//
// tma_load: the box whose first element has these coordinates (innermost first), to `shared`. Its bytes count at
// `barrier` when they have landed (mbarrier.cuh): announce the whole box there, also where it hangs over the tensor's
// edge. What is outside is zeros.
//
// tma_store, tma_reduce_add: from shared to global memory; what is outside is left out. They count in groups, a thread's
// own: bulk_commit() closes one, bulk_wait_read<n>() waits until all but the newest n have read their shared memory (it
// may be overwritten), bulk_wait<n>() until they have written. Before a thread or a block ends it waits for the reading.
//
// The 128-byte swizzle: rows of 128 bytes in 8 chunks of 16; chunk c of row r lies in place c ^ (r % 8), so that a column
// of chunks falls into 8 different groups of banks. It goes by the address (bits 4-6 ^= bits 7-9), so a tile begins at a
// multiple of 1024. With 64 bytes: bits 4-5 ^= bits 7-8; with 32: bit 4 ^= bit 7.
//
//             place 0   1   2   3   4   5   6   7              place 0   1   2   3   4   5   6   7
//   row 0 |         0   1   2   3   4   5   6   7      row 4 |         4   5   6   7   0   1   2   3
//   row 1 |         1   0   3   2   5   4   7   6      row 5 |         5   4   7   6   1   0   3   2
//   row 2 |         2   3   0   1   6   7   4   5      row 6 |         6   7   4   5   2   3   0   1
//   row 3 |         3   2   1   0   7   6   5   4      row 7 |         7   6   5   4   3   2   1   0     and again
//
// Addresses in shared memory are multiples of 128 for boxes, of 16 for rows of bytes; bytes come in multiples of 16.
// The innermost coordinate, in bytes, is a multiple of 16 as well, also below 0 and behind the edge: else the card says "an
// illegal instruction was encountered" (unless the whole box is outside). A load's other coordinates are free; those of a
// store or an addition are not below 0, which ends in the same words. They write rows in pieces of 16 bytes: where a tensor's
// rows are no multiple of that, up to 15 bytes behind each would be overwritten.
#pragma once

#include "common/kernel/ptx/sm90.cuh"
#include "common/kernel/ptx/tensor_map.cuh"

namespace {

// What the L2 cache should do with the lines, for tma_load_hint.
constexpr uint64_t kEvictFirst = 0x12F0000000000000, kEvictLast = 0x14F0000000000000;

}  // namespace

#ifndef __CUDACC__
#include "common/emu/instructions/tma.h"
#else
namespace {

// The four instructions for boxes of some number of dimensions. `load`, `hint` and `store` place the coordinates, which
// come last among the operands.
#define PTX_LIST(...) __VA_ARGS__

#define PTX_TMA(dims, load, hint, store, parameters, ...)                                                             \
  __device__ __forceinline__ void tma_load(void* shared, const CUtensorMap* map, uint64_t* barrier,                   \
                                           PTX_LIST parameters) {                                                     \
    PTX_SM90(asm volatile("cp.async.bulk.tensor." dims                                                                \
                          "d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {" load              \
                          "}], [%2];" ::"r"(shared_address(shared)),                                                  \
                          "l"(map), "r"(shared_address(barrier)), __VA_ARGS__                                         \
                          : "memory"));                                                                               \
  }                                                                                                                   \
  __device__ __forceinline__ void tma_load_hint(void* shared, const CUtensorMap* map, uint64_t* barrier,              \
                                                uint64_t policy, PTX_LIST parameters) {                               \
    PTX_SM90(                                                                                                         \
        asm volatile("cp.async.bulk.tensor." dims                                                                     \
                     "d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {" hint    \
                     "}], [%2], %3;" ::"r"(shared_address(shared)),                                                   \
                     "l"(map), "r"(shared_address(barrier)), "l"(policy), __VA_ARGS__                                 \
                     : "memory"));                                                                                    \
  }                                                                                                                   \
  __device__ __forceinline__ void tma_store(const CUtensorMap* map, const void* shared, PTX_LIST parameters) {        \
    PTX_SM90(asm volatile("cp.async.bulk.tensor." dims "d.global.shared::cta.tile.bulk_group [%0, {" store            \
                          "}], [%1];" ::"l"(map),                                                                     \
                          "r"(shared_address(shared)), __VA_ARGS__                                                    \
                          : "memory"));                                                                               \
  }                                                                                                                   \
  __device__ __forceinline__ void tma_reduce_add(const CUtensorMap* map, const void* shared, PTX_LIST parameters) {   \
    PTX_SM90(asm volatile("cp.reduce.async.bulk.tensor." dims "d.global.shared::cta.add.tile.bulk_group [%0, {" store \
                          "}], [%1];" ::"l"(map),                                                                     \
                          "r"(shared_address(shared)), __VA_ARGS__                                                    \
                          : "memory"));                                                                               \
  }
PTX_TMA("1", "%3", "%4", "%2", (int c0), "r"(c0))
PTX_TMA("2", "%3, %4", "%4, %5", "%2, %3", (int c0, int c1), "r"(c0), "r"(c1))
PTX_TMA("3", "%3, %4, %5", "%4, %5, %6", "%2, %3, %4", (int c0, int c1, int c2), "r"(c0), "r"(c1), "r"(c2))
PTX_TMA("4", "%3, %4, %5, %6", "%4, %5, %6, %7", "%2, %3, %4, %5", (int c0, int c1, int c2, int c3), "r"(c0), "r"(c1),
        "r"(c2), "r"(c3))
PTX_TMA("5", "%3, %4, %5, %6, %7", "%4, %5, %6, %7, %8", "%2, %3, %4, %5, %6", (int c0, int c1, int c2, int c3, int c4),
        "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4))
#undef PTX_TMA
#undef PTX_LIST

// Asks for the map's 128 bytes early.
__device__ __forceinline__ void tma_prefetch_map(const CUtensorMap* map) {
  PTX_SM90(asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"));
}

// Rows of bytes, without a map.
__device__ __forceinline__ void bulk_load(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
  PTX_SM90(asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                            shared_address(shared)),
                        "l"(global), "r"(bytes), "r"(shared_address(barrier))
                        : "memory"));
}
__device__ __forceinline__ void bulk_store(void* global, const void* shared, uint32_t bytes) {
  PTX_SM90(asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(global),
                        "r"(shared_address(shared)), "r"(bytes)
                        : "memory"));
}
// *global += *shared, `bytes` of them, each addition in one step.
__device__ __forceinline__ void bulk_reduce_add(float* global, const float* shared, uint32_t bytes) {
  PTX_SM90(asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(global),
                        "r"(shared_address(shared)), "r"(bytes)
                        : "memory"));
}

__device__ __forceinline__ void bulk_commit() { PTX_SM90(asm volatile("cp.async.bulk.commit_group;" ::: "memory")); }
template <int kGroupsOpen>
__device__ __forceinline__ void bulk_wait_read() {
  PTX_SM90(asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kGroupsOpen) : "memory"));
}
template <int kGroupsOpen>
__device__ __forceinline__ void bulk_wait() {
  PTX_SM90(asm volatile("cp.async.bulk.wait_group %0;" ::"n"(kGroupsOpen) : "memory"));
}

}  // namespace
#endif
