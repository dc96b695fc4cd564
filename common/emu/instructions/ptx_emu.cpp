#include "common/emu/instructions/ptx_emu.h"

#include <cstring>
#include <vector>

#include "common/emu/run/runtime.h"
#include "common/emu/watch/watch.h"

namespace flash::emu {
namespace {

// ---- mma ------------------------------------------------------------------------------------------------------------

struct Mma {
  bool bf16;
  Accumulators c;  // in, and the result
  MmaOperands operands;
  CallSite site;
};

// Lane 4 g + t holds, for h and w of 0 and 1 (see the drawing in ptx.cuh):
//   A[g + 8 h][2 t + 8 w + e] in half e of a[h + 2 w],   B[2 t + 8 w + e][g] in half e of b[w],
//   C[g + 8 h][2 t + e] in c[2 h + e].
void combine_mma(Block&, Warp&, uint32_t, void* const operand[kLanes]) {
  float a[16][16], b[16][8], c[16][8];
  const bool bf16 = static_cast<const Mma*>(operand[0])->bf16;
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto& mma = *static_cast<const Mma*>(operand[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int e = 0; e < 2; ++e) {
      for (int h = 0; h < 2; ++h) {
        for (int w = 0; w < 2; ++w) a[g + 8 * h][2 * t + 8 * w + e] = unpack_one(bf16, mma.operands.a[h + 2 * w], e);
        c[g + 8 * h][2 * t + e] = mma.c.c[2 * h + e];
      }
      for (int w = 0; w < 2; ++w) b[2 * t + 8 * w + e][g] = unpack_one(bf16, mma.operands.b[w], e);
    }
  }
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < 16; ++k) {
      for (int j = 0; j < 8; ++j) c[i][j] += a[i][k] * b[k][j];
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    auto& mma = *static_cast<Mma*>(operand[lane]);
    for (int h = 0; h < 2; ++h) {
      for (int e = 0; e < 2; ++e) mma.c.c[2 * h + e] = c[lane / 4 + 8 * h][2 * (lane % 4) + e];
    }
  }
  watch_mma(*current_thread(), static_cast<const Mma*>(operand[0])->site);
}

// ---- ldmatrix -------------------------------------------------------------------------------------------------------

struct Ldmatrix {
  int matrices;
  bool transposed;
  const unsigned char* row;
  Registers loaded;
  CallSite site;
};

void combine_ldmatrix(Block&, Warp& warp, uint32_t, void* const operand[kLanes]) {
  const auto& first = *static_cast<const Ldmatrix*>(operand[0]);
  unsigned short matrix[4][8][8];
  for (int lane = 0; lane < 8 * first.matrices; ++lane) {
    const auto& mine = *static_cast<const Ldmatrix*>(operand[lane]);
    watch_ldmatrix(warp.first[lane], mine.row, first.matrices, mine.site);
    if (reinterpret_cast<uintptr_t>(mine.row) % 16 != 0) {
      fail("ldmatrix at " + std::string(mine.site.file) + ":" + std::to_string(mine.site.line) + ": lane " +
           std::to_string(lane) + " names a row that is not 16-byte aligned");
    }
    std::memcpy(matrix[lane / 8][lane % 8], mine.row, 16);
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    auto& mine = *static_cast<Ldmatrix*>(operand[lane]);
    for (int i = 0; i < first.matrices; ++i) {
      const int major = lane / 4, minor = lane % 4 * 2;
      const unsigned low = first.transposed ? matrix[i][minor][major] : matrix[i][major][minor];
      const unsigned high = first.transposed ? matrix[i][minor + 1][major] : matrix[i][major][minor + 1];
      mine.loaded.r[i] = low | high << 16;
    }
  }
}

// ---- cp.async -------------------------------------------------------------------------------------------------------

struct Copy {
  unsigned char* shared;
  const unsigned char* global;
  int bytes, source_bytes;
  bool moved;  // its bytes are there already (shuffled runs)
};

// What a thread has in flight: the copies of its groups, oldest first, then those it hasn't committed yet.
struct Pipeline {
  std::vector<Copy> copies;
  std::vector<size_t> groups;  // copies in each committed group
};

// Of the block that this OS thread runs; a fiber stays on its OS thread.
struct BlockPipelines {
  uint64_t block_serial = 0;
  std::vector<Pipeline> pipelines;  // [thread]
  uint64_t random = 0;
};

Pipeline& pipeline_of(const Thread& thread, uint64_t** random = nullptr) {
  thread_local BlockPipelines of_block;
  const Block& block = *thread.block;
  if (of_block.block_serial != block.serial) {
    of_block.block_serial = block.serial;
    of_block.pipelines.assign(block.threads, {});
    of_block.random = block.launch->seed * 0x9e3779b97f4a7c15u + block.linear;
  }
  if (random != nullptr) *random = &of_block.random;
  return of_block.pipelines[thread.linear];
}

void move_bytes(Copy& copy) {
  if (copy.moved) return;
  std::memcpy(copy.shared, copy.global, copy.source_bytes);
  std::memset(copy.shared + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
  copy.moved = true;
}

// True once in three calls of a run with a seed, never of one without.
bool moves_early(const Thread& thread, uint64_t& random) {
  if (thread.block->launch->seed == 0) return false;
  random = random * 6364136223846793005u + 1442695040888963407u;
  return (random >> 33) % 3 == 0;
}

}  // namespace

Accumulators mma_m16n8k16(bool bf16, Accumulators c, MmaOperands operands, const char* file, int line) {
  Mma mma{bf16, c, operands, {file, line, __builtin_return_address(0)}};
  collective("mma.sync", kAllLanes, mma.site, &mma, combine_mma);
  return mma.c;
}

Registers ldmatrix(int matrices, bool transposed, const void* row, const char* file, int line) {
  Ldmatrix load{matrices, transposed, static_cast<const unsigned char*>(row), {}, {}};
  load.site = {file, line, __builtin_return_address(0)};
  collective("ldmatrix", kAllLanes, load.site, &load, combine_ldmatrix);
  return load.loaded;
}

void cp_async(void* shared, const void* global, int bytes, int source_bytes, const char* file, int line) {
  Thread& thread = *current_thread();
  const CallSite site{file, line, __builtin_return_address(0)};
  watch_async_copy_issued(thread, shared, global, bytes, source_bytes, site);
  if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) % bytes != 0) {
    fail("cp.async at " + std::string(file) + ":" + std::to_string(line) + ": an address is not aligned to the " +
         std::to_string(bytes) + " bytes it copies");
  }
  uint64_t* random;
  Pipeline& pipeline = pipeline_of(thread, &random);
  pipeline.copies.push_back(
      {static_cast<unsigned char*>(shared), static_cast<const unsigned char*>(global), bytes, source_bytes, false});
  if (moves_early(thread, *random)) move_bytes(pipeline.copies.back());
}

