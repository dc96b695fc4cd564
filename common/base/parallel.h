// Independent pieces of work on all cores of the host.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace flash {

// work(0) .. work(count - 1), in no order. `work` must not throw.
template <typename Work>
void parallel_for(size_t count, const Work& work) {
  std::atomic<size_t> next(0);
  auto worker = [&] {
    for (size_t n; (n = next.fetch_add(1, std::memory_order_relaxed)) < count;) work(n);
  };
  std::vector<std::thread> helpers;
  const size_t threads = std::min<size_t>({count, std::max(1u, std::thread::hardware_concurrency()), 16});
  for (size_t t = 1; t < threads; ++t) helpers.emplace_back(worker);
  worker();
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace flash
