#include "common/emu/run/product.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "common/emu/run/engine.h"
#include "common/problem/dtype.h"

namespace flash::emu {
namespace {

constexpr unsigned kRows = 64, kDepth = 16;

float to_float(bool bf16, uint16_t bits) { return bf16 ? bf16_to_float(bits) : fp16_to_float(bits); }

// Thread 32 w + 4 g + t holds rows 16 w + g and + 8, columns 8 j + 2 t and + 1 of D: mma's map (ptx/mma.cuh), n / 8 times.
unsigned first_row(unsigned thread) { return thread / 32 * 16 + thread % 32 / 4; }
unsigned first_column(unsigned thread) { return thread % 4 * 2; }

// visit(element of the thread's, element of d)
template <class Visit>
void for_each_accumulator(unsigned thread, unsigned n, Visit visit) {
  const unsigned row = first_row(thread), column = first_column(thread);
  for (unsigned i = 0; i < n / 2; ++i) visit(i, (row + i / 2 % 2 * 8) * n + i / 4 * 8 + column + i % 2);
}

// An operand from shared memory, [k][mn] or [mn][k].
void gather(const Block& block, const Wgmma& op, uint64_t descriptor, bool transposed, unsigned size, bool k_first,
            float* out) {
  const size_t shared_bytes = size_t(block.dynamic_end - block.dynamic_begin);
  for (unsigned mn = 0; mn < size; mn += transposed ? 8 : 1) {
    for (unsigned k = 0; k < kDepth; k += transposed ? 1 : 8) {
      const uint32_t at = operand_address(descriptor, transposed, mn, k);
      if (at + 16 > shared_bytes) {
        stop_engine("out-of-bounds",
                    to_string(op.site) + ": a descriptor of this wgmma takes row " + std::to_string(mn) + ", k " +
                        std::to_string(k) + " from byte " + std::to_string(at) +
                        " of the dynamic shared memory, which has " + std::to_string(shared_bytes),
                    op.site);
      }
      uint16_t bits[8];
      std::memcpy(bits, block.dynamic_begin + at, 16);
      float* const first = out + (k_first ? k * size + mn : mn * kDepth + k);
      const unsigned step = transposed == k_first ? 1 : k_first ? size : kDepth;
      for (unsigned e = 0; e < 8; ++e) first[e * step] = to_float(op.bf16, bits[e]);
    }
  }
}

#if defined(__x86_64__)  // chosen when the program starts; the same bits either way, for neither fuses
#define FOR_EACH_CPU __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_CPU
#endif
typedef float Eight __attribute__((vector_size(32), aligned(4), may_alias));

// d [64][n] += a [64][16] b [16][n]. Blocks of 4 x 8 sums stay in registers.
FOR_EACH_CPU void add_product(const float* a, const float* b, float* d, unsigned n) {
  for (unsigned i = 0; i < kRows; i += 4) {
    const float *a0 = a + i * kDepth, *a1 = a0 + kDepth, *a2 = a1 + kDepth, *a3 = a2 + kDepth;
    for (unsigned j = 0; j < n; j += 8) {
      const auto at = [&](unsigned row) -> Eight& { return *reinterpret_cast<Eight*>(d + (i + row) * n + j); };
      Eight d0 = at(0), d1 = at(1), d2 = at(2), d3 = at(3);
      for (unsigned k = 0; k < kDepth; ++k) {
        const Eight row = *reinterpret_cast<const Eight*>(b + k * n + j);
        d0 += a0[k] * row, d1 += a1[k] * row, d2 += a2[k] * row, d3 += a3[k] * row;
      }
      at(0) = d0, at(1) = d1, at(2) = d2, at(3) = d3;
    }
  }
}

}  // namespace

uint32_t operand_address(uint64_t descriptor, bool transposed, unsigned mn, unsigned k) {
  const auto field = [&](int bit) { return uint32_t(descriptor >> bit & 0x3fff) << 4; };
  const uint32_t start = field(0), leading = field(16), stride = field(32);
  const unsigned mode = unsigned(descriptor >> 62);  // 0 none, 1 128 bytes, 2 64 bytes, 3 32 bytes
  if (mode == 0) {                                   // 8 x 16 bytes are 128 bytes in one piece
    if (transposed) return start + mn / 8 * stride + k / 8 * leading + k % 8 * 16 + mn % 8 * 2;
    return start + mn / 8 * stride + k / 8 * leading + mn % 8 * 16 + k % 8 * 2;
  }
  const uint32_t row = 256u >> mode;  // bytes
  const unsigned width = row / 2;     // elements
  const unsigned along = transposed ? mn : k, across = transposed ? k : mn;
  const uint32_t at = start + across / 8 * stride + across % 8 * row + along / width * leading + along % width * 2;
  return at ^ (at >> 7 & (row / 16 - 1)) << 4;
}

void Accumulators::take(unsigned thread, float* from) {
  at[thread] = from;
  for_each_accumulator(thread, unsigned(n), [&](unsigned i, unsigned place) { d[place] = from[i]; });
  std::fill(from, from + n / 2, std::numeric_limits<float>::signaling_NaN());
}

void Accumulators::give_back(unsigned thread) const {
  for_each_accumulator(thread, unsigned(n), [&](unsigned i, unsigned place) { at[thread][i] = d[place]; });
}

void multiply(const Block& block, const Wgmma& op, const uint32_t* const a_of_threads[kWarpgroup]) {
  const unsigned n = unsigned(op.n);
  float a[kRows * kDepth], b[kDepth * 256];
  gather(block, op, op.b_descriptor, op.trans_b, n, true, b);
  if (op.a_from_registers) {
    for (unsigned t = 0; t < kWarpgroup; ++t) {
      for_each_accumulator(t, kDepth, [&](unsigned i, unsigned place) {
        a[place] = to_float(op.bf16, uint16_t(a_of_threads[t][i / 4 * 2 + i / 2 % 2] >> 16 * (i % 2)));
      });
    }
  } else {
    gather(block, op, op.a_descriptor, op.trans_a, kRows, false, a);
  }
  Accumulators& to = *op.accumulators;
  if (!op.accumulate) std::fill(to.d.begin(), to.d.end(), 0.0f);
  add_product(a, b, to.d.data(), n);
}

}  // namespace flash::emu
