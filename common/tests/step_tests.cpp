#include "common/tests/step_tests.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "common/base/error.h"
#include "common/check/check.h"
#include "common/device/device.h"
#include "common/kernel/step.h"

namespace flash::tests {

const StepInfo& step() { return main_step(); }

const Device& device() {
  static const Device the_device = query_device();
  return the_device;
}

bool on_gpu() { return std::string(backend_name()) == "cuda"; }

Problem make_problem(int seqlen_q, int seqlen_k, int head_dim, Dtype dtype) {
  Problem p;
  p.seqlen_q = seqlen_q;
  p.seqlen_k = seqlen_k;
  p.head_dim = head_dim;
  p.softmax_scale = 1 / std::sqrt(float(head_dim));
  p.dtype = dtype;
  return p;
}

bool watched() {
  static const bool is_watched = [] {
    if (on_gpu()) return false;
    const Problem p = make_problem(1, 1, step().head_dims.front());
    reset_watch_report();
    run_once(step(), p, make_inputs(p, step().direction, Dist::normal, 1));
    return take_watch_report().watched;
  }();
  return is_watched;
}

std::string describe(const Problem& p, Dist dist) {
  std::ostringstream text;
  text << "batch " << p.batch << " heads " << p.heads << " kv_heads " << p.kv_heads << " seqlen_q " << p.seqlen_q
       << " seqlen_k " << p.seqlen_k << " head_dim " << p.head_dim << (p.causal ? " causal " : " ")
       << dtype_name(p.dtype) << " scale " << p.softmax_scale << " " << dist_name(dist)
       << (p.deterministic ? " deterministic" : "");
  return text.str();
}

namespace {

// A line of awkward_problems.txt, which says what its columns are.
struct Awkward {
  int batch, heads, kv_heads, seqlen_q, seqlen_k;
  std::string head_dim, causal;
  Dist dist;
  float scale;
  std::string where;
};

std::vector<Awkward> awkward_problems() {
  const char* const path = "common/tests/awkward_problems.txt";
  std::ifstream file(path);
  INFO(path << "; tests run in the repository's root");
  REQUIRE(file);
  std::vector<Awkward> problems;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    Awkward a;
    std::string dist;
    words >> a.batch >> a.heads >> a.kv_heads >> a.seqlen_q >> a.seqlen_k >> a.head_dim >> a.causal >> dist;
    words >> a.scale >> a.where;
    INFO(line);
    REQUIRE(words);
    REQUIRE(parse_dist(dist, &a.dist));
    problems.push_back(a);
  }
  return problems;
}

bool fits(const std::string& word, const std::string& value) { return word == "every" || word == value; }

}  // namespace

std::vector<Case> awkward_cases(const StepInfo& step) {
  const std::vector<Awkward> problems = awkward_problems();
  const bool few = watched(), half = !few && !on_gpu() && !std::getenv("FLASH_EVERY_PROBLEM");
  const size_t dtypes = step.dtypes.size(), head_dims = step.head_dims.size();
  std::vector<Case> cases;
  for (size_t d = 0; d < dtypes; ++d) {
    for (size_t h = 0; h < head_dims; ++h) {
      for (size_t i = 0; i < problems.size(); ++i) {
        const Awkward& a = problems[i];
        const Dtype dtype = step.dtypes[d];
        const int head_dim = step.head_dims[h];
        if ((few && a.where != "small") || !fits(a.head_dim, std::to_string(head_dim))) continue;
        if (half && a.head_dim == "every" && dtypes * head_dims > 1 && (d + h + i) % 2 == 1) continue;
        for (bool causal : {false, true}) {
          if (!fits(a.causal, causal ? "yes" : "no")) continue;
          Problem p = make_problem(a.seqlen_q, a.seqlen_k, head_dim, dtype);
          p.batch = a.batch;
          p.heads = a.heads;
          p.kv_heads = a.kv_heads;
          p.causal = causal;
          p.softmax_scale *= a.scale;
          if (plan_for(step, p, device()).refusal.empty()) cases.push_back({p, a.dist, cases.size() + 1});
        }
      }
    }
  }
  return cases;
}

void require_pass(const Problem& p, Dist dist, uint64_t seed, const StepInfo& step) {
  INFO(step.name << " on " << describe(p, dist) << " seed " << seed);
  const Inputs inputs = make_inputs(p, step.direction, dist, seed);
  reset_watch_report();
  const Outputs outputs = run_once(step, p, inputs);
  for (const WatchFault& fault : take_watch_report().faults) FAIL_CHECK(fault.message);
  const CheckResult result = step.direction == Direction::forward ? check_forward(p, inputs, outputs, seed)
                                                                  : check_backward(p, inputs, outputs, seed);
  INFO(result.message);
  REQUIRE(result.verdict == Verdict::pass);
}

