#include "common/emu/run/launch.h"

#include <signal.h>
#include <ucontext.h>
#include <cstdint>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/device/device.h"
#include "common/device/progress.h"
#include "common/emu/run/runtime.h"
#include "common/emu/run/symbols.h"
#include "common/emu/run/worker.h"

namespace flash::emu {
namespace {

Watcher* the_watcher = nullptr;
Progress progress;
uint64_t launches = 0;

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE};
struct sigaction previous_actions[3];

const void* program_counter(const void* machine_context) {
  const auto* const context = static_cast<const ucontext_t*>(machine_context);
#if defined(__x86_64__)
  return reinterpret_cast<const void*>(context->uc_mcontext.gregs[REG_RIP]);
#elif defined(__aarch64__)
  return reinterpret_cast<const void*>(context->uc_mcontext.pc);
#else
  return context == nullptr ? nullptr : nullptr;
#endif
}

// Leaves for the worker's own stack and never returns to the kernel. SA_NODEFER: the signal isn't blocked meanwhile.
void on_signal(int signal, siginfo_t* info, void* machine_context) {
  Worker* const worker = current_worker();
  if (worker != nullptr && worker->running() != nullptr) {
    worker->stop_at_signal(signal, info->si_code, info->si_addr, program_counter(machine_context));
  }
  // Not a kernel's doing. The instruction runs again and meets whoever was responsible before.
  for (int i = 0; i < 3; ++i) {
    if (kSignals[i] == signal) sigaction(signal, &previous_actions[i], nullptr);
  }
}

// Handlers for the process, while a kernel runs. Whoever else has some (a test framework) gets them back.
class SignalHandlers {
 public:
  SignalHandlers() {
    struct sigaction action {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < 3; ++i) sigaction(kSignals[i], &action, &previous_actions[i]);
  }
  ~SignalHandlers() {
    for (int i = 0; i < 3; ++i) sigaction(kSignals[i], &previous_actions[i], nullptr);
  }
};

// A stack for the handler of the calling OS thread: the fiber's own may be what overflowed.
class SignalStack {
 public:
  SignalStack() : memory_(64 * 1024) {
    stack_t stack{};
    stack.ss_sp = memory_.begin();
    stack.ss_size = size_t(memory_.end() - memory_.begin());
    sigaltstack(&stack, &previous_);
  }
  ~SignalStack() { sigaltstack(&previous_, nullptr); }

