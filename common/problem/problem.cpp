#include "common/problem/problem.h"

#include <algorithm>

#include "common/base/error.h"

namespace flash {

static std::vector<StepInfo>& registry() {
  static std::vector<StepInfo> steps;
  return steps;
}

RegisterStep::RegisterStep(const StepInfo& info) {
  std::vector<StepInfo>& steps = registry();
  auto by_name = [](const StepInfo& a, const StepInfo& b) { return a.name < b.name; };
  steps.insert(std::upper_bound(steps.begin(), steps.end(), info, by_name), info);
}

const std::vector<StepInfo>& linked_steps() { return registry(); }

const StepInfo& main_step() {
  if (registry().empty()) {
    throw Error(kUsage,
                "this program registers no step: its kernel file must end with `const flash::RegisterStep "
                "registered(step_info());`");
  }
  return registry().back();
}

const char* dtype_name(Dtype dtype) {
  switch (dtype) {
    case Dtype::fp32: return "fp32";
    case Dtype::fp16: return "fp16";
    case Dtype::bf16: return "bf16";
  }
  return "?";
}

std::string why_not(const StepInfo& step, const Problem& problem, const Device& device) {
  auto has = [](const auto& list, auto item) { return std::find(list.begin(), list.end(), item) != list.end(); };
  if (device.compute_capability < step.min_compute_capability) {
    return step.name + " needs a GPU of compute capability " + std::to_string(step.min_compute_capability / 10) + "." +
           std::to_string(step.min_compute_capability % 10) + " or newer, and " + device.name + " has " +
           std::to_string(device.compute_capability / 10) + "." + std::to_string(device.compute_capability % 10);
  }
  if (!has(step.dtypes, problem.dtype)) {
    std::string names;
    for (Dtype t : step.dtypes) names += (names.empty() ? "" : " or ") + std::string(dtype_name(t));
    return step.name + " takes " + names + ", not " + dtype_name(problem.dtype);
  }
  if (!has(step.head_dims, problem.head_dim)) {
    std::string dims;
    for (int d : step.head_dims) dims += (dims.empty() ? "" : ", ") + std::to_string(d);
    return step.name + " takes head_dim " + dims + ", not " + std::to_string(problem.head_dim);
  }
  return step.supports ? step.supports(problem, device) : "";
}

Traffic least_traffic(const Problem& p, Direction direction) {
  const double element = double(dtype_bytes(p.dtype));
  const double q = double(q_elements(p)) * element, kv = double(kv_elements(p)) * element, lse = double(q_rows(p)) * 4;
  if (direction == Direction::forward) return {q + 2 * kv, q + lse};
  return {3 * q + 2 * kv + lse, q + 2 * kv};
}

double flops(const Problem& p, Direction direction) {
  double pairs = double(p.seqlen_q) * p.seqlen_k;
  if (p.causal) {
    // Row i sees min(max(i + 1 + offset, 0), seqlen_k) keys; the sum over rows, in closed form.
    const double offset = double(p.seqlen_k) - p.seqlen_q;
    const double first = std::max(1.0 + offset, 0.0);  // keys seen by the first row that sees any
    const double rows = offset >= 0 ? p.seqlen_q : p.seqlen_k;
    pairs = rows * ((offset >= 0 ? first : 1.0) + p.seqlen_k) / 2;
  }
  return 4.0 * p.batch * p.heads * p.head_dim * pairs * (direction == Direction::forward ? 1.0 : 2.5);
}

}  // namespace flash