void require_pass_awkward(const StepInfo& step) {
  const std::vector<Case> cases = awkward_cases(step);
  if (cases.empty()) WARN("SKIP: " << plan_for(step, make_problem(64, 64, step.head_dims.front()), device()).refusal);
  for (const Case& c : cases) require_pass(c.problem, c.dist, c.seed, step);
}

void require_pass_shuffled(const Problem& p, int seeds, const StepInfo& step) {
  if (on_gpu()) return;
  const char* before = std::getenv("EMU_SEED");
  const std::string saved = before ? before : "";
  for (int seed = 1; seed <= seeds; ++seed) {
    INFO("EMU_SEED=" << seed);
    setenv("EMU_SEED", std::to_string(seed).c_str(), 1);
    require_pass(p, Dist::normal, 1, step);
  }
  before ? setenv("EMU_SEED", saved.c_str(), 1) : unsetenv("EMU_SEED");
}

void require_refused(const Problem& p, const std::string& part, const StepInfo& step) {
  INFO(step.name << " on " << describe(p, Dist::normal));
  REQUIRE_THAT(plan_for(step, p, device()).refusal, ContainsSubstring(part));
  try {
    Execution(step, p, Inputs());
    FAIL("Execution took what the step refuses");
  } catch (const Error& error) {
    REQUIRE(error.status == kNotSupported);
    REQUIRE_THAT(error.what(), ContainsSubstring(part));
  }
}

WatchReport report_of(const Problem& p, const StepInfo& step) {
  const Inputs inputs = make_inputs(p, step.direction, Dist::normal, 1);
  Execution execution(step, p, inputs);
  reset_watch_report();
  execution.run();
  execution.outputs();
  return take_watch_report();
}

Counts counts_of(const Problem& p, const StepInfo& step) {
  INFO(step.name << " on " << describe(p, Dist::normal));
  REQUIRE(watched());
  const WatchReport report = report_of(p, step);
  for (const WatchFault& fault : report.faults) FAIL_CHECK(fault.message);
  return report.total();
}

namespace {

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// The kernel file of a step: 02_online_softmax/online_softmax.cu or 05_tensor_core/1_mma.cu.
std::string kernel_file(const StepInfo& step) {
  if (step.name.find('/') != std::string::npos) return step.name + ".cu";
  return step.name + "/" + step.name.substr(step.name.find('_') + 1) + ".cu";
}

struct Lines {
  int first, last;
};

// The line of a label and those below it that are indented further.
Lines lines_at(const std::string& label, const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  const auto indent = [](const std::string& line) { return std::min(line.find_first_not_of(' '), line.size()); };
  const std::string alone = "// @" + label, before_text = alone + ": ";
  std::vector<Lines> found;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (!ends_with(lines[i], alone) && lines[i].find(before_text) == std::string::npos) continue;
    size_t last = i;
    while (last + 1 < lines.size() && indent(lines[last + 1]) > indent(lines[i])) ++last;
    found.push_back({int(i) + 1, int(last) + 1});
  }
  INFO("the label @" << label << " in " << path << "; tests run in the repository's root");
  REQUIRE(found.size() == 1);
  return found[0];
}

}  // namespace

Counts counts_at(const WatchReport& report, const std::string& label, const StepInfo& step) {
  const std::string path = kernel_file(step);
  const Lines lines = lines_at(label, path);
  Counts sum;
  bool found = false;
  for (const KernelCounts& kernel : report.kernels) {
    for (const LineCounts& counted : kernel.lines) {
      if (counted.line < lines.first || counted.line > lines.last || !ends_with(counted.file, path)) continue;
      sum += counted.counts;
      found = true;
    }
  }
  INFO("something counted at @" << label << ", in lines " << lines.first << " to " << lines.last << " of " << path);
  REQUIRE(found);
  return sum;
}

void require_traffic(const Problem& p, const StepInfo& step) {
  if (!watched()) return;
  INFO(step.name << " on " << describe(p, Dist::normal));
  const Counts counts = counts_of(p, step);
  const Traffic expected = plan_for(step, p, query_device()).traffic;
  REQUIRE(double(counts.global_read.bytes) == expected.read_bytes);
  REQUIRE(double(counts.global_write.bytes) == expected.write_bytes);
}

}  // namespace flash::tests
