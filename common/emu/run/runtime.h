// emu/run/ runs kernels on the CPU: fibers, warps, barriers, memory. emu/watch/ stands on it and watches; emu/instructions/
// stands on both and has what a kernel calls.
//
// The CPU back end from the inside: what a running CUDA thread, warp and block are, how an instruction that a warp
// executes together is built (common/emu/instructions), and what the watcher of memory is told (the watched build, WATCH=1).
// Kernels don't include this; they see cuda_emu.h. Nothing here is compiled with instrumentation.
//
// How a block runs: one OS thread (a worker) runs one block at a time. Each CUDA thread is a fiber: it runs until it
// waits (a barrier, a shuffle, ...) or returns, then the next ready one goes on, on the same OS thread. So between two
// waits a CUDA thread is never interrupted, and nothing in a block runs in parallel. A watched launch uses one worker,
// the OS thread that called launch(): the watcher needs no locks. Unwatched launches may use more (EMU_WORKERS=n).
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace flash::emu {

constexpr int kLanes = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

struct Index {
  unsigned x = 0, y = 0, z = 0;
};
std::string to_string(Index);  // "(1,0,0)"

// A place in a kernel file. `file` and `line` come from __builtin_FILE() and __builtin_LINE() of the primitive's
// caller (file == nullptr: not known); `pc` is the primitive's return address, for symbols.h or addr2line.
struct CallSite {
  const char* file = nullptr;
  int line = 0;
  const void* pc = nullptr;
};

struct Block;
struct Warp;

enum class ThreadState : uint8_t {
  ready,
  running,
  at_block_barrier,
  at_warp_barrier,
  at_collective,
  at_mbarrier,
  at_named_barrier,
  at_warpgroup,
  exited
};

struct Thread {
  Block* block = nullptr;
  Warp* warp = nullptr;
  Index index;          // threadIdx
  unsigned linear = 0;  // x + blockDim.x * (y + blockDim.y * z); the warp is linear / 32
  int lane = 0;
  ThreadState state = ThreadState::ready;
  // Where it waits, and for what ("__syncthreads", "__shfl_xor_sync", "mma.sync", ...), while it waits; the mask for
  // what a warp does together.
  const char* waits_for = nullptr;
  CallSite waits_at;
  uint32_t waits_mask = 0;
  unsigned waits_on = 0;  // which mbarrier (engine.h), named barrier or warpgroup
  bool waits_parity = false;
  // Range of the fiber's stack: addresses in it are the thread's locals.
  const unsigned char* stack_begin = nullptr;
  const unsigned char* stack_end = nullptr;
};

struct Warp {
  int index = 0;            // in the block
  uint32_t lanes = 0;       // the lanes that exist (the last warp of a block may be short)
  uint32_t exited = 0;      // the lanes that have returned
  Thread* first = nullptr;  // lane l is first[l]
  // Epochs. Order between the threads of a warp comes from __syncwarp (and __syncthreads) alone, not from shuffles,
  // votes or mma. `syncs` counts the __syncwarps any of its lanes completed in this block; `lane_syncs[l]` is the value
  // of `syncs` right after the last one that lane l took part in. With a full mask all entries are equal.
  uint32_t syncs = 0;
  uint32_t lane_syncs[kLanes] = {};
};

// A static __shared__ array: a thread_local of a kernel file, found in the executable's symbol table (symbols.h).
struct StaticShared {
  std::string name;               // "tile"
  std::string function;           // mangled name of the function it is declared in
  unsigned char* base = nullptr;  // in the TLS block of the worker that runs the block
  size_t bytes = 0;
};

// One launch(). Alive from Watcher::kernel_begin to Watcher::kernel_end.
struct Launch {
  const void* function = nullptr;  // the __global__ function
  std::string name;                // its name without parameters and "(anonymous namespace)::": "scores_kernel<64>"
  Index grid, block;
  size_t dynamic_shared_bytes = 0;
  size_t static_shared_bytes = 0;
  bool watched = false;
  uint64_t seed = 0;    // EMU_SEED; 0: in order
  uint64_t serial = 0;  // 1, 2, 3, ... over the process
};

struct Block {
  const Launch* launch = nullptr;
  Index index;          // blockIdx
  uint64_t linear = 0;  // x + gridDim.x * (y + gridDim.y * z)
  uint64_t serial = 0;  // 1, 2, 3, ... over all blocks of the process: tells one block's run from the next's
  int worker = 0;
  unsigned threads = 0;
  unsigned warps = 0;
  Thread* thread = nullptr;  // [threads]
  Warp* warp = nullptr;      // [warps]
  // Dynamic shared memory: [dynamic_begin, dynamic_end) is launch()'s shared_bytes long, 1024-byte aligned at its
  // begin; an inaccessible page follows within 1024 bytes of its end.
  unsigned char* dynamic_begin = nullptr;
  unsigned char* dynamic_end = nullptr;
  // The worker's TLS block: static __shared__ arrays lie in it. `statics` are those of the kernel's object file.
  unsigned char* tls_begin = nullptr;
  unsigned char* tls_end = nullptr;
  const std::vector<StaticShared>* statics = nullptr;
  // Epoch: how many __syncthreads (or _count, _and, _or) the block has passed.
  uint32_t syncs = 0;
};

// The CUDA thread that runs now on this OS thread; nullptr on the host. A hook may be called there as well: host code
// in a kernel file (its launcher) is compiled with the same flags.
Thread* current_thread();

// ---- global memory: DeviceBuffer's allocations, kept by device_emu.cpp ------------------------------------------

struct Allocation {
  std::string label;
  unsigned char* base = nullptr;  // 256-byte aligned
  size_t bytes = 0;               // an inaccessible page follows within 256 bytes of base + bytes
  uint64_t serial = 0;            // 1, 2, 3, ...: an address can come back with another allocation
  // Shadow memory: anything the watcher wants to hang here. It is told when the allocation goes.
  mutable void* shadow = nullptr;
};
// The live allocation that holds the address, or nullptr. O(log n). Not to be called while another thread allocates.
const Allocation* find_allocation(const void* address);
// The live allocation whose end is nearest below (or begin nearest above) the address, within `distance` bytes; for
// reports of accesses out of bounds. nullptr: none.
const Allocation* nearest_allocation(const void* address, size_t distance);
std::vector<const Allocation*> all_allocations();  // by address
// "a null pointer", "a null pointer plus 400 bytes": what an address near 0 must have been. "" for any other.
std::string null_pointer_text(const void* address);

// ---- what a warp executes together ------------------------------------------------------------------------------

// The calling thread waits until every lane of `mask` that hasn't exited has called with the same `name`, mask and line
// (file and line; the pc where these aren't known). The last of them then runs combine() once, in which operand[l] is
// the `operand` of lane l (nullptr for a lane that is not in the mask or has exited): usually a struct on its stack
// with the inputs and a place for the result. All lanes then go on. It is not a memory barrier and no epoch.
// A mask without the caller's lane, and a stall, are errors that name kernel, block, threads and lines. With
// `needs_all_lanes` so is an exited lane in the mask; without it exited lanes count as arrived.
using Combine = void (*)(Block&, Warp&, uint32_t mask, void* const operand[kLanes]);
void collective(const char* name, uint32_t mask, const CallSite& site, void* operand, Combine combine,
                bool needs_all_lanes = true);

// End the kernel now, from inside a CUDA thread: launch() throws flash::Error(kDeviceError) with the sentence, the
// kernel, the block, the thread and the seed. The block's other fibers are dropped where they stand; the next launch
// works. Destructors on the fibers' stacks don't run.
[[noreturn]] void fail(const std::string& sentence);

// "common/tests/a.cu:12", "an unknown line".
std::string to_string(const CallSite&);

// Every error the runtime raises passes here before it is thrown, whether a watcher is there or not.
struct RuntimeFault {
  std::string kind;  // "barrier", "mbarrier", "async-copy", "out-of-bounds", "misaligned", "invalid-address", "other"
  std::string message;  // the whole text of the Error
  const Launch* launch = nullptr;
  const Block* block = nullptr;
  const Thread* thread = nullptr;  // may be nullptr
  CallSite here, other;            // `other`: where the other threads wait, if they do
  const void* address = nullptr;   // of a SIGSEGV or SIGBUS
};

// ---- the watcher ------------------------------------------------------------------------------------------------

// What is counted beside plain loads and stores (which arrive through the __tsan hooks). A call a thread, except
// where a line says a warp.
enum class Event {
  shuffle,           // __shfl_*; a call a warp and collective, count 1
  vote,              // __ballot_sync, __any_sync, __all_sync, __reduce_*_sync; likewise
  atomic,            // a call a thread; the bytes come through touched() as well
  exp,               // exp, exp2 in all spellings; count 1
  mma,               // a warp
  ldmatrix,          // a warp
  async_copy,        // cp.async, a thread
  mbarrier_arrival,  // a thread
  mbarrier_wait,     // a thread
  named_barrier,     // a warp
};

// Implemented once (emu/watch*.cpp) and installed with set_watcher() by a static initialiser there; a program without
// it runs watched objects with nothing counted. Called for launches whose kernel object was compiled with
// FLASH_WATCH=1, and for nothing else (allocation_freed excepted), always on the OS thread that called launch().
// Callbacks never wait and never switch fibers; they may call fail() where a comment says so.
class Watcher {
 public:
  virtual ~Watcher() = default;
  virtual void kernel_begin(const Launch&) = 0;
  virtual void kernel_end(const Launch&) = 0;  // also after an error
  // Static and dynamic shared memory are filled with 0xFF just before block_begin.
  virtual void block_begin(Block&) = 0;
  virtual void block_end(Block&) = 0;  // not after an error
  virtual void thread_end(Thread&) = 0;
  // All threads of the block have arrived and none has gone on. block.syncs has its new value.
  virtual void block_barrier(Block&, const char* name, CallSite) = 0;
  // All lanes of the mask have arrived at a __syncwarp and none has gone on; warp.syncs and lane_syncs are new.
  virtual void warp_barrier(Block&, Warp&, uint32_t mask, CallSite) = 0;
  // May call fail().
  virtual void event(Thread&, Event, CallSite, unsigned count) = 0;
  // __threadfence(): what the thread knows of goes out to the other blocks with its next atomic.
  virtual void device_fence(Thread&) {}
  // A primitive that isn't instrumented is about to read or write memory for this thread (atomics, ldmatrix, cp.async).
  // `lane_thread` is whose access it is; for what a warp does together it isn't current_thread(). May call fail().
  virtual void touched(Thread& lane_thread, const void* address, size_t bytes, bool is_write, bool is_atomic,
                       CallSite) = 0;
  // An error is about to end the launch.
  virtual void fault(const RuntimeFault&) = 0;
  // An allocation goes (or is filled with NaN anew: then everything in it counts as unwritten); called on the host.
  virtual void allocation_freed(const Allocation&) = 0;
  virtual void allocation_filled(const Allocation&) = 0;
  // The host wrote the whole allocation (copy_from_host).
  virtual void allocation_written(const Allocation&) = 0;
};
void set_watcher(Watcher*);
Watcher* get_watcher();  // nullptr: none
// The watcher if the launch that runs on this OS thread is watched, else nullptr: how primitives ask.
Watcher* active_watcher();

}  // namespace flash::emu
