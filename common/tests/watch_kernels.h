// Kernels that test the watcher: each planted fault beside its correct twin, and access patterns whose requests,
// sectors and bank conflicts are known. They run on both back ends, so that compute-sanitizer and Nsight Compute can be
// asked about the same kernels (common/emu/calibrate).
#pragma once
#include <functional>
#include <string>
#include <vector>

namespace flash::watch_kernels {

struct FaultCase {
  std::string name;               // "tile_load": a kernel's name; the fault and its twin share it
  std::string what;               // the mistake in words
  std::string kind;               // the Fault::kind it must be reported as
  std::string array;              // and its Fault::array; "" where any will do
  void (*run)(bool faulty);       // allocates, launches, waits; throws flash::Error if the kernel was stopped
  bool has_consequences = false;  // in some schedules what goes wrong next is told as well, under another kind
};
const std::vector<FaultCase>& fault_cases();
const std::vector<FaultCase>& async_fault_cases();  // TMA, mbarriers, named barriers: need compute capability 9.0

// One warp makes one access of `bytes` (4, 8, 16) a lane: lane l at element index[l] (of `bytes` bytes), or none where
// that is negative.
struct Pattern {
  std::string name;
  int bytes;
  std::vector<int> index;
};
const std::vector<Pattern>& patterns();

// Each launches one kernel with one block of 32 threads. The pattern's access is the only one of its kind and width in
// the kernel but for: a read of 4-byte indices and a 4-byte write a lane in global memory, both of 4 sectors; and in
// the kernels on shared memory a fill or drain of it, free of conflicts.
void run_shared_read(const Pattern&);
void run_shared_write(const Pattern&);
void run_global_read(const Pattern&);
void run_global_write(const Pattern&);
void run_atomic_add(const Pattern&);  // 4-byte patterns on global memory

void run_divergent_loop();  // lane l reads l + 1 floats, each row of 32 apart
void run_sliding_read();    // lane l reads floats l, l + 1, ... l + 31
void run_ldmatrix(int row_stride_bytes);
}  // namespace flash::watch_kernels
