// What mbarriers, named barriers, fences and the engine that copies (common/emu/run/engine.h) tell the watcher: who
// knows of what from now on (knowledge.h), and which memory is being read or written meanwhile. As watch.h: every
// function returns at once where the running launch isn't watched.
#pragma once
#include "common/emu/run/copies.h"
#include "common/emu/run/runtime.h"
#include "common/emu/run/warpgroups.h"

namespace flash::emu {

// `barrier`: its index in the block's table. used: by any instruction but init; a fault where the thread needn't see
// the initialisation.
void watch_mbarrier_init(Thread&, unsigned barrier, const void* at, CallSite);
void watch_mbarrier_used(Thread&, unsigned barrier, CallSite);
void watch_mbarrier_gone(unsigned barrier, const void* at);
void watch_mbarrier_arrived(Thread&, unsigned barrier);
void watch_mbarrier_phase_ended(unsigned barrier);
// The next phase ends before a thread that waited for the last one has gone on.
void watch_mbarrier_overrun(const Thread&, unsigned barrier);
void watch_mbarrier_passed(Thread&, unsigned barrier);

void watch_named_arrived(Thread&, unsigned id);
void watch_named_complete(unsigned id);
void watch_named_passed(Thread&, unsigned id);

void watch_fence_async(Thread&);
void watch_fence_mbarrier_init(Thread&);

// From its issue on a load's target is being written, until its bytes have landed *and* a thread has passed its
// mbarrier. A store's source is being read until its thread has waited for that; its target is being written until that
// thread has waited for the write.
void watch_copy_issued(Thread&, const BulkCopy&);
void watch_copy_landed(const BulkCopy&);
void watch_copy_has_read(Thread&, const BulkCopy&);
void watch_copy_has_written(Thread&, const BulkCopy&);

// A product of a warpgroup reads its operands in shared memory from its issue until a wait covers it; done: the oldest
// `count` of those issued.
void watch_wgmma_issued(const Block&, unsigned warpgroup, const Wgmma&);
void watch_wgmma_done(unsigned warpgroup, size_t count);

// Its registers, a thread's: accumulators may be touched when they are delivered, A written when the product has read it.
// `d_flies`: a product before this one is adding to the same accumulators.
void watch_wgmma_fenced(const Block&, unsigned warpgroup);
void watch_wgmma_takes(Thread&, const Wgmma&, bool d_flies);
void watch_wgmma_has_read(const Thread&, const Wgmma&);
void watch_wgmma_delivered(const Thread&, const float* d, size_t count);

// stmatrix .x1, .x2, .x4 (`matrices`), once a lane with the row that lane named: 16 bytes of shared memory written.
void watch_stmatrix(Thread&, const void* row, int matrices, CallSite);

}  // namespace flash::emu
