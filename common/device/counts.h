// What the CPU back end saw while it watched kernels: counts a kernel and a source line, and faults.
// Filled by the watched build alone (WATCH=1); docs/emulator.md says how each count is defined.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace flash {

// Requests of one direction (read or write) in one memory space. A request is a warp's accesses at one call site, the
// k-th since the last barrier.
struct AccessCounts {
  uint64_t requests = 0;
  uint64_t bytes = 0;        // asked for, a thread at a time
  uint64_t sectors = 0;      // global: distinct 32-byte sectors, a request at a time (of atomics: docs/emulator.md)
  uint64_t tma_sectors = 0;  // of these, asked for by the copy engine, without a request
  uint64_t wavefronts = 0;   // shared: passes over the 32 banks
  uint64_t conflicts = 0;    // shared: wavefronts beyond the least the request's width needs

  AccessCounts& operator+=(const AccessCounts& other) {
    requests += other.requests, bytes += other.bytes, sectors += other.sectors;
    tma_sectors += other.tma_sectors;
    wavefronts += other.wavefronts, conflicts += other.conflicts;
    return *this;
  }
};

struct Counts {
  AccessCounts global_read, global_write, shared_read, shared_write;
  uint64_t atomics =
      0;  // a warp at a time; an atomic is a request, bytes and sectors of global_write or shared_write too
  uint64_t shuffles = 0;  // shuffles, votes and warp reductions, a warp at a time
  uint64_t barriers = 0;  // a warp at a time: a __syncthreads counts once a warp, a __syncwarp once
  uint64_t exps = 0;      // exp calls, a thread at a time
  uint64_t mmas = 0, ldmatrixes = 0, stmatrixes = 0;  // a warp at a time
  uint64_t async_copies = 0;  // cp.async, a warp at a time; their bytes are in global_read and shared_write
  // The copy engine's instructions, of boxes and of plain rows. Bytes inside of the tensor are in global_read and
  // global_write too, with their sectors; bytes of the whole boxes move to and from shared memory.
  uint64_t tma_loads = 0, tma_stores = 0, tma_reductions = 0;
  uint64_t tma_global_bytes = 0, tma_shared_bytes = 0;
  uint64_t mbarrier_arrivals = 0, mbarrier_waits = 0;  // a thread at a time
  uint64_t named_barriers = 0;                         // sync and arrive, a warp at a time
  uint64_t wgmmas = 0, wgmma_flops = 0;                // a warpgroup at a time
  uint64_t wgmma_operand_bytes = 0;                    // of these, what the tensor cores read from shared memory

  Counts& operator+=(const Counts& other) {
    global_read += other.global_read, global_write += other.global_write;
    shared_read += other.shared_read, shared_write += other.shared_write;
    atomics += other.atomics, shuffles += other.shuffles, barriers += other.barriers, exps += other.exps;
    mmas += other.mmas, ldmatrixes += other.ldmatrixes, async_copies += other.async_copies;
    stmatrixes += other.stmatrixes;
    tma_loads += other.tma_loads, tma_stores += other.tma_stores, tma_reductions += other.tma_reductions;
    tma_global_bytes += other.tma_global_bytes, tma_shared_bytes += other.tma_shared_bytes;
    mbarrier_arrivals += other.mbarrier_arrivals, mbarrier_waits += other.mbarrier_waits;
    named_barriers += other.named_barriers;
    wgmmas += other.wgmmas, wgmma_flops += other.wgmma_flops, wgmma_operand_bytes += other.wgmma_operand_bytes;
    return *this;
  }
};

// What else a kernel's wgmmas keep busy, as shares of the time that an SM's tensor cores need for them at their full rate:
// shared memory, by whom, and the unit of the exponentials. Above 1 that, and not the tensor cores, bounds the kernel.
// Rates of compute capability 9.0; all 0 without wgmma.
struct ProductShares {
  double operands = 0, tma = 0, threads = 0;  // shared memory: wgmma's operands, the copy engine, ordinary accesses
  double exps = 0;
  double shared() const { return operands + tma + threads; }
};
ProductShares product_shares(const Counts&);

struct LineCounts {
  std::string file;
  int line = 0;
  Counts counts;
  bool exact = true;  // false: lanes ran the line different numbers of times, requests are a guess ("≈")
};

struct KernelCounts {
  std::string name;
  uint64_t launches = 0, blocks = 0, threads = 0;
  Counts total;
  uint64_t distinct_read_bytes = 0, distinct_write_bytes = 0;  // global bytes touched at least once: compulsory traffic
  std::vector<LineCounts> lines;                               // by file and line
};

struct Site {
  std::string file;
  int line = 0;
};

struct WatchFault {
  std::string kind;     // "race", "out-of-bounds", "uninitialised", "misaligned", "barrier", "async-copy", "other"
  std::string message;  // the whole report, for a person
  std::string kernel;
  std::string array;   // its name where known
  Site here, other;    // other: the second access of a race
  uint64_t times = 1;  // the same pair of lines and kind is reported once and counted
};

struct WatchReport {
  bool watched = false;  // false: built with WATCH=0, nothing was counted
  std::vector<KernelCounts> kernels;
  std::vector<WatchFault> faults;
  Counts total() const {
    Counts sum;
    for (const KernelCounts& kernel : kernels) sum += kernel.total;
    return sum;
  }
};

void reset_watch_report();        // forget counts and faults
WatchReport take_watch_report();  // what was seen since; leaves it in place

}  // namespace flash
