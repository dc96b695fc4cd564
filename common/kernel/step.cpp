#include "common/kernel/step.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "common/base/error.h"

namespace flash {

namespace {

std::vector<StepInfo>& registry() {
  static std::vector<StepInfo> steps;
  return steps;
}

std::string version(int compute_capability) {
  return std::to_string(compute_capability / 10) + "." + std::to_string(compute_capability % 10);
}

// "05_tensor_core/1_mma" -> "05.1", "04_flash_v2" -> "04"
std::string number_of(const std::string& name) {
  const auto digits = [&name](size_t from) {
    return name.substr(from, name.find_first_not_of("0123456789", from) - from);
  };
  const size_t slash = name.find('/');
  return slash == std::string::npos ? digits(0) : digits(0) + "." + digits(slash + 1);
}

// 05.2 before 05.10
std::pair<int, int> order_of(const StepInfo& step) {
  const size_t point = step.number.find('.');
  return {std::atoi(step.number.c_str()), point == std::string::npos ? 0 : std::atoi(step.number.c_str() + point + 1)};
}

template <class T, class Name>
std::string joined(const std::vector<T>& list, const char* between, const Name& name) {
  std::string text;
  for (const T& item : list) text += (text.empty() ? "" : between) + std::string(name(item));
  return text;
}

std::string refusal_by_kind(const StepInfo& step, const Problem& p, const Device& device) {
  const auto has = [](const auto& list, auto item) { return std::find(list.begin(), list.end(), item) != list.end(); };
  const Architectures& runs_on = step.architectures;
  if (device.compute_capability < runs_on.least) {
    return step.name + " needs a GPU of compute capability " + version(runs_on.least) +
           (runs_on.later_too ? " or newer, and " : ", and ") + device.name + " has " +
           version(device.compute_capability);
  }
  if (!runs_on.later_too && device.compute_capability > runs_on.least) {
    return step.name + " uses instructions that compute capability " + version(runs_on.least) + " alone has, and " +
           device.name + " has " + version(device.compute_capability);
  }
  if (!has(step.dtypes, p.dtype)) {
    return step.name + " takes " + joined(step.dtypes, " or ", dtype_name) + ", not " + dtype_name(p.dtype);
  }
  if (!has(step.head_dims, p.head_dim)) {
    return step.name + " takes head_dim " + joined(step.head_dims, ", ", [](int d) { return std::to_string(d); }) +
           ", not " + std::to_string(p.head_dim);
  }
  return "";
}

}  // namespace

StepInfo forward_step(const std::string& name, const std::string& idea, const std::vector<Dtype>& dtypes,
                      const std::vector<int>& head_dims, PlanFunction* plan, decltype(StepInfo::forward) forward) {
  StepInfo step;
  step.name = name;
  step.idea = idea;
  step.dtypes = dtypes;
  step.head_dims = head_dims;
  step.plan = plan;
  step.forward = forward;
  return step;
}

StepInfo backward_step(const std::string& name, const std::string& idea, const std::vector<Dtype>& dtypes,
                       const std::vector<int>& head_dims, PlanFunction* plan, decltype(StepInfo::backward) backward) {
  StepInfo step = forward_step(name, idea, dtypes, head_dims, plan, nullptr);
  step.direction = Direction::backward;
  step.backward = backward;
  return step;
}

StepInfo with_tensor_cores(Architectures architectures, StepInfo step) {
  step.architectures = architectures;
  step.uses_tensor_cores = true;
  return step;
}

RegisterStep::RegisterStep(StepInfo info) {
  if (info.number.empty()) info.number = number_of(info.name);
  std::vector<StepInfo>& steps = registry();
  const auto in_order = [](const StepInfo& a, const StepInfo& b) { return order_of(a) < order_of(b); };
  steps.insert(std::upper_bound(steps.begin(), steps.end(), info, in_order), info);
}

const std::vector<StepInfo>& linked_steps() { return registry(); }

const StepInfo& main_step() {
  if (registry().empty()) {
    throw Error(kUsage,
                "this program registers no step: its kernel file must end with `const flash::RegisterStep "
                "registered(flash::forward_step(...));`");
  }
  return registry().back();
}

Plan plan_for(const StepInfo& step, const Problem& p, const Device& device) {
  Plan refused;
  refused.refusal = refusal_by_kind(step, p, device);
  if (!refused.refusal.empty() || !step.plan) return refused;
  return step.plan(p, device);
}

std::string shared_memory_refusal(const std::string& step, const std::string& holds, const std::string& size,
                                  size_t shared_bytes, const Device& device) {
  if (shared_bytes <= device.shared_bytes_per_block) return "";
  return step + " keeps " + holds + " in shared memory: " + size + " needs " +
         std::to_string((shared_bytes + 1023) / 1024) + " KB, this device has " +
         std::to_string(device.shared_bytes_per_block / 1024) + " KB";
}

std::string tiles_refusal(const std::string& step, const Plan& plan, const Problem& p, const Device& device) {
  return shared_memory_refusal(
      step, "tiles of " + std::to_string(plan.block_m) + " queries and " + std::to_string(plan.block_n) + " keys",
      "head_dim " + std::to_string(p.head_dim), plan.shared_bytes, device);
}

std::string workspace_refusal(const std::string& step, const std::string& holds, const Plan& plan,
                              const Device& device) {
  if (plan.workspace_bytes <= device.global_bytes) return "";
  return step + " keeps " + holds + " in global memory: " + std::to_string(plan.workspace_bytes >> 20) +
         " MB, and this device has " + std::to_string(device.global_bytes >> 20) + " MB free";
}

std::string grid_refusal(const std::string& step, const std::string& size_name, int size, int per) {
  const long long most = 65535ll * per;
  if (size <= most) return "";
  return step + " has a row of blocks for every " + std::to_string(per) + " of " + size_name +
         ", and CUDA allows 65535 rows: " + size_name + " " + std::to_string(size) + " is more than " +
         std::to_string(most);
}

}  // namespace flash
