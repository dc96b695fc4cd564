#include "common/emu/run/copies.h"

#include <cstring>

#include "common/emu/run/box.h"
#include "common/emu/run/engine.h"
#include "common/emu/run/shared_place.h"
#include "common/emu/run/watched.h"
#include "common/emu/run/worker.h"
#include "common/problem/dtype.h"

namespace flash::emu {
namespace {

// Adds one element of a reduction to global memory, in one step that other workers can't split.
template <class Bits, class Add>
void add_element(unsigned char* global, const unsigned char* shared, Add add) {
  Bits more;
  std::memcpy(&more, shared, sizeof more);
  auto* const target = reinterpret_cast<Bits*>(global);
  Bits old = __atomic_load_n(target, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(target, &old, add(old, more), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

void add_element(TensorElement element, unsigned char* global, const unsigned char* shared) {
  switch (element) {
    case TensorElement::fp32:
      return add_element<uint32_t>(global, shared, [](uint32_t a, uint32_t b) {
        float x, y;
        std::memcpy(&x, &a, 4), std::memcpy(&y, &b, 4);
        x += y;
        std::memcpy(&a, &x, 4);
        return a;
      });
    case TensorElement::int32:
      return add_element<uint32_t>(global, shared, [](uint32_t a, uint32_t b) { return a + b; });
    case TensorElement::fp16:
      return add_element<uint16_t>(
          global, shared, [](uint16_t a, uint16_t b) { return float_to_fp16(fp16_to_float(a) + fp16_to_float(b)); });
    default:
      return add_element<uint16_t>(
          global, shared, [](uint16_t a, uint16_t b) { return float_to_bf16(bf16_to_float(a) + bf16_to_float(b)); });
  }
}

std::string plural(size_t n, const char* noun) { return std::to_string(n) + " " + noun + (n == 1 ? "" : "s"); }

}  // namespace

const char* BulkCopy::name() const {
  switch (kind) {
    case Kind::load: return is_tensor ? "TMA load" : "bulk load";
    case Kind::store: return is_tensor ? "TMA store" : "bulk store";
    default: return is_tensor ? "TMA reduction" : "bulk reduction";
  }
}

void Copies::begin_block() {
  in_flight_.clear();
  groups_.clear();
}

// What the hardware refuses, or does to memory that isn't the program's.
void Copies::check(const Block& block, const BulkCopy& copy) const {
  const std::string what = to_string(copy.site) + ": the " + copy.name();
  const auto shared = reinterpret_cast<uintptr_t>(copy.shared);
  const char* const role = copy.kind == BulkCopy::Kind::load ? "target" : "source";
  const size_t alignment = copy.is_tensor ? 128 : 16;
  if (!in_shared_memory(block, copy.shared, copy.span())) {
    stop_engine(
        "out-of-bounds",
        what + " has a " + role + " of " + plural(copy.span(), "byte") + " at " +
            (in_shared_memory(block, copy.shared, 1) ? shared_name(block, copy.shared, 1) : "no shared memory") +
            ", which is not shared memory from begin to end",
        copy.site);
  }
  if (shared % alignment != 0) {
    stop_engine("misaligned",
                what + " has a " + role + " at " + shared_name(block, copy.shared, 1) +
                    "; its address must be a multiple of " + std::to_string(alignment),
                copy.site);
  }
  if (!copy.is_tensor) {
    if (copy.bytes % 16 != 0 || reinterpret_cast<uintptr_t>(copy.layout.data) % 16 != 0) {
      stop_engine("misaligned",
                  what + " has " + plural(copy.bytes, "byte") + " from an address that ends in " +
                      std::to_string(reinterpret_cast<uintptr_t>(copy.layout.data) % 16) +
                      "; both must be multiples of 16",
                  copy.site);
    }
  }
  const int64_t inner = int64_t(copy.coordinates[0]) * int64_t(copy.layout.stride[0]);
  if (inner % 16 != 0) {
    stop_engine(
        "misaligned",
        what + " has the innermost coordinate " + std::to_string(copy.coordinates[0]) + ", which is byte " +
            std::to_string(inner) +
            " of a row; it must be a multiple of 16 bytes (a GPU says \"an illegal instruction was encountered\")",
        copy.site);
  }
  if (copy.kind != BulkCopy::Kind::load && copy.is_tensor) {
    for (int i = 0; i < copy.layout.rank; ++i) {
      if (copy.coordinates[i] >= 0) continue;
      stop_engine(
          "out-of-bounds",
          what + " has the coordinate " + std::to_string(copy.coordinates[i]) + " in dimension " + std::to_string(i) +
              "; only a load may begin before the tensor (a GPU says \"an illegal instruction was encountered\")",
          copy.site);
    }
    const size_t element = element_bytes(copy.layout.element), row = copy.layout.dims[0] * element;
    const int64_t end = inner + int64_t(copy.layout.box[0] * element);
    if (row % 16 != 0 && inner < int64_t(row) && end > int64_t(row)) {
      stop_engine("out-of-bounds",
                  what + " goes over the end of rows of " + plural(row, "byte") + " and writes pieces of 16: " +
                      plural((16 - row % 16), "byte") + " behind each would be overwritten",
                  copy.site);
    }
  }
  if (copy.kind == BulkCopy::Kind::reduce && copy.layout.element == TensorElement::byte) {
    stop_engine("other", what + " can't add bytes", copy.site);
  }
  // The bytes inside of the tensor must be inside of its array.
  const Allocation* const array = find_allocation(copy.layout.data);
  if (array == nullptr || (copy.is_tensor && array->serial != copy.allocation)) {
    stop_engine("out-of-bounds",
                what + (copy.is_tensor ? " has a map of an array that is no device memory (any more)"
                                       : " names no device memory"),
                copy.site);
  }
  for_each_row(copy.layout, copy.coordinates, [&](const BoxRow& row) {
    if (row.global == nullptr) return;
    const int64_t begin = row.global - array->base, end = begin + int64_t(row.inside);
    if (begin >= 0 && end <= int64_t(array->bytes)) return;
    stop_engine("out-of-bounds",
                what + (copy.kind == BulkCopy::Kind::load ? " reads bytes " : " writes bytes ") +
                    std::to_string(begin) + " to " + std::to_string(end - 1) + " of " + array->label + ", which has " +
                    plural(array->bytes, "byte") +
                    (copy.is_tensor ? ": the map's dimensions and strides reach further" : ""),
                copy.site);
  });
}

void Copies::issue(Thread& thread, BulkCopy copy, const void* barrier) {
  const Block& block = *thread.block;
  copy.thread = thread.linear;
  copy.bytes = box_bytes(copy.layout);
  check(block, copy);
  if (copy.kind == BulkCopy::Kind::load) {
    copy.barrier = mbarriers_.find(barrier, "lets a copy arrive at", copy.site);
    copy.phase = mbarriers_[copy.barrier].phase;
  }
  watch_copy_issued(thread, copy);
  in_flight_.push_back(std::make_shared<BulkCopy>(copy));
  if (copy.kind == BulkCopy::Kind::load) return;
  groups_.resize(block.threads);
  groups_[thread.linear].open.push_back(in_flight_.back());
}

void Copies::commit(Thread& thread) {
  groups_.resize(thread.block->threads);
  Groups& groups = groups_[thread.linear];
  groups.committed.push_back(std::move(groups.open));
  groups.open.clear();
}

void Copies::wait(Thread& thread, size_t open, bool read_only) {
  groups_.resize(thread.block->threads);
  Groups& groups = groups_[thread.linear];
  const size_t done = groups.committed.size() > open ? groups.committed.size() - open : 0;
  for (; groups.read < done; ++groups.read) {
    for (const Copy& copy : groups.committed[groups.read]) {
      for (size_t i = 0; !copy->moved; ++i) {
        if (in_flight_[i] == copy) land(*thread.block, i);
      }
      watch_copy_has_read(thread, *copy);
    }
  }
  if (read_only) return;
  for (size_t i = 0; i < done; ++i) {
    for (const Copy& copy : groups.committed.front()) watch_copy_has_written(thread, *copy);
    groups.committed.pop_front();
    --groups.read;
  }
}

bool Copies::land_oldest_load(const Block& block) {
  for (size_t i = 0; i < in_flight_.size(); ++i) {
    if (in_flight_[i]->kind != BulkCopy::Kind::load) continue;
    land(block, i);
    return true;
  }
  return false;
}

void Copies::land_any(const Block& block, uint64_t random) { land(block, random % in_flight_.size()); }

void Copies::land(const Block& block, size_t index) {
  const Copy copy = in_flight_[index];
  in_flight_.erase(in_flight_.begin() + std::ptrdiff_t(index));
  move(*copy);
  copy->moved = true;
  if (copy->kind != BulkCopy::Kind::load) return;
  watch_copy_landed(*copy);
  if (mbarriers_.come(copy->barrier, copy->phase, uint32_t(copy->bytes))) return;
  const Mbarrier& barrier = mbarriers_[copy->barrier];
  RuntimeFault fault;
  fault.kind = "mbarrier";
  fault.here = copy->site;
  fault.other = barrier.expect_site;
  fault.message = "the " + std::string(copy->name()) + " of " + to_string(copy->site) + ", issued by thread " +
                  to_string(block.thread[copy->thread].index) + ", brings " + plural(copy->bytes, "byte") + " to " +
                  mbarriers_.name(block, copy->barrier) + ", whose phase " + std::to_string(copy->phase) +
                  " ends without all of them: " + to_string(barrier.expect_site) +
                  " announces too few. The whole box counts, also where it hangs over the tensor's edge";
  current_worker()->stop_without_thread(std::move(fault));
}

void Copies::move(const BulkCopy& copy) const {
  const auto base = reinterpret_cast<uintptr_t>(copy.shared);
  for_each_row(copy.layout, copy.coordinates, [&](const BoxRow& row) {
    const size_t row_bytes = row.before + row.inside + row.behind;
    // Piece by piece: the swizzle keeps 16 bytes together.
    for (size_t at = 0; at < row_bytes;) {
      const size_t piece = std::min(row_bytes - at, 16 - (row.offset + at) % 16);
      auto* const shared = reinterpret_cast<unsigned char*>(swizzled(copy.layout.swizzle, base + row.offset + at));
      const size_t begin = std::clamp(row.before, at, at + piece),
                   end = std::clamp(row.before + row.inside, at, at + piece);
      unsigned char* const global = row.global == nullptr ? nullptr : row.global + (begin - row.before);
      switch (copy.kind) {
        case BulkCopy::Kind::load:
          std::memset(shared, 0, piece);
          if (begin < end) std::memcpy(shared + (begin - at), global, end - begin);
          break;
        case BulkCopy::Kind::store:
          if (begin < end) std::memcpy(global, shared + (begin - at), end - begin);
          break;
        case BulkCopy::Kind::reduce: {
          const size_t element = element_bytes(copy.layout.element);
          for (size_t e = begin; e < end; e += element) {
            add_element(copy.layout.element, global + (e - begin), shared + (e - at));
          }
        }
      }
      at += piece;
    }
  });
}

std::optional<RuntimeFault> Copies::end_block(const Block& block) {
  std::optional<RuntimeFault> fault;
  const auto tell = [&](const BulkCopy& copy, const char* missing) {
    if (fault) return;
    fault.emplace();
    fault->kind = "async-copy";
    fault->here = copy.site;
    fault->message = "the block ends while the " + std::string(copy.name()) + " of " + to_string(copy.site) +
                     ", issued by thread " + to_string(block.thread[copy.thread].index) + ", " + missing;
  };
  for (const Copy& copy : in_flight_) {
    if (copy->kind == BulkCopy::Kind::load) {
      tell(*copy, "is still on its way into its shared memory: nobody has waited for its mbarrier");
    } else {
      move(*copy);
    }
  }
  for (const Groups& groups : groups_) {
    for (const Copy& copy : groups.open)
      tell(*copy, "still reads its shared memory: it is in no group (bulk_commit())");
    for (size_t i = groups.read; i < groups.committed.size(); ++i) {
      for (const Copy& copy : groups.committed[i]) {
        tell(*copy, "still reads its shared memory: that thread hasn't waited (bulk_wait_read())");
      }
    }
  }
  return fault;
}

}  // namespace flash::emu