 private:
  GuardedMemory memory_;
  stack_t previous_{};
};

uint64_t number_from_environment(const char* name, uint64_t fallback, uint64_t least, uint64_t most) {
  const char* const text = std::getenv(name);
  if (text == nullptr || *text == 0) return fallback;
  char* end = nullptr;
  errno = 0;
  const unsigned long long value = std::strtoull(text, &end, 10);
  if (errno != 0 || *end != 0 || *text < '0' || *text > '9' || value < least || value > most) {
    throw Error(kUsage, std::string(name) + " must be a number from " + std::to_string(least) + " to " +
                            std::to_string(most) + ", not '" + text + "'");
  }
  return value;
}

// As a GPU refuses a launch, with the reason.
void check_configuration(const Launch& launch) {
  const auto refuse = [&](const std::string& reason) {
    throw Error(kDeviceError, "kernel " + launch.name + " can't be launched: " + reason);
  };
  const Index g = launch.grid, b = launch.block;
  const std::string grid = "a grid of " + to_string(g) + " blocks", block = "a block of " + to_string(b) + " threads";
  if (g.x == 0 || g.y == 0 || g.z == 0) refuse(grid + " is empty");
  if (b.x == 0 || b.y == 0 || b.z == 0) refuse(block + " is empty");
  if (g.x > 2147483647u || g.y > 65535 || g.z > 65535) refuse(grid + " is past the limit (2147483647,65535,65535)");
  if (b.x > 1024 || b.y > 1024 || b.z > 64) refuse(block + " is past the limit (1024,1024,64)");
  if (uint64_t(b.x) * b.y * b.z > 1024) refuse(block + " is past the limit of 1024 threads a block");
  if (launch.static_shared_bytes > 48 * 1024) {
    refuse("its __shared__ arrays take " + std::to_string(launch.static_shared_bytes) +
           " bytes; only dynamic shared memory may pass 49152");
  }
  const Device device = query_device();
  if (launch.static_shared_bytes + launch.dynamic_shared_bytes > device.shared_bytes_per_block) {
    refuse("it asks for " + std::to_string(launch.dynamic_shared_bytes) + " bytes of dynamic shared memory beside " +
           std::to_string(launch.static_shared_bytes) + " bytes of __shared__ arrays; " + device.name + " has " +
           std::to_string(device.shared_bytes_per_block) + " bytes a block");
  }
}

// The order blocks are started in: 0, 1, 2, ...; with a seed i -> (start + step * i) mod blocks, step coprime to it.
struct BlockOrder {
  BlockOrder(uint64_t blocks, uint64_t seed) : blocks(blocks) {
    if (seed == 0) return;
    std::mt19937_64 random(seed);
    start = random() % blocks;
    do {
      step = random() % blocks + 1;
    } while (std::gcd(step, blocks) != 1);
  }
  uint64_t operator()(uint64_t i) const {
    return uint64_t((start + static_cast<unsigned __int128>(step) * i) % blocks);
  }
  uint64_t blocks, start = 0, step = 1;
};

// What the workers of one launch share.
struct Grid {
  const Launch& launch;
  void (*thread_body)(void*);
  void* argument;
  Watcher* watcher;
  BlockOrder order;
  std::atomic<uint64_t> next{0}, done{0};
  std::mutex mutex{};
  std::exception_ptr error{};  // of the failed block that comes first in the order
  uint64_t error_at = UINT64_MAX;
};

void run_blocks(Worker& worker, Grid& grid, bool tells_progress) {
  const SignalStack signal_stack;
  worker.begin_launch(grid.launch, grid.thread_body, grid.argument, grid.watcher);
  for (uint64_t i = grid.next++; i < grid.order.blocks; i = grid.next++) {
    try {
      worker.run_block(grid.order(i));
    } catch (...) {
      const std::lock_guard<std::mutex> lock(grid.mutex);
      if (i < grid.error_at) {
        grid.error = std::current_exception();
        grid.error_at = i;
      }
      grid.next = grid.order.blocks;  // nobody starts another
    }
    ++grid.done;
    if (tells_progress && progress) progress(grid.launch.name, grid.done, grid.order.blocks);
  }
  worker.end_launch();
}

}  // namespace

void set_watcher(Watcher* watcher) { the_watcher = watcher; }
Watcher* get_watcher() { return the_watcher; }

void run_grid(const Configuration& configuration, void (*thread_body)(void*), void* argument) {
  static std::mutex one_launch_at_a_time;
  static std::vector<std::unique_ptr<Worker>> workers;
  const std::lock_guard<std::mutex> lock(one_launch_at_a_time);

  Launch launch;
  launch.function = configuration.kernel;
  launch.name = function_name(configuration.kernel);
  launch.grid = {configuration.grid.x, configuration.grid.y, configuration.grid.z};
  launch.block = {configuration.block.x, configuration.block.y, configuration.block.z};
  launch.dynamic_shared_bytes = configuration.shared_bytes;
  const std::string mangled = mangled_function(configuration.kernel);
  for (const StaticShared& array : static_shared_arrays(configuration.kernel)) {
    if (array.function == mangled) launch.static_shared_bytes += array.bytes;
  }
  launch.watched = configuration.watched;
  launch.seed = number_from_environment("EMU_SEED", 0, 0, UINT64_MAX);
  launch.serial = ++launches;
  check_configuration(launch);

  const uint64_t blocks = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
  Watcher* const watcher = launch.watched ? the_watcher : nullptr;
  // The watcher follows one block at a time. One worker is the default elsewhere too: float atomics from two add up in
  // an order that changes from run to run.
  size_t count = launch.watched ? 1 : size_t(number_from_environment("EMU_WORKERS", 1, 1, 256));
  if (count > blocks) count = size_t(blocks);
  while (workers.size() < count) workers.push_back(std::make_unique<Worker>(int(workers.size())));

  Grid grid{launch, thread_body, argument, watcher, BlockOrder(blocks, launch.seed)};
  {
    const SignalHandlers handlers;
    if (watcher != nullptr) watcher->kernel_begin(launch);
    std::vector<std::thread> others;
    for (size_t w = 1; w < count; ++w) others.emplace_back([&, w] { run_blocks(*workers[w], grid, false); });
    run_blocks(*workers[0], grid, true);
    for (std::thread& other : others) other.join();
    if (watcher != nullptr) watcher->kernel_end(launch);
  }
  if (grid.error) std::rethrow_exception(grid.error);
}

}  // namespace flash::emu

void flash::set_progress(Progress callback) { flash::emu::progress = std::move(callback); }
