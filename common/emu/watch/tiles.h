// What TMA put where in the block's dynamic shared memory: by 16-byte chunk, from which box of which tensor, and the chunk's
// place in the box. With it the watcher checks that wgmma's descriptors go through a tile as TMA has laid it out.
#pragma once
#include <cstdint>
#include <deque>
#include <vector>

#include "common/emu/run/copies.h"

namespace flash::emu {

struct Tile {  // of one TMA load
  TensorLayout layout;
  int coordinates[kMaxTensorDims];
  uint32_t site;
};

// Where a chunk comes from.
struct Origin {
  const Tile* tile = nullptr;      // nullptr: not from TMA
  unsigned row = 0, chunk = 0;     // in the box, whose rows are numbered through
  int column = 0, tensor_row = 0;  // coordinates in the tensor: innermost, and the next
  int64_t global = 0;              // bytes from the tensor's begin, also where that is outside
  explicit operator bool() const { return tile != nullptr; }
  bool same_tensor(const Origin& other) const { return tile->layout.data == other.tile->layout.data; }
};

class Tiles {
 public:
  void begin_block();
  bool any() const { return !tiles_.empty(); }
  // A load has landed `offset` bytes from the begin of a shared memory of `bytes`, whose address is `base`.
  void landed(const BulkCopy&, uint32_t site, uintptr_t base, size_t bytes);
  Origin origin(uint32_t offset) const;

 private:
  struct Tag {
    uint32_t tile = 0;  // its number + 1; 0: none
    uint32_t chunk = 0;
  };
  std::deque<Tile> tiles_;  // whose places stay
  std::vector<Tag> tags_;   // [offset / 16]
};

}  // namespace flash::emu