void cp_async_commit() {
  uint64_t* random;
  Pipeline& pipeline = pipeline_of(*current_thread(), &random);
  size_t committed = 0;
  for (size_t group : pipeline.groups) committed += group;
  pipeline.groups.push_back(pipeline.copies.size() - committed);
  for (size_t i = committed; i < pipeline.copies.size(); ++i) {
    if (moves_early(*current_thread(), *random)) move_bytes(pipeline.copies[i]);
  }
}

void cp_async_wait(int groups_in_flight) {
  Thread& thread = *current_thread();
  Pipeline& pipeline = pipeline_of(thread);
  size_t landed = 0;
  while (pipeline.groups.size() > size_t(groups_in_flight)) {
    landed += pipeline.groups.front();
    pipeline.groups.erase(pipeline.groups.begin());
  }
  for (size_t i = 0; i < landed; ++i) {
    move_bytes(pipeline.copies[i]);
    watch_async_copy_landed(thread, pipeline.copies[i].shared, pipeline.copies[i].bytes);
  }
  pipeline.copies.erase(pipeline.copies.begin(), pipeline.copies.begin() + landed);
}

uint32_t pack_pair(bool bf16, float low, float high) {
  return bf16 ? bf16_bits(low) | uint32_t(bf16_bits(high)) << 16 : half_bits(low) | uint32_t(half_bits(high)) << 16;
}

float unpack_one(bool bf16, uint32_t packed, int which) {
  const auto bits = static_cast<unsigned short>(packed >> 16 * which);
  return bf16 ? bf16_float(bits) : half_float(bits);
}

}  // namespace flash::emu
