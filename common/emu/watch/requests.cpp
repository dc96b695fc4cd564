#include "common/emu/watch/requests.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace flash::emu {

void Stream::append_slowly(uint64_t address) {
  if (length_ == 1) {
    stride_ = int64_t(address - first_);
    length_ = 2;
    next_ = address + uint64_t(stride_);
    return;
  }
  if (length_ > 1) {
    runs_.push_back({first_, stride_, length_});
    finished_ += length_;
  }
  first_ = address;
  length_ = 1;
  next_ = ~uint64_t(0);
}

const std::vector<Run>& Stream::close() {
  if (length_ > 0) {
    runs_.push_back({first_, length_ > 1 ? stride_ : 0, length_});
    finished_ += length_;
    length_ = 0;
  }
  return runs_;
}

void Stream::clear() {
  runs_.clear();
  finished_ = length_ = 0;
  next_ = ~uint64_t(0);
}

unsigned sectors(const uint64_t address[kLanes], uint32_t mask, unsigned size) {
  uint64_t touched[2 * kLanes];
  unsigned n = 0;
  bool rising = true;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const uint64_t at = address[__builtin_ctz(rest)];
    for (uint64_t s = at >> 5; s <= (at + size - 1) >> 5; ++s) {  // two only where an access is misaligned
      if (n && touched[n - 1] == s) continue;
      rising &= n == 0 || touched[n - 1] < s;
      touched[n++] = s;
    }
  }
  if (rising) return n;
  std::sort(touched, touched + n);
  return unsigned(std::unique(touched, touched + n) - touched);
}

namespace {

// The lanes of one pass: how many distinct words fall into the fullest bank.
unsigned fullest_bank(const uint64_t address[kLanes], uint32_t lanes, unsigned words) {
  uint64_t word_of[kLanes][kLanes];
  unsigned used[kLanes] = {}, most = 0;
  for (uint32_t rest = lanes; rest; rest &= rest - 1) {
    const uint64_t first = address[__builtin_ctz(rest)] >> 2;
    for (uint64_t word = first; word < first + words; ++word) {
      const unsigned bank = unsigned(word % kLanes);
      unsigned i = 0;
      while (i < used[bank] && word_of[bank][i] != word) ++i;
      if (i < used[bank]) continue;  // the same word again: broadcast
      word_of[bank][used[bank]++] = word;
      most = std::max(most, used[bank]);
    }
  }
  return most;
}

}  // namespace

unsigned atomic_sectors(const uint64_t address[kLanes], uint32_t mask, unsigned size) {
  unsigned total = 0;
  while (mask) {  // in each round every address is updated once
    uint32_t round = 0;
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      bool taken = false;
      for (uint32_t others = round; others && !taken; others &= others - 1) {
        taken = address[__builtin_ctz(others)] == address[lane];
      }
      if (!taken) round |= 1u << lane;
    }
    total += sectors(address, round, size);
    mask &= ~round;
  }
  return total;
}

namespace {

// Does lane l want the same address as lane l ^ distance, for all lanes that are there?
bool agree(const uint64_t address[kLanes], uint32_t lanes, unsigned distance) {
  for (uint32_t rest = lanes; rest; rest &= rest - 1) {
    const unsigned lane = unsigned(__builtin_ctz(rest)), other = lane ^ distance;
    if ((lanes >> other & 1) && address[lane] != address[other]) return false;
  }
  return true;
}

}  // namespace

