// run/ is the program ./run, and what the tests share with it: options, one execution of a step, memory, report.
//
// main() of ./run: options -> problem -> step -> check -> time -> report.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iostream>

#include "common/base/error.h"
#include "common/base/files.h"
#include "common/base/text.h"
#include "common/check/check.h"
#include "common/device/counts.h"
#include "common/device/device.h"
#include "common/device/print_counts.h"
#include "common/device/timing.h"
#include "common/kernel/step.h"
#include "common/problem/inputs.h"
#include "common/problem/npy.h"
#include "common/problem/problem.h"
#include "common/run/execution.h"
#include "common/run/memory.h"
#include "common/run/model.h"
#include "common/run/options.h"
#include "common/run/progress_line.h"
#include "common/run/report.h"
#include "common/run/step_list.h"

using namespace flash;

namespace {

bool on_gpu() { return std::strcmp(backend_name(), "cuda") == 0; }

// ---- the problem ---------------------------------------------------------------------------------------------------

// Sizes where nothing was asked for: a second or two of work for the watched CPU back end, a full GPU otherwise.
Problem default_problem(const StepInfo& step) {
  Problem p;
  const auto& dims = step.head_dims;
  p.head_dim = std::find(dims.begin(), dims.end(), 64) != dims.end() ? 64 : dims.front();
  p.dtype = step.dtypes.front();
  p.batch = on_gpu() ? 2 : 1;
  p.heads = on_gpu() ? 16 : 2;
  p.seqlen_q = p.seqlen_k = on_gpu() ? 4096 : 128;
  return p;
}

Problem problem_from(const Options& o, const StepInfo& step, const Device& device) {
  Problem p = default_problem(step);
  if (o.dtype) p.dtype = *o.dtype;
  if (o.head_dim) p.head_dim = *o.head_dim;
  if (o.batch) p.batch = *o.batch;
  if (o.heads) p.heads = *o.heads;
  p.kv_heads = o.kv_heads.value_or(p.heads);
  p.causal = o.causal;
  p.deterministic = o.deterministic;
  p.softmax_scale = o.scale.value_or(1 / std::sqrt(float(p.head_dim)));
  if (o.seqlen) p.seqlen_q = p.seqlen_k = *o.seqlen;
  if (o.seqlen_k) p.seqlen_k = *o.seqlen_k;
  if (!o.seqlen && !o.seqlen_k) {  // the default length shrinks until it fits this device
    const auto fits = [&] {
      return plan_for(step, p, device).refusal.empty() && device_bytes(step, p, device) <= device.global_bytes;
    };
    while (p.seqlen_q > 128 && !fits()) p.seqlen_q = p.seqlen_k = p.seqlen_q / 2;
  }
  return p;
}

struct Files {
  Inputs inputs;
  Tensor4 q, k;  // their shapes
};

std::string shape_text(const size_t* shape) {
  return format("[%zu, %zu, %zu, %zu]", shape[0], shape[1], shape[2], shape[3]);
}

// The dtype of a file's elements, where the step can take it; so `--input` works without `--dtype`.
Dtype dtype_of_file(const std::string& path, Dtype otherwise) {
  const std::string descr = read_npy(path).descr;
  return descr == "<f4" ? Dtype::fp32 : descr == "<f2" ? Dtype::fp16 : descr == "<u2" ? Dtype::bf16 : otherwise;
}

// Reads --input and takes the problem's sizes from the files. An option that disagrees with them is an error.
Inputs read_inputs(const Options& o, const StepInfo& step, Problem& p) {
  const bool backward = step.direction == Direction::backward;
  const size_t expected_files = backward ? 4 : 3;
  if (o.input.size() != expected_files) {
    throw Error(kUsage, format("--input takes %s for %s, not %zu file%s",
                               backward ? "four files, Q,K,V,DO," : "three files, Q,K,V,", step.name.c_str(),
                               o.input.size(), o.input.size() == 1 ? "" : "s"));
  }
  p.dtype = o.dtype ? *o.dtype : dtype_of_file(o.input[0], p.dtype);
  std::vector<Tensor4> tensors;
  for (const std::string& path : o.input) {
    tensors.push_back(read_tensor(path, p.dtype));
    for (size_t n : tensors.back().shape) {
      if (n < 1 || n > size_t(INT32_MAX)) {
        throw Error(kUsage, path + " has shape " + shape_text(tensors.back().shape) +
                                ": every size must be from 1 to 2147483647");
      }
    }
  }
  const Tensor4 &q = tensors[0], &k = tensors[1];
  const auto disagree = [&](size_t which, const std::string& expected) {
    throw Error(kUsage, o.input[which] + " has shape " + shape_text(tensors[which].shape) + ", expected " + expected);
  };
  if (k.shape[0] != q.shape[0] || k.shape[3] != q.shape[3]) {
    disagree(1, format("[%zu, kv_heads, seqlen_k, %zu] to go with ", q.shape[0], q.shape[3]) + o.input[0]);
  }
  if (!std::equal(k.shape, k.shape + 4, tensors[2].shape)) disagree(2, shape_text(k.shape) + " like " + o.input[1]);
  if (backward && !std::equal(q.shape, q.shape + 4, tensors[3].shape)) {
    disagree(3, shape_text(q.shape) + " like " + o.input[0]);
  }
  const struct {
    const char* option;
    std::optional<int> asked;
    size_t in_file;
    int* field;
    const std::string& path;
  } sizes[] = {
      {"--batch", o.batch, q.shape[0], &p.batch, o.input[0]},
      {"--heads", o.heads, q.shape[1], &p.heads, o.input[0]},
      {"--seqlen", o.seqlen, q.shape[2], &p.seqlen_q, o.input[0]},
      {"--head-dim", o.head_dim, q.shape[3], &p.head_dim, o.input[0]},
      {"--kv-heads", o.kv_heads, k.shape[1], &p.kv_heads, o.input[1]},
      {"--seqlen-k", o.seqlen_k, k.shape[2], &p.seqlen_k, o.input[1]},
  };
  for (const auto& size : sizes) {
    if (size.asked && size_t(*size.asked) != size.in_file) {
      throw Error(kUsage, format("%s %d disagrees with %s, which has %zu", size.option, *size.asked, size.path.c_str(),
                                 size.in_file));
    }
    *size.field = int(size.in_file);
  }
  p.softmax_scale = o.scale.value_or(1 / std::sqrt(float(p.head_dim)));
  Inputs in;
  in.q = std::move(tensors[0].values);
  in.k = std::move(tensors[1].values);
  in.v = std::move(tensors[2].values);
  if (backward) in.d_o = std::move(tensors[3].values);
  return in;
}

void require_sound(const Problem& p) {
  if (p.heads % p.kv_heads != 0) {
    throw Error(kUsage, format("the query heads must be a multiple of the key/value heads: %d is no multiple of %d",
                               p.heads, p.kv_heads));
  }
  require_countable(p);
}

// ---- files that are written ----------------------------------------------------------------------------------------

void write_outputs(const Options& o, const StepInfo& step, const Problem& p, const Outputs& out) {
  const auto write = [&](const std::string& path, const std::vector<float>& values, int heads, int seqlen) {
    write_tensor(path, p.dtype, {{size_t(p.batch), size_t(heads), size_t(seqlen), size_t(p.head_dim)}, values});
  };
  if (o.output.empty()) return;
  if (step.direction == Direction::forward) {
    write(o.output[0], out.o, p.heads, p.seqlen_q);
  } else {
    write(o.output[0], out.dq, p.heads, p.seqlen_q);
    write(o.output[1], out.dk, p.kv_heads, p.seqlen_k);
    write(o.output[2], out.dv, p.kv_heads, p.seqlen_k);
  }
}

void write_json(const std::string& path, const std::string& json) {
  if (path == "-") {
    std::cout << json << std::flush;
    if (!std::cout) throw Error(kUsage, "can't write to standard output");
    return;
  }
  write_file(path, json);
}

// ---- the run -------------------------------------------------------------------------------------------------------

void refuse_what_does_not_apply(const Options& o, const StepInfo& step) {
  const bool backward = step.direction == Direction::backward;
  const size_t outputs = backward ? 3 : 1;
  if (!o.output.empty() && o.output.size() != outputs) {
    throw Error(kUsage,
                format("--output takes %s for %s, not %zu files", backward ? "three files, for dQ,dK,dV," : "one file",
                       step.name.c_str(), o.output.size()));
  }
  if (backward && !o.expect.empty()) {
    throw Error(kUsage, "--expect compares O, and " + step.name + " is a backward step");
  }
  if (!backward && o.deterministic) {
    throw Error(kUsage,
                "--deterministic is for backward steps; " + step.name + " gives the same bits every time anyway");
  }
  if (o.profile && !on_gpu() && !take_watch_report().watched) {
    throw Error(kUsage, "--profile needs a kernel that is watched, and this one was built with WATCH=0: `make step " +
                            step.number + "`, then ./run --profile");
  }
  if (o.profile && on_gpu()) {
    throw Error(kUsage, "--profile counts on the CPU back end: `make step " + step.number +
                            " BACKEND=emu`, then ./run --profile (on a GPU, use ncu)");
  }
  std::vector<std::string> written = o.output;
  if (!o.json.empty() && o.json != "-") written.push_back(o.json);
  for (const std::string& path : written) {
    require_writable(path);
    if (std::count(written.begin(), written.end(), path) > 1 && path != "/dev/null")
      throw Error(kUsage, "two results can't go to one file: " + path);
  }
}

std::vector<float> read_expected(const std::string& path, const Problem& p) {
  Tensor4 expected = read_tensor(path, p.dtype);
  const size_t shape[4] = {size_t(p.batch), size_t(p.heads), size_t(p.seqlen_q), size_t(p.head_dim)};
  if (!std::equal(shape, shape + 4, expected.shape)) {
    throw Error(kUsage, path + " has shape " + shape_text(expected.shape) + ", expected O's, " + shape_text(shape));
  }
  return std::move(expected.values);
}

// Calls that take about a second together.
int default_iterations(Execution& execution) {
  const double once_ms = time_ms([&] { execution.run(); }, 1, 1).median;
  return int(std::clamp(1000 / std::max(once_ms, 1e-3), 5.0, 100.0));
}

// How long the step may take on the CPU back end, from a run of it on a small problem.
double estimated_seconds(const StepInfo& step, const Problem& p) {
  Problem small = p;
  small.batch = small.heads = small.kv_heads = 1;
  small.seqlen_q = std::min(p.seqlen_q, 64);
  small.seqlen_k = std::min(p.seqlen_k, 64);
  small.causal = false;
  const auto begin = std::chrono::steady_clock::now();
  try {
    run_once(step, small, make_inputs(small, step.direction, Dist::normal, 0));
  } catch (const Error&) {
    return 0;  // a kernel that crashes will say so in the run itself
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  return seconds.count() * flops(p, step.direction) / flops(small, step.direction);
}

Status run(const Options& o) {
  const StepInfo& step = main_step();
  if (o.help) {
    std::cout << help_text(step, default_problem(step));
    return kPass;
  }
  if (o.list) {
    if (o.json.empty()) {
      print_step_list(std::cout);
    } else {
      write_json(o.json, step_list_as_json());
    }
    return kPass;
  }
  refuse_what_does_not_apply(o, step);

  RunReport r;
  r.step = step;
  r.device = query_device();
  r.problem = problem_from(o, step, r.device);
  Inputs inputs;
  if (o.input.empty()) {
    r.values = std::string(dist_name(o.dist.value_or(Dist::normal))) + ", seed " + std::to_string(o.seed.value_or(0));
  } else {
    inputs = read_inputs(o, step, r.problem);
    r.values = "from files";
  }
  require_sound(r.problem);
  std::vector<float> expected;
  if (!o.expect.empty()) expected = read_expected(o.expect, r.problem);
  const Plan plan = plan_for(step, r.problem, r.device);
  try {
    if (!plan.refusal.empty()) throw Error(kNotSupported, plan.refusal);
    require_memory(step, r.problem, r.device);
  } catch (const Error& error) {
    if (!o.json.empty() && error.status == kNotSupported)
      write_json(o.json, report_without_result(r, Verdict::skip, error.what()));
    throw;
  }
  r.model = model_of(step, plan, r.problem, r.device);

  std::ostream quiet(nullptr);
  std::ostream& out = o.json == "-" ? quiet : std::cout;
  print_header(out, r);
  const bool many_blocks = size_t(r.problem.batch) * r.problem.heads > 1000;  // each costs time, however small
  if (!on_gpu() && (r.model.flops > 50e6 || many_blocks)) {
    const double seconds = estimated_seconds(step, r.problem);
    if (seconds > 5) {
      out << "         " << human_flops(r.model.flops) << " is much for the CPU back end: this may take "
          << human_seconds(seconds) << "\n"
          << std::flush;
    }
  }
  if (o.input.empty()) {
    inputs = make_inputs(r.problem, step.direction, o.dist.value_or(Dist::normal), o.seed.value_or(0));
  }

  std::optional<Execution> execution;
  Outputs outputs;
  try {
    const ProgressLine progress;
    execution.emplace(step, r.problem, inputs);
    reset_watch_report();
    const auto begin = std::chrono::steady_clock::now();
    execution->run();
    outputs = execution->outputs();
    r.wall_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    r.counts = take_watch_report();
  } catch (const Error& error) {
    r.counts = take_watch_report();  // what was seen before the kernel crashed, beside the crash itself
    if (!o.json.empty()) write_json(o.json, report_without_result(r, Verdict::fail, error.what()));
    const auto is_the_crash = [&](const WatchFault& fault) { return fault.message == error.what(); };
    auto& faults = r.counts.faults;
    faults.erase(std::remove_if(faults.begin(), faults.end(), is_the_crash), faults.end());
    print_faults(out, r.counts);
    throw;
  }

  write_outputs(o, step, r.problem, outputs);
  if (o.check) {
    r.checked = true;
    r.check = !o.expect.empty()                      ? check_expected(r.problem, inputs, outputs, expected)
              : step.direction == Direction::forward ? check_forward(r.problem, inputs, outputs, o.seed.value_or(0))
                                                     : check_backward(r.problem, inputs, outputs, o.seed.value_or(0));
  }
  const bool failed = verdict_of(r) == Verdict::fail;
  const bool unknown = o.check && verdict_of(r) == Verdict::skip;  // nobody can say whether it is right
  if (on_gpu() && !failed && !unknown) {                           // a wrong kernel isn't timed
    r.iters = o.iters ? *o.iters : default_iterations(*execution);
    r.time_ms = time_ms([&] { execution->run(); }, r.iters);
  }

  print_results(out, r, o.profile);
  if (!o.json.empty()) write_json(o.json, report_as_json(r));
  return failed ? kCheckFailed : unknown ? kNotSupported : kPass;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(parse_options(argc, argv));
  } catch (const Error& error) {
    const char* prefix = error.status == kNotSupported ? "SKIP: " : error.status == kDeviceError ? "FAIL: " : "./run: ";
    std::cout << std::flush;
    std::cerr << prefix << error.what() << "\n";
    return error.status;
  } catch (const std::bad_alloc&) {
    std::cerr << "SKIP: this problem needs more memory than the computer could give\n";
    return kNotSupported;
  }
}
