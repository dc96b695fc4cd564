// What ./run tells: a page for a person, JSON for a program (docs/json.md).
#pragma once
#include <iosfwd>
#include <optional>
#include <string>

#include "common/attention.h"
#include "common/check.h"
#include "common/device.h"
#include "common/emu/report.h"
#include "common/model.h"

namespace flash {

struct RunReport {
  StepInfo step;
  Device device;
  Problem problem;
  std::string values;  // "normal, seed 0", or the input files
  bool checked = false;
  CheckResult check;
  std::optional<Times> time_ms;  // on a GPU, of a result that is right
  int iters = 0;
  Model model;
  double wall_seconds = 0;  // of the one call on the CPU back end
  emu::Report counts;
};

Verdict verdict_of(const RunReport&);  // the check's, and fail where the watched kernel made a fault

void print_header(std::ostream&, const RunReport&);   // what is about to run: step, problem, device
void print_results(std::ostream&, const RunReport&);  // the verdict and the figures
std::string report_as_json(const RunReport&);
// A step that can't take the problem: verdict "skip" and the reason.
std::string skip_as_json(const RunReport&, const std::string& reason);

}  // namespace flash
