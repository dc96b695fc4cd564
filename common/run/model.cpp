#include "common/run/model.h"

#include <algorithm>

namespace flash {

Model model_of(const StepInfo& step, const Problem& p, const Device& device) {
  const Traffic least = least_traffic(p, step.direction);
  const Traffic asked = step.traffic ? step.traffic(p) : Traffic();
  Model m;
  m.flops = flops(p, step.direction);
  m.min_bytes = least.read_bytes + least.write_bytes;
  m.read_bytes = asked.read_bytes;
  m.write_bytes = asked.write_bytes;
  m.workspace_bytes = step.workspace_bytes ? double(step.workspace_bytes(p)) : 0;
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
