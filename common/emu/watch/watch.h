// emu/watch/ watches memory: hooks.cpp hears of every access, requests.* counts, shadow.* finds faults, sites.* names lines.
//
// What the instructions (common/emu/instructions) tell the watcher when they move memory in their own way. Plain
// loads and stores arrive through the compiler's hooks (hooks.cpp), atomics through Watcher::touched(). Every
// function here returns at once where the running launch isn't watched, so callers need not ask.
//
// `site` is the instruction's place in the kernel file: file and line of the caller of the function in common/kernel/ptx.
// Each is called from the fiber of a CUDA thread or from a Combine; `thread` is whose access it is.
#pragma once
#include "common/emu/run/runtime.h"

namespace flash::emu {

// cp.async, when it is issued, once a thread: checks both sides; counts `source_bytes` (0 where nothing is read) as a
// global read and `bytes` as a shared write. From now to watch_async_copy_landed() the destination is being written:
// any access to it, by any thread, is a fault of kind "async-copy".
void watch_async_copy_issued(Thread& thread, const void* shared, const void* global, int bytes, int source_bytes,
                             CallSite site);

// The same copy when it lands (the thread's cp.async.wait_group or wait_all that covers it, or the kernel's end): from
// now on a plain write of `thread`, made here; other threads may read it after a barrier.
void watch_async_copy_landed(Thread& thread, const void* shared, int bytes);

// ldmatrix .x1, .x2, .x4 (`matrices` = 1, 2, 4), once a lane with the row address that lane supplied: 16 bytes of
// shared memory read by that lane. Lanes >= 8 * matrices are ignored. Eight rows in eight different 16-byte columns of
// the 128-byte line are one wavefront. Counts the instruction as well (Event::ldmatrix is not needed).
void watch_ldmatrix(Thread& thread, const void* row, int matrices, CallSite site);

// mma.sync, once a warp, with any of its lanes.
void watch_mma(Thread& thread, CallSite site);

}  // namespace flash::emu
