#include "common/emu/instructions/tma.h"

#include "common/emu/run/worker.h"

namespace flash::emu {
namespace {

BulkCopy::Kind kind_of(Tma kind) {
  switch (kind) {
    case Tma::load: return BulkCopy::Kind::load;
    case Tma::store: return BulkCopy::Kind::store;
    default: return BulkCopy::Kind::reduce;
  }
}

BulkCopy copy_of(Tma kind, const void* shared, CallSite site) {
  BulkCopy copy;
  copy.kind = kind_of(kind);
  copy.shared = static_cast<unsigned char*>(const_cast<void*>(shared));
  copy.site = site;
  return copy;
}

Copies& copies() { return current_worker()->engine().copies; }

}  // namespace

void tma(Tma kind, const CUtensorMap* map, const void* shared, const void* barrier, int rank, int c0, int c1, int c2,
         int c3, int c4, const char* file, int line) {
  BulkCopy copy = copy_of(kind, shared, {file, line, __builtin_return_address(0)});
  copy.is_tensor = true;
  copy.layout = map->layout;
  copy.allocation = map->allocation;
  const int coordinates[] = {c0, c1, c2, c3, c4};
  std::copy(coordinates, coordinates + kMaxTensorDims, copy.coordinates);
  if (copy.layout.rank != rank) {
    stop_engine("other",
                to_string(copy.site) + ": the " + copy.name() + " names " + std::to_string(rank) +
                    " coordinates, and its map has " + std::to_string(copy.layout.rank) + " dimensions",
                copy.site);
  }
  copies().issue(*current_thread(), copy, barrier);
}

void bulk(Tma kind, const void* global, const void* shared, const void* barrier, uint32_t bytes, const char* file,
          int line) {
  BulkCopy copy = copy_of(kind, shared, {file, line, __builtin_return_address(0)});
  copy.layout.data = global;
  copy.layout.rank = 1;
  copy.layout.element = kind == Tma::reduce ? TensorElement::fp32 : TensorElement::byte;
  copy.layout.stride[0] = element_bytes(copy.layout.element);
  copy.layout.box[0] = uint32_t(bytes / copy.layout.stride[0]);
  copy.layout.dims[0] = copy.layout.box[0];
  copies().issue(*current_thread(), copy, barrier);
}

void bulk_commit() { copies().commit(*current_thread()); }
void bulk_wait(int groups_open, bool read_only) { copies().wait(*current_thread(), size_t(groups_open), read_only); }

}  // namespace flash::emu
