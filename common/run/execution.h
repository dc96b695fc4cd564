// Run a linked step once on the device at hand: memory, copies, the call, copies back. Used by ./run, the tests, the bench.
#pragma once
#include <memory>

#include "common/problem/problem.h"
#include "common/check/check.h"
#include "common/device/device.h"
#include "common/problem/inputs.h"

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
  size_t workspace_bytes() const;

 private:
  struct Buffers;
  std::unique_ptr<Buffers> buffers_;
  StepInfo step_;
  Problem problem_;
};

// Device bytes the execution of a step takes: inputs, outputs, workspace.
size_t device_bytes(const StepInfo&, const Problem&);

Outputs run_once(const StepInfo&, const Problem&, const Inputs&);

}  // namespace flash
