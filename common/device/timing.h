// Waiting for the device, and how long its work takes. Errors throw flash::Error(kDeviceError).
#pragma once
#include <functional>

namespace flash {

void synchronize();  // waits for the device; throws what a kernel did wrong

// Median, least and greatest time of `work` in milliseconds by CUDA events, `iterations` calls after `warmup`.
// On the CPU back end wall-clock times, which say nothing of a GPU's.
struct Times {
  double median = 0, min = 0, max = 0;
};
Times time_ms(const std::function<void()>& work, int iterations, int warmup = 3);

}  // namespace flash
