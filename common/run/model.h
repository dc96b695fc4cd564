// What arithmetic on paper says about a problem: the roofline's "model" line beside the measured one.
#pragma once
#include "common/device/device.h"
#include "common/kernel/step.h"
#include "common/problem/problem.h"

namespace flash {

struct Model {
  double flops = 0;
  double min_bytes = 0;    // every input read once, every output written once
  double read_bytes = 0;   // what the step's threads ask global memory for, by its own formula
  double write_bytes = 0;  //
  double workspace_bytes = 0;
  double intensity = 0;  // flops / min_bytes
  // Of the device; 0 where its peaks aren't known (the CPU back end).
  double peak_tflops = 0;  // fp32 or tensor cores, whichever the step computes with
  double peak_gb_per_s = 0;
  double ridge = 0;     // FLOP a byte above which the arithmetic is the limit
  double least_ms = 0;  // flops or min_bytes at the peak, whichever takes longer
  bool compute_bound = false;
};

Model model_of(const StepInfo&, const Plan&, const Problem&, const Device&);

}  // namespace flash
