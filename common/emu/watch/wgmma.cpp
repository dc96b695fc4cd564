// wgmma's operands in shared memory: who may write them meanwhile, and whether a descriptor goes through a tile as TMA has
// laid it out.
#include <algorithm>

#include "common/emu/run/watched.h"
#include "common/emu/watch/memory.h"
#include "common/emu/watch/sites.h"

namespace flash::emu {
namespace {

constexpr unsigned kRows = 64, kDepth = 16, kChunk = 8;  // elements; a chunk is 16 bytes

std::string number(int64_t n) { return std::to_string(n); }
const char* swizzle_bytes(unsigned mode) {
  const char* const texts[] = {"no swizzle", "a swizzle of 128 bytes", "a swizzle of 64 bytes",
                               "a swizzle of 32 bytes"};
  return texts[mode];
}

}  // namespace

// An operand as a descriptor gives it, cut into chunks of 8 elements: along a row of the tile, and from row to row.
struct MemoryWatcher::Operand {
  const char* name;
  unsigned warpgroup;
  uint64_t descriptor;
  bool transposed;  // the tile's rows go along k
  unsigned size;    // in mn
  unsigned chunks() const { return (transposed ? size : kDepth) / kChunk; }
  unsigned rows() const { return transposed ? kDepth : size; }
  unsigned mode() const { return unsigned(descriptor >> 62); }
  unsigned chunks_of_row() const { return mode() == 0 ? 1 : 16u >> mode(); }
  uint32_t at(unsigned row, unsigned chunk) const {
    return transposed ? operand_address(descriptor, true, chunk * kChunk, row)
                      : operand_address(descriptor, false, row, chunk * kChunk);
  }
  // "its row 8, k 0"
  std::string element(unsigned row, unsigned chunk) const {
    const unsigned mn = transposed ? chunk * kChunk : row, k = transposed ? row : chunk * kChunk;
    return std::string(name[0] == 'A' ? "row " : "column ") + number(mn) + ", k " + number(k);
  }
};

// TMA's, and not written over by a thread since.
Origin MemoryWatcher::origin_of(uint32_t offset) {
  const Origin origin = tiles_.origin(offset);
  if (!origin) return origin;
  const Region& region = *shared_regions_[0];
  for (size_t cell = offset >> region.shift; cell < (offset + 16) >> region.shift; ++cell) {
    if (!(region.cells[cell].write.who & kEngine)) return Origin();
  }
  return origin;
}

void MemoryWatcher::check_descriptor(const Wgmma& op, const Operand& operand) {
  const uint32_t site = site_number(op.site);
  const std::string who = std::string("wgmma: the descriptor of ") + operand.name + " at @1, in " +
                          threads_and_block(operand.warpgroup) + ", ";
  const auto place = [](const Origin& o) { return "row " + number(o.row) + ", chunk " + number(o.chunk); };
  const auto byte = [](uint32_t at) { return "byte " + number(at) + " of the dynamic shared memory"; };
  const auto tell = [&](const Origin& found, const std::string& text) {
    if (FaultRecord* record = new_fault("wgmma", shared_regions_[0].get(), site, found.tile->site)) {
      record->fault.message = who + text;
    }
  };
  const unsigned chunks = operand.chunks(), in_row = operand.chunks_of_row();
  std::vector<Origin> above(chunks), row(chunks);
  for (unsigned r = 0; r < operand.rows(); ++r, above.swap(row)) {
    for (unsigned c = 0; c < chunks; ++c) {
      const uint32_t at = operand.at(r, c);
      const Origin here = row[c] = origin_of(at);
      if (!here) continue;
      const unsigned swizzle = unsigned(here.tile->layout.swizzle), mode = swizzle == 0 ? 0 : 4 - swizzle;
      if (mode != operand.mode()) {
        return tell(here, std::string("says ") + swizzle_bytes(operand.mode()) + ", and TMA (@2) wrote " + byte(at) +
                              " with " + swizzle_bytes(mode) + ".");
      }
      const auto went = [&](const Origin& from, unsigned r0, unsigned c0, const char* wrong) {
        tell(here, "takes " + operand.element(r, c) + " from " + byte(at) + ", where TMA (@2) put " + place(here) +
                       " of its box; but " + operand.element(r0, c0) + " came from " + place(from) + ": " + wrong +
                       ".");
      };
      if (c > 0 && row[c - 1]) {  // on along the row
        const Origin& left = row[c - 1];
        const bool next_slab = c % in_row == 0;
        const bool goes_on = here.same_tensor(left) ? here.global == left.global + 16 : next_slab;
        if (!goes_on) {
          return went(left, r, c - 1,
                      next_slab ? "the leading bytes, from one swizzled column of the tile to the next, are wrong"
                                : "it doesn't begin where a row's 16 k do");
        }
      }
      if (r > 0 && above[c]) {  // down to the next row
        const Origin& up = above[c];
        const bool goes_on = here.tile == up.tile   ? here.row == up.row + 1 && here.chunk == up.chunk
                             : here.same_tensor(up) ? here.column == up.column
                                                    : true;
        if (!goes_on) {
          return went(up, r - 1, c,
                      r % 8 == 0 ? "the stride, from 8 rows to the next 8, is wrong"
                                 : "it doesn't begin where the swizzle's pattern does");
        }
      }
    }
  }
}

// From one product to the next on the same accumulators k goes on, and rows and columns of D stay.
void MemoryWatcher::check_step(const Wgmma& op, const Operand& operand, const Origin& before, const Origin& here) {
  if (!before || !here || !here.same_tensor(before)) return;
  const int element = int(here.tile->layout.stride[0]);
  int64_t k = 0, mn = 0;  // by how many it went on, as far as that can be known
  if (!operand.transposed) {
    mn = here.tensor_row - before.tensor_row;
    k = mn == 0 ? (here.global - before.global) / element : 0;
  } else {
    mn = here.column - before.column;
    k = here.tile == before.tile ? int64_t(here.row) - int64_t(before.row) : 0;
  }
  const bool mn_moved = mn % 64 != 0, k_overlaps = k != 0 && std::abs(k) < int(kDepth);
  if (!mn_moved && !k_overlaps) return;
  if (FaultRecord* record = new_fault("wgmma", shared_regions_[0].get(), site_number(op.site), here.tile->site)) {
    const auto place = [](const Origin& o) { return "row " + number(o.row) + ", chunk " + number(o.chunk); };
    record->fault.message =
        std::string("wgmma: the descriptor of ") + operand.name + " at @1, in " + threads_and_block(operand.warpgroup) +
        ", begins at " + place(here) +
        " of the box that TMA (@2) brought, and that of the product before it, on the same " + "accumulators, at " +
        place(before) + ". The next 16 k are " +
        (operand.transposed ? "16 rows further" : "2 chunks further in the row, after its end in the next slab") +
        ": the step is wrong.";
  }
}

std::string MemoryWatcher::threads_and_block(unsigned warpgroup) const {
  return "threads " + number(warpgroup * kWarpgroup) + "-" + number((warpgroup + 1) * kWarpgroup - 1) + " of block " +
         to_string(block_->index);
}

void MemoryWatcher::check_descriptors(unsigned warpgroup, const Wgmma& op) {
  if (!tiles_.any()) return;
  std::vector<Operand> operands = {{"B", warpgroup, op.b_descriptor, op.trans_b, unsigned(op.n)}};
  if (!op.a_from_registers) operands.push_back({"A", warpgroup, op.a_descriptor, op.trans_a, kRows});
  std::map<const float*, Chain>& chains = units_[warpgroup].chains;
  const auto before = chains.find(op.d);
  Chain now;
  for (const Operand& operand : operands) {
    check_descriptor(op, operand);
    Origin& start = now.start[operand.name[0] == 'A'];
    start = origin_of(operand.at(0, 0));
    if (op.accumulate && before != chains.end())
      check_step(op, operand, before->second.start[operand.name[0] == 'A'], start);
  }
  chains[op.d] = now;
}

// ---- who may write meanwhile ----------------------------------------------------------------------------------------

void MemoryWatcher::lock(const Product& product, bool locked) {
  Region& region = *shared_regions_[0];
  for (const uint32_t chunk : product.chunks) {
    for (size_t cell = chunk >> region.shift; cell < (chunk + 16) >> region.shift; ++cell) {
      Who& who = region.cells[cell].write.who;
      who = locked ? who | kLocked : who & ~kLocked;
    }
  }
}

// The four warps let one unit read the product's operands: each of them must know of what was written there.
void MemoryWatcher::check_operands(Block& block, unsigned warpgroup, const Product& product) {
  Region& region = *region_at(reinterpret_cast<uintptr_t>(block.dynamic_begin));
  region.units = (block.threads + kWarpgroup - 1) / kWarpgroup;
  region.unit_reads.resize((region.bytes + 15) / 16 * region.units);
  Access last;  // the write that was looked at last: a tile has many of the same
  for (const uint32_t chunk : product.chunks) {
    for (size_t cell = chunk >> region.shift; cell < (chunk + 16) >> region.shift; ++cell) {
      const Access write = region.cells[cell].write;
      if (write.time == last.time && ((write.who ^ last.who) & ~kLocked) == 0) continue;
      last = write;
      for (unsigned warp = 0; warp < kWarpgroup / kLanes; ++warp) {
        enter(block.thread[warpgroup * kWarpgroup + warp * kLanes]);
        if (unfenced(write, clock_.block)) report_proxy(region, cell, product.who, false, write);
        check_read<true>(region, cell, region.cells[cell], product.who, clock_.block);
      }
    }
    region.unit_reads[chunk / 16 * region.units + warpgroup] = {clock_.now, product.who};
  }
}

void MemoryWatcher::wgmma_issued(const Block& block, unsigned warpgroup, const Wgmma& op) {
  const Pause pause(*this);
  keep_rows();
  const auto [unit, is_new] = units_.try_emplace(warpgroup);
  if (is_new) unit->second.column = clock_.knowledge.new_column();
  const uint32_t site = site_number(op.site);
  copy_names_[site] = "wgmma";
  check_descriptors(warpgroup, op);
  Product product{make_who(unit->second.column, site) | kEngine, clock_.now, {}};
  const size_t shared_bytes = size_t(block.dynamic_end - block.dynamic_begin);
  const auto add = [&](const Operand& operand) {
    for (unsigned r = 0; r < operand.rows(); ++r) {
      for (unsigned c = 0; c < operand.chunks(); ++c) {
        const uint32_t at = operand.at(r, c);
        if (at + 16 <= shared_bytes) product.chunks.push_back(at);
      }
    }
  };
  product.chunks.reserve(2 * (kRows + size_t(op.n)));
  if (!op.a_from_registers) add({"A", warpgroup, op.a_descriptor, op.trans_a, kRows});
  add({"B", warpgroup, op.b_descriptor, op.trans_b, unsigned(op.n)});
  check_operands(*block_, warpgroup, product);
  Counts& counts = event_site(op.site).counts;
  ++counts.wgmmas;
  counts.wgmma_flops += 2 * kRows * kDepth * uint64_t(op.n);
  counts.wgmma_operand_bytes += 2 * kDepth * (uint64_t(op.n) + (op.a_from_registers ? 0 : kRows));
  lock(product, true);
  unit->second.in_flight.push_back(std::move(product));
  ++clock_.now;
}

void MemoryWatcher::wgmma_done(unsigned warpgroup, size_t count) {
  if (count == 0) return;  // a group without products
  const Pause pause(*this);
  Unit& unit = units_[warpgroup];
  uint32_t issued = 0;  // the newest of those that are done
  for (; count > 0; --count) {
    lock(unit.in_flight.front(), false);
    issued = unit.in_flight.front().time;
    unit.in_flight.pop_front();
  }
  for (const auto& other : units_) {
    for (const Product& product : other.second.in_flight) lock(product, true);
  }
  for (const OpenRead& read : open_reads_) {
    for_each_cell(read.begin, read.bytes, [](Region& region, size_t cell) { region.cells[cell].write.who |= kLocked; });
  }
  for (unsigned t = 0; t < kWarpgroup; ++t) {
    clock_.knowledge.learn(warpgroup * kWarpgroup + t, unit.column, issued);
  }
  ++clock_.now;
}

namespace {
bool watched() { return active_watcher() != nullptr && the_watcher.running(); }
}  // namespace

void watch_wgmma_issued(const Block& block, unsigned warpgroup, const Wgmma& op) {
  if (watched()) the_watcher.wgmma_issued(block, warpgroup, op);
}
void watch_wgmma_done(unsigned warpgroup, size_t count) {
  if (watched()) the_watcher.wgmma_done(warpgroup, count);
}

}  // namespace flash::emu
