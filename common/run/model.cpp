#include "common/run/model.h"
#include "common/device/device.h"
#include "common/kernel/step.h"

#include <algorithm>

namespace flash {

Model model_of(const StepInfo& step, const Plan& plan, const Problem& p, const Device& device) {
  const Traffic least = least_traffic(p, step.direction);
  Model m;
  m.flops = flops(p, step.direction);
  m.min_bytes = least.read_bytes + least.write_bytes;
  m.read_bytes = plan.traffic.read_bytes;
  m.write_bytes = plan.traffic.write_bytes;
  m.workspace_bytes = double(plan.workspace_bytes);
  m.intensity = m.flops / m.min_bytes;
  m.peak_tflops = step.uses_tensor_cores ? device.peak_tensor_tflops : device.peak_fp32_tflops;
  m.peak_gb_per_s = device.peak_gb_per_s;
  if (device.is_emulated) m.peak_tflops = m.peak_gb_per_s = 0;
  if (m.peak_tflops > 0 && m.peak_gb_per_s > 0) {
    m.ridge = m.peak_tflops * 1e12 / (m.peak_gb_per_s * 1e9);
    m.compute_bound = m.intensity > m.ridge;
    m.least_ms = 1e3 * std::max(m.flops / (m.peak_tflops * 1e12), m.min_bytes / (m.peak_gb_per_s * 1e9));
  }
  return m;
}

}  // namespace flash
