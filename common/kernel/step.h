// The interface of a step. The harness, the tests, the bench and the plots know a step by its StepInfo alone.
//
// kernel/ has what a kernel file includes: this header, cuda.cuh (one source for nvcc and g++) and ptx/ (instructions).
#pragma once
#include <string>
#include <vector>

#include "common/device/device.h"
#include "common/problem/problem.h"

namespace flash {

// Device pointers; shapes in problem.h. Inputs are read-only, outputs are written whole: every element, every time.
struct ForwardArgs {
  Problem problem;
  const void* q;
  const void* k;
  const void* v;
  void* o;
  float* softmax_lse;
};

struct BackwardArgs {
  Problem problem;
  const void* q;
  const void* k;
  const void* v;
  const void* o;             // the forward's result
  const void* d_o;           // gradient of the loss by O, shaped like O
  const float* softmax_lse;  // the forward's result
  void* dq;                  // shaped like Q
  void* dk;                  // shaped like K: summed over the query heads of a group
  void* dv;                  // shaped like V: likewise
};

// What a step has to say of one problem on one device. Where it refuses, only the refusal holds.
struct Plan {
  std::string refusal;           // why the step can't take the problem there, as one clear sentence; "" if it can
  size_t workspace_bytes = 0;    // scratch memory beside inputs and outputs; nothing is allocated inside a timed call
  size_t zeroed_bytes = 0;       // its first bytes, which are zeros at every call because each call leaves zeros there
  Traffic traffic;               // predicted, to the byte
  int block_m = 0, block_n = 0;  // query rows and keys of a tile; 0: no tiles
  size_t shared_bytes = 0;       // dynamic shared memory of a block of the main kernel
  int blocks = 0;                // of the main kernel where the device decides that; 0: a matter of the problem alone
};

// The GPUs that a step's instructions run on.
struct Architectures {
  int least = 75;         // compute capability
  bool later_too = true;  // false: code for sm_90a, say, runs on 9.0 and on nothing newer
};
constexpr Architectures at_least(int compute_capability) { return {compute_capability, true}; }
constexpr Architectures exactly(int compute_capability) { return {compute_capability, false}; }

struct StepInfo {
  std::string name;    // "00_naive", "05_tensor_core/1_mma": the path of the kernel file without its ending
  std::string number;  // "00", "05.1": left empty, it is taken from the name
  std::string idea;    // one line
  Direction direction = Direction::forward;
  std::vector<Dtype> dtypes;
  std::vector<int> head_dims;
  Architectures architectures;
  bool uses_tensor_cores = false;  // which peak the step is measured against

  // Asked only for a dtype, a head_dim and an architecture named above. nullptr: takes everything, needs nothing.
  Plan (*plan)(const Problem&, const Device&) = nullptr;
  // Enqueue the step's kernels on the stream. `workspace` is 256-byte aligned, its content undefined but for
  // plan.zeroed_bytes.
  void (*forward)(const ForwardArgs&, const Plan&, void* workspace, Stream) = nullptr;
  void (*backward)(const BackwardArgs&, const Plan&, void* workspace, Stream) = nullptr;
};

using PlanFunction = Plan(const Problem&, const Device&);
StepInfo forward_step(const std::string& name, const std::string& idea, const std::vector<Dtype>& dtypes,
                      const std::vector<int>& head_dims, PlanFunction* plan, decltype(StepInfo::forward));
StepInfo backward_step(const std::string& name, const std::string& idea, const std::vector<Dtype>& dtypes,
                       const std::vector<int>& head_dims, PlanFunction* plan, decltype(StepInfo::backward));
StepInfo with_tensor_cores(Architectures, StepInfo);

// A kernel file ends with `const flash::RegisterStep registered(flash::forward_step(…));` in its anonymous namespace.
struct RegisterStep {
  explicit RegisterStep(StepInfo info);
};

// The steps linked into this program, in the order of their numbers.
const std::vector<StepInfo>& linked_steps();
// The step this program is about: the last of linked_steps() (a backward step is linked with forward ones).
// Throws Error(kUsage) where none is linked: a kernel file that registers no step.
const StepInfo& main_step();

// The step's plan; a refusal names what the step can't take: architecture, dtype, head_dim, then what plan() says.
Plan plan_for(const StepInfo&, const Problem&, const Device&);

// For plan(): the sentence that refuses a block which asks for more shared memory than the device has, "" if it has it.
// `holds` is what the step keeps there, `size` what makes it large: ("a row of scores", "seqlen_k 70000").
std::string shared_memory_refusal(const std::string& step, const std::string& holds, const std::string& size,
                                  size_t shared_bytes, const Device&);
// The same where it is plan.shared_bytes for tiles of plan.block_m queries and plan.block_n keys.
std::string tiles_refusal(const std::string& step, const Plan&, const Problem&, const Device&);

// The one that refuses a workspace larger than the device's free memory: `holds` is what the step keeps there.
std::string workspace_refusal(const std::string& step, const std::string& holds, const Plan&, const Device&);
// And the one that refuses a grid more than 65535 blocks high: a row of blocks for each `per` of the `size`.
std::string grid_refusal(const std::string& step, const std::string& size_name, int size, int per);

}  // namespace flash
