#include "common/run/memory.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>

#include "common/base/error.h"
#include "common/base/text.h"
#include "common/device/device.h"
#include "common/kernel/step.h"
#include "common/run/forward_step.h"

namespace flash {

namespace {

// The first whole number in a file of the kernel's, after `key` if there is one; SIZE_MAX when it has none.
size_t number_in(const char* path, const std::string& key = "") {
  std::ifstream file(path);
  std::string word;
  size_t number = 0;
  while (!key.empty() && file >> word && word != key) {
  }
  return file >> number ? number : SIZE_MAX;
}

size_t add_or_max(size_t a, size_t b) { return a + b < a ? SIZE_MAX : a + b; }

std::string both(size_t bytes) {
  if (bytes == SIZE_MAX) return "more bytes than can be counted";
  return with_commas(bytes) + " bytes (" + human_bytes(double(bytes)) + ")";
}

}  // namespace

size_t available_host_bytes() {
  const size_t kilobytes = number_in("/proc/meminfo", "MemAvailable:");
  size_t available = kilobytes == SIZE_MAX ? SIZE_MAX : kilobytes * 1024;
  const size_t limit = number_in("/sys/fs/cgroup/memory.max");  // holds "max" where there is no limit
  const size_t used = number_in("/sys/fs/cgroup/memory.current");
  if (limit != SIZE_MAX && used != SIZE_MAX) available = std::min(available, limit - std::min(used, limit));
  return available;
}

size_t host_bytes(const Problem& p, Direction direction) {
  const size_t q = q_elements(p), kv = kv_elements(p);
  size_t floats = q + 2 * kv + q + q_rows(p);                      // Q, K, V, O, LSE
  if (direction == Direction::backward) floats += 2 * q + 2 * kv;  // dO, dQ, dK, dV
  return floats * sizeof(float) + 2 * std::max(q, kv) * sizeof(float);
}

size_t device_bytes(const StepInfo& step, const Problem& p, const Device& device) {
  const size_t q = q_elements(p) * dtype_bytes(p.dtype);
  const size_t kv = kv_elements(p) * dtype_bytes(p.dtype);
  const size_t workspace = plan_for(step, p, device).workspace_bytes;
  const size_t forward = q + 2 * kv + q + q_rows(p) * sizeof(float);  // q, k, v, o, softmax_lse
  if (step.direction == Direction::forward) return add_or_max(forward, workspace);
  const size_t backward = add_or_max(q + q + 2 * kv, workspace);  // d_o, dq, dk, dv
  const size_t for_forward = plan_for(forward_for(step, p, device), p, device).workspace_bytes;
  return add_or_max(forward, std::max(backward, for_forward));
}

void require_countable(const Problem& p) {
  const double q = double(p.batch) * p.heads * p.seqlen_q * p.head_dim;
  const double kv = double(p.batch) * p.kv_heads * p.seqlen_k * p.head_dim;
  if (std::max(q, kv) < 1e16) return;  // far from size_t's end, so that sums of sizes don't reach it either
  throw Error(kUsage,
              "a tensor of this problem has " + format("%.3g", std::max(q, kv)) +
                  " elements, more than can be counted in bytes: batch, heads, seqlen or head_dim is too large");
}

void require_memory(const StepInfo& step, const Problem& p, const Device& device) {
  const size_t on_device = device_bytes(step, p, device);
  if (on_device > device.global_bytes) {
    throw Error(kNotSupported, step.name + " needs " + both(on_device) + " of device memory for this problem, and " +
                                   device.name + " has " + both(device.global_bytes) + " free");
  }
  size_t on_host = host_bytes(p, step.direction);
  if (device.is_emulated) on_host += on_device;
  if (on_host > available_host_bytes()) {
    throw Error(kNotSupported, "this problem needs " + both(on_host) + " of the computer's memory, and " +
                                   both(available_host_bytes()) + " are free");
  }
}

}  // namespace flash
