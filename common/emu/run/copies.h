// The engine that copies between global and shared memory by itself (TMA): boxes of tensors and plain rows of bytes.
// A copy's bytes move as late as the program allows: a load's when no thread can go on, a store's when its thread waits.
// So a missing wait gives a wrong result every time. With EMU_SEED set they move at any time.
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "common/device/tensor_layout.h"
#include "common/emu/run/runtime.h"

namespace flash::emu {

class Mbarriers;

// One instruction's copy. A plain row of bytes is a box of one dimension.
struct BulkCopy {
  enum class Kind : uint8_t { load, store, reduce };
  Kind kind = Kind::load;
  bool is_tensor = false;
  bool moved = false;  // its bytes are where they belong
  TensorLayout layout;
  uint64_t allocation = 0;  // that the map was made for
  int coordinates[kMaxTensorDims] = {};
  unsigned char* shared = nullptr;
  size_t bytes = 0;      // that count; in shared memory the swizzle of a last line may reach further: span()
  unsigned barrier = 0;  // a load's mbarrier, and the phase it was issued in
  uint64_t phase = 0;
  unsigned thread = 0;  // who issued it
  CallSite site;

  const char* name() const;  // "TMA load", "bulk store", ...
  size_t span() const { return layout.swizzle == Swizzle::none ? bytes : (bytes + 127) / 128 * 128; }
};

class Copies {
 public:
  explicit Copies(Mbarriers& mbarriers) : mbarriers_(mbarriers) {}
  void begin_block();
  // What is still on its way when the block has ended: a fault.
  std::optional<RuntimeFault> end_block(const Block&);

  // Called by the running thread. What the hardware would refuse ends the kernel.
  void issue(Thread&, BulkCopy, const void* barrier);
  void commit(Thread&);
  // At most `open` of the thread's newest groups of stores are still reading shared memory; not `read_only`: writing.
  void wait(Thread&, size_t open, bool read_only);

  bool any() const { return !in_flight_.empty(); }
  // Moves the oldest load; false: there is none. land_any: one of all.
  bool land_oldest_load(const Block&);
  void land_any(const Block&, uint64_t random);

 private:
  using Copy = std::shared_ptr<BulkCopy>;
  struct Groups {                             // of one thread's stores
    std::deque<std::vector<Copy>> committed;  // oldest first
    size_t read = 0;                          // of these: how many at the front have freed their sources
    std::vector<Copy> open;
  };
  void check(const Block&, const BulkCopy&) const;
  void land(const Block&, size_t index);
  void move(const BulkCopy&) const;

  Mbarriers& mbarriers_;
  std::vector<Copy> in_flight_;  // whose bytes haven't moved
  std::vector<Groups> groups_;   // [thread]; empty where the block has no stores
};

}  // namespace flash::emu
