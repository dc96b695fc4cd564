// From the accesses of single threads to what a warp asks of memory.
//
// The accesses of a lane at one call site, since the last barrier, are a *stream* of addresses. Kernels walk arrays in
// even steps, so a stream is kept as runs (first address, stride, length): a loop over a row is one run. The k-th
// elements of the streams of a warp's lanes make the k-th request of the warp at that site.
#pragma once
#include <cstdint>
#include <vector>

#include "common/device/counts.h"
#include "common/emu/run/runtime.h"

namespace flash::emu {

struct Run {
  uint64_t first;
  int64_t stride;
  uint64_t length;
};

class Stream {
 public:
  bool empty() const { return length_ == 0; }
  void append(uint64_t address) {
    if (address == next_) {
      next_ += uint64_t(stride_);
      ++length_;
    } else {
      append_slowly(address);
    }
  }
  uint64_t count() const { return finished_ + length_; }
  // All runs in order. Ends the last one: nothing may be appended before clear().
  const std::vector<Run>& close();
  void clear();

 private:
  void append_slowly(uint64_t address);

  uint64_t next_ = ~uint64_t(0);  // the address that would lengthen the current run; of a run of one, impossible
  int64_t stride_ = 0;
  uint64_t length_ = 0;  // of the current run
  uint64_t first_ = 0;
  uint64_t finished_ = 0;  // accesses in runs_
  std::vector<Run> runs_;
};

// Distinct 32-byte sectors that the lanes of `mask` touch, `size` bytes (1 to 16) at address[lane] each.
unsigned sectors(const uint64_t address[kLanes], uint32_t mask, unsigned size);

// Sectors that atomics on global memory move: lanes that update one address do so one after the other, so a sector
// counts as often as its busiest address has lanes.
unsigned atomic_sectors(const uint64_t address[kLanes], uint32_t mask, unsigned size);

// Wavefronts: passes over shared memory's 32 banks of 4 bytes that the request takes; `least` is what as many lanes of
// that size need without bank conflicts.
struct Wavefronts {
  unsigned total = 0, least = 0;
};
Wavefronts wavefronts(const uint64_t address[kLanes], uint32_t mask, unsigned size, bool is_write);

// What a site's accesses are, for grouping.
struct RequestKind {
  unsigned size;  // bytes a lane
  bool is_shared, is_write, is_atomic;
};

// Groups the streams of a warp at one site into requests and adds them to `counts`. lanes[l] is nullptr where lane l
// didn't run the site. False where the lanes ran it different numbers of times: the grouping is then a guess.
bool group_requests(Stream* const lanes[kLanes], RequestKind kind, AccessCounts& counts);

}  // namespace flash::emu
