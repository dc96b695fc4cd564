#include "common/emu/watch/tiles.h"

#include <algorithm>

#include "common/emu/run/box.h"

namespace flash::emu {

void Tiles::begin_block() {
  tiles_.clear();
  tags_.clear();
}

void Tiles::landed(const BulkCopy& copy, uint32_t site, uintptr_t base, size_t bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(copy.shared);
  if (!copy.is_tensor || begin < base || begin + copy.span() > base + bytes) return;
  tags_.resize(bytes / 16);
  tiles_.push_back({copy.layout, {}, site});
  std::copy(copy.coordinates, copy.coordinates + kMaxTensorDims, tiles_.back().coordinates);
  for (uint32_t chunk = 0; chunk < copy.bytes / 16; ++chunk) {
    tags_[(swizzled(copy.layout.swizzle, begin + chunk * 16) - base) / 16] = {uint32_t(tiles_.size()), chunk};
  }
}

Origin Tiles::origin(uint32_t offset) const {
  Origin origin;
  if (offset / 16 >= tags_.size() || tags_[offset / 16].tile == 0) return origin;
  const Tag tag = tags_[offset / 16];
  const Tile& tile = tiles_[tag.tile - 1];
  const TensorLayout& layout = tile.layout;
  const uint32_t element = uint32_t(layout.stride[0]), chunks = layout.box[0] * element / 16;
  origin.tile = &tile;
  origin.row = tag.chunk / chunks;
  origin.chunk = tag.chunk % chunks;
  origin.column = tile.coordinates[0] + int(origin.chunk * 16 / element);
  origin.global = int64_t(origin.column) * element;
  uint32_t rest = origin.row;
  for (int i = 1; i < layout.rank; ++i) {
    const int64_t place = tile.coordinates[i] + int64_t(rest % layout.box[i]);
    rest /= layout.box[i];
    if (i == 1) origin.tensor_row = int(place);
    origin.global += place * int64_t(layout.stride[i]);
  }
  return origin;
}

}  // namespace flash::emu
