// ptx/tma.cuh on the CPU back end.
#pragma once

#include "common/emu/instructions/cuda_emu.h"
#include "common/emu/run/tensor_map.h"

namespace flash::emu {

enum class Tma { load, store, reduce };
// `barrier`: of a load alone.
void tma(Tma, const CUtensorMap*, const void* shared, const void* barrier, int rank, int c0, int c1, int c2, int c3,
         int c4, const char* file, int line);
void bulk(Tma, const void* global, const void* shared, const void* barrier, uint32_t bytes, const char* file, int line);
void bulk_commit();
void bulk_wait(int groups_open, bool read_only);

}  // namespace flash::emu

namespace {

#define EMU_PARAMETERS(...) __VA_ARGS__
#define EMU_TMA(rank, parameters, ...)                                                                              \
  EMU_INLINE void tma_load(void* shared, const CUtensorMap* map, uint64_t* barrier, EMU_PARAMETERS parameters,      \
                           EMU_CALL_SITE) {                                                                         \
    flash::emu::tma(flash::emu::Tma::load, map, shared, barrier, rank, __VA_ARGS__, file, line);                    \
  }                                                                                                                 \
  EMU_INLINE void tma_load_hint(void* shared, const CUtensorMap* map, uint64_t* barrier, uint64_t /*policy*/,       \
                                EMU_PARAMETERS parameters, EMU_CALL_SITE) {                                         \
    flash::emu::tma(flash::emu::Tma::load, map, shared, barrier, rank, __VA_ARGS__, file, line);                    \
  }                                                                                                                 \
  EMU_INLINE void tma_store(const CUtensorMap* map, const void* shared, EMU_PARAMETERS parameters, EMU_CALL_SITE) { \
    flash::emu::tma(flash::emu::Tma::store, map, shared, nullptr, rank, __VA_ARGS__, file, line);                   \
  }                                                                                                                 \
  EMU_INLINE void tma_reduce_add(const CUtensorMap* map, const void* shared, EMU_PARAMETERS parameters,             \
                                 EMU_CALL_SITE) {                                                                   \
    flash::emu::tma(flash::emu::Tma::reduce, map, shared, nullptr, rank, __VA_ARGS__, file, line);                  \
  }
EMU_TMA(1, (int c0), c0, 0, 0, 0, 0)
EMU_TMA(2, (int c0, int c1), c0, c1, 0, 0, 0)
EMU_TMA(3, (int c0, int c1, int c2), c0, c1, c2, 0, 0)
EMU_TMA(4, (int c0, int c1, int c2, int c3), c0, c1, c2, c3, 0)
EMU_TMA(5, (int c0, int c1, int c2, int c3, int c4), c0, c1, c2, c3, c4)
#undef EMU_TMA
#undef EMU_PARAMETERS

EMU_INLINE void tma_prefetch_map(const CUtensorMap*) {}

EMU_INLINE void bulk_load(void* shared, const void* global, uint32_t bytes, uint64_t* barrier, EMU_CALL_SITE) {
  flash::emu::bulk(flash::emu::Tma::load, global, shared, barrier, bytes, file, line);
}
EMU_INLINE void bulk_store(void* global, const void* shared, uint32_t bytes, EMU_CALL_SITE) {
  flash::emu::bulk(flash::emu::Tma::store, global, shared, nullptr, bytes, file, line);
}
EMU_INLINE void bulk_reduce_add(float* global, const float* shared, uint32_t bytes, EMU_CALL_SITE) {
  flash::emu::bulk(flash::emu::Tma::reduce, global, shared, nullptr, bytes, file, line);
}
EMU_INLINE void bulk_commit() { flash::emu::bulk_commit(); }
template <int kGroupsOpen>
EMU_INLINE void bulk_wait_read() {
  flash::emu::bulk_wait(kGroupsOpen, true);
}
template <int kGroupsOpen>
EMU_INLINE void bulk_wait() {
  flash::emu::bulk_wait(kGroupsOpen, false);
}

}  // namespace