Wavefronts wavefronts(const uint64_t address[kLanes], uint32_t mask, unsigned size, bool is_write) {
  const unsigned words = std::max(1u, size / 4);
  // 4 bytes a lane: the warp is one pass. 8: each half warp is one. 16: each quarter. But two neighbouring passes of a
  // read become one if lanes agree in pairs (l and l ^ 1, or l and l ^ 2): then they want no more than one pass holds.
  const unsigned lanes_a_pass = kLanes / words;
  Wavefronts result;
  auto pass = [&](uint32_t lanes) {
    if (!lanes) return;
    result.total += fullest_bank(address, lanes, words);
    result.least += 1;
  };
  auto lanes_from = [&](unsigned begin, unsigned count) {
    return mask & uint32_t(((uint64_t(1) << count) - 1) << begin);
  };
  if (words == 1) {
    pass(mask);
    return result;
  }
  for (unsigned begin = 0; begin < kLanes; begin += 2 * lanes_a_pass) {
    const uint32_t both = lanes_from(begin, 2 * lanes_a_pass);
    if (!is_write && (agree(address, both, 1) || agree(address, both, 2))) {
      pass(both);
    } else {
      pass(lanes_from(begin, lanes_a_pass));
      pass(lanes_from(begin + lanes_a_pass, lanes_a_pass));
    }
  }
  return result;
}

bool group_requests(Stream* const lanes[kLanes], RequestKind kind, AccessCounts& counts) {
  struct Cursor {
    const Run* run;
    const Run* end;
    uint64_t left;  // of *run
  } cursor[kLanes];
  uint64_t address[kLanes];
  int64_t stride[kLanes];
  uint32_t active = 0;
  uint64_t least = ~uint64_t(0), most = 0, accesses = 0;
  for (int l = 0; l < kLanes; ++l) {
    if (!lanes[l] || lanes[l]->count() == 0) continue;
    const std::vector<Run>& runs = lanes[l]->close();
    cursor[l] = {runs.data(), runs.data() + runs.size(), runs[0].length};
    address[l] = runs[0].first;
    stride[l] = runs[0].stride;
    active |= 1u << l;
    const uint64_t count = lanes[l]->count();
    least = std::min(least, count), most = std::max(most, count), accesses += count;
  }
  counts.bytes += accesses * kind.size;
  counts.requests += most;

  auto count_request = [&](uint64_t times) {
    if (kind.is_shared) {
      const Wavefronts w = wavefronts(address, active, kind.size, kind.is_write);
      counts.wavefronts += w.total * times;
      counts.conflicts += (w.total - w.least) * times;
    } else {
      counts.sectors += (kind.is_atomic ? atomic_sectors : sectors)(address, active, kind.size) * times;
    }
  };
  auto step = [&](uint64_t steps) {
    for (uint32_t rest = active; rest; rest &= rest - 1) {
      const int l = __builtin_ctz(rest);
      address[l] += uint64_t(stride[l]) * steps;
    }
  };

  while (active) {
    // As far as no lane's run ends, all lanes go on in even steps.
    uint64_t length = ~uint64_t(0);
    bool same_stride = true;
    const int64_t first_stride = stride[__builtin_ctz(active)];
    for (uint32_t rest = active; rest; rest &= rest - 1) {
      const int l = __builtin_ctz(rest);
      length = std::min(length, cursor[l].left);
      same_stride &= stride[l] == first_stride;
    }
    // Moving all lanes by whole sectors, or by whole words in shared memory, changes nothing: the pattern repeats.
    uint64_t period = length;
    if (same_stride) {
      const uint64_t unit = kind.is_shared ? 4 : 32;
      period = unit / std::gcd(uint64_t(first_stride < 0 ? -first_stride : first_stride), unit);
    }
    const uint64_t different = std::min(period, length);
    for (uint64_t k = 0; k < different; ++k) {
      count_request((length - k + period - 1) / period);
      step(1);
    }
    step(length - different);
    for (uint32_t rest = active; rest; rest &= rest - 1) {
      const int l = __builtin_ctz(rest);
      Cursor& at = cursor[l];
      if ((at.left -= length) > 0) continue;
      if (++at.run == at.end) {
        active &= ~(1u << l);
      } else {
        at.left = at.run->length, address[l] = at.run->first, stride[l] = at.run->stride;
      }
    }
  }
  return least == most;
}

}  // namespace flash::emu
