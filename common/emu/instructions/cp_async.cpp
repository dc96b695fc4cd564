#include "common/emu/instructions/cp_async.h"

#include <cstdint>
#include <cstring>
#include <vector>

#include "common/emu/run/runtime.h"
#include "common/emu/watch/watch.h"

namespace flash::emu {

namespace {

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

}  // namespace flash::emu
