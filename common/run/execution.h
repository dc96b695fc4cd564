// Run a linked step once on the device at hand: memory, copies, the call, copies back. Used by ./run, the tests, the bench.
#pragma once
#include <memory>

#include "common/check/result.h"
#include "common/device/device.h"
#include "common/kernel/step.h"
#include "common/problem/inputs.h"
#include "common/problem/problem.h"

namespace flash {

// Everything a step needs on the device, ready to be called as often as wanted. A backward step gets O and LSE from
// the last linked forward step that takes the dtype. Throws kNotSupported with a sentence when the step, the device or
// its memory can't take the problem: said with the bytes, before anything is allocated.
class Execution {
 public:
  Execution(const StepInfo&, const Problem&, const Inputs&);
  ~Execution();
  void run();         // enqueues one call
  Outputs outputs();  // waits, copies back
  const Plan& plan() const { return plan_; }

 private:
  struct Buffers;
  std::unique_ptr<Buffers> buffers_;
  StepInfo step_;
  Problem problem_;
  Plan plan_;
};

Outputs run_once(const StepInfo&, const Problem&, const Inputs&);

}  // namespace flash
