// What a step's test.cpp calls: problems that break kernels, a run of the step checked against the reference, and what
// the CPU back end counted. A test binary is about one step, tests::step(); the same test.cpp is linked with each of its
// folder's landings, and with kernels that are watched (counts and faults; slow), not watched, and compiled for a GPU.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "common/device/counts.h"
#include "common/device/device.h"
#include "common/kernel/step.h"
#include "common/problem/inputs.h"
#include "common/problem/problem.h"
#include "common/run/execution.h"
#include "common/tests/catch.h"

namespace flash::tests {

const StepInfo& step();  // main_step()
const Device& device();  // the device at hand
bool on_gpu();           // the CUDA back end
bool watched();          // kernels of this binary are counted and searched for faults

// A problem with softmax_scale = 1/sqrt(head_dim), heads = kv_heads = batch = 1; change the fields that matter.
Problem make_problem(int seqlen_q, int seqlen_k, int head_dim, Dtype = tests::step().dtypes.front());
std::string describe(const Problem&, Dist);

struct Case {
  Problem problem;
  Dist dist = Dist::normal;
  uint64_t seed = 1;
};

// Problems that break kernels: those of awkward_problems.txt that the step takes, in every dtype and head_dim it has (on
// the CPU back end each in half of these, unless FLASH_EVERY_PROBLEM is set). A watched build gets a few small ones, for it
// is a hundred times slower.
std::vector<Case> awkward_cases(const StepInfo& = tests::step());

// Runs the step on the problem and REQUIREs the checker's pass; in a watched build also that there was no fault.
void require_pass(const Problem&, Dist = Dist::normal, uint64_t seed = 1, const StepInfo& = tests::step());
// require_pass() on all awkward_cases().
void require_pass_awkward(const StepInfo& = tests::step());
// require_pass() with thread, warp and block order shuffled by `seeds` seeds (CPU back end; nothing on a GPU).
void require_pass_shuffled(const Problem&, int seeds = 5, const StepInfo& = tests::step());
// The step refuses the problem, by plan_for() and by Execution, with a sentence that contains `part`.
void require_refused(const Problem&, const std::string& part, const StepInfo& = tests::step());

// What the CPU back end counted and found while the step ran once on the problem (a backward step's forward is left
// out). Only where watched().
WatchReport report_of(const Problem&, const StepInfo& = tests::step());
// Its counts, over all kernels; REQUIREs no fault.
Counts counts_of(const Problem&, const StepInfo& = tests::step());
// The counts at a label of the step's kernel file (`// @load-k`: common/exercises/labels.py): of its line and of those
// below it that are indented further, such as a loop's body; REQUIREs that something was counted there.
Counts counts_at(const WatchReport&, const std::string& label, const StepInfo& = tests::step());
// Counted global bytes, read and written, equal the plan's traffic exactly; REQUIREd where watched().
void require_traffic(const Problem&, const StepInfo& = tests::step());

}  // namespace flash::tests
