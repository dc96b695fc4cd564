// A worker runs one block at a time on its OS thread: it keeps the fibers, says which goes on next, holds the threads
// that wait at barriers, and notices when none can go on.
#pragma once
#include <cstdint>
#include <optional>
#include <random>
#include <vector>

#include "common/emu/run/engine.h"
#include "common/emu/run/fiber.h"
#include "common/emu/run/runtime.h"

namespace flash::emu {

class Worker {
 public:
  explicit Worker(int index);

  // A launch's blocks run between the two, on the OS thread that calls begin_launch().
  void begin_launch(const Launch&, void (*thread_body)(void*), void* argument, Watcher* watcher);
  void end_launch();
  void run_block(uint64_t linear);  // throws flash::Error

  // From here on: called by the running fiber.

  // Waits for all threads of the block that haven't returned; the result is how many of them gave `predicate` != 0.
  // `all` is how many took part.
  struct BarrierVotes {
    unsigned yes = 0, all = 0;
  };
  BarrierVotes block_barrier(const char* name, CallSite, bool predicate);
  void warp_barrier(const char* name, uint32_t mask, const CallSite&);
  void collective(const char* name, uint32_t mask, const CallSite&, void* operand, Combine, bool needs_all_lanes);
  // The thread waits for the phase of this parity to end. `polls`: no longer than until no other thread can go on; false:
  // the phase hasn't ended.
  bool wait_for_mbarrier(const void* at, bool parity, bool polls, CallSite);
  void named_barrier(int id, int threads, bool waits, CallSite);
  void warpgroup_step(Warpgroups::Step, unsigned operand, CallSite);
  Engine& engine() { return engine_; }
  void wake(Thread& thread) { make_ready(thread); }
  // Drops the block's fibers and makes run_block() throw. The caller fills kind and message (a sentence); the kernel,
  // the block, the thread and the seed are added.
  [[noreturn]] void stop(RuntimeFault);
  [[noreturn]] void stop_without_thread(RuntimeFault);  // no thread's doing
  [[noreturn]] void stop_at_signal(int signal, int code, const void* address, const void* pc);

  Thread* running() const { return running_; }
  Watcher* watcher() const { return watcher_; }

 private:
  // Lanes of one warp that wait for each other at one place.
  struct Meeting {
    const char* name;
    CallSite site;
    uint32_t mask = 0, arrived = 0;
    bool is_barrier = false, needs_all_lanes = false;
    Combine combine = nullptr;
    void* operand[kLanes] = {};
  };

  static void fiber_main();
  void meet(const char* name, uint32_t mask, const CallSite&, bool is_barrier, bool needs_all_lanes, Combine,
            void* operand);
  bool complete_if_all_arrived(Warp&, Meeting*);
  void release_block_barrier_if_all_arrived();
  void thread_exits();
  void make_ready_first(Thread&);
  void make_ready(Thread&);
  void wait();  // the running fiber lets the next one go on, and returns when it is its turn again
  void go_on_with_next(Context& from);
  void let_copies_land();
  void wake_those_that_poll();
  void prepare_block(uint64_t linear);
  [[noreturn]] void stop_stalled();  // on the scheduler's stack
  std::string who_waits_where(std::vector<CallSite>* places) const;
  std::string waits_at(const Thread&) const;
  std::string describe_address(const void* address) const;
  [[noreturn]] void throw_fault();

  // Of the launch.
  const Launch* launch_ = nullptr;
  void (*thread_body_)(void*) = nullptr;
  void* argument_ = nullptr;
  Watcher* watcher_ = nullptr;
  std::vector<StaticShared> statics_;

  // Of the block.
  Block block_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<std::vector<Meeting>> meetings_;  // [warp]
  unsigned exited_ = 0;
  unsigned at_barrier_ = 0, barrier_yes_ = 0;
  bool barriers_differ_ = false;
  const Thread* first_at_barrier_ = nullptr;
  BarrierVotes barrier_result_;
  Engine engine_;
  std::vector<Thread*> polling_;
  unsigned fruitless_polls_ = 0;  // times they were all woken for nothing, in a row
  std::optional<RuntimeFault> fault_;
  std::mt19937_64 random_;

  // Ready threads, first in, first out.
  std::vector<Thread*> ready_;  // a ring, its size a power of two
  size_t ready_first_ = 0, ready_count_ = 0;

  Thread* running_ = nullptr;
  Context scheduler_;
  std::vector<Context> contexts_;      // [thread]
  std::vector<GuardedMemory> stacks_;  // [thread], kept from block to block
  GuardedMemory arena_;                // dynamic shared memory stands at its end
};

// The worker of this OS thread; nullptr on one that runs no blocks.
Worker* current_worker();

}  // namespace flash::emu
