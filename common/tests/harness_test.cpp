// The parts of ./run that are no step: text, JSON, the model, memory limits, and the execution of a step. The steps
// here are made up: host functions that read and write "device" memory, which the CPU back end allows.
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>

#include "common/base/error.h"
#include "common/base/json.h"
#include "common/base/text.h"
#include "common/check/check.h"
#include "common/device/device.h"
#include "common/device/memory.h"
#include "common/kernel/step.h"
#include "common/run/execution.h"
#include "common/run/memory.h"
#include "common/run/model.h"
#include "common/run/options.h"
#include "common/tests/catch.h"

using namespace flash;

namespace {

size_t workspace_seen = 0;
bool outputs_were_nan = false;

// "O" is V's first row, the LSE is 7.
void copy_v(const ForwardArgs& a, const Plan&, void* workspace, Stream) {
  const Problem& p = a.problem;
  float* o = static_cast<float*>(a.o);
  outputs_were_nan = std::isnan(o[0]) && std::isnan(a.softmax_lse[0]);
  workspace_seen = workspace ? reinterpret_cast<uintptr_t>(workspace) % 256 + 1 : 0;
  for (size_t i = 0; i < q_elements(p); ++i) o[i] = static_cast<const float*>(a.v)[i % p.head_dim];
  for (size_t i = 0; i < q_rows(p); ++i) a.softmax_lse[i] = 7;
}

StepInfo copy_step() {
  StepInfo step;
  step.name = "90_copy";
  step.dtypes = {Dtype::fp32};
  step.head_dims = {32};
  step.plan = [](const Problem& p, const Device&) {
    Plan plan;
    plan.workspace_bytes = q_rows(p) * 4;
    plan.traffic = {double(q_elements(p)) * 4, 100};
    return plan;
  };
  step.forward = copy_v;
  return step;
}

Problem small_problem() {
  Problem p;
  p.heads = p.kv_heads = 2;
  p.seqlen_q = 3;
  p.seqlen_k = 5;
  p.head_dim = 32;
  return p;
}

Status status_of(const std::function<void()>& work, std::string* sentence = nullptr) {
  try {
    work();
  } catch (const Error& error) {
    if (sentence) *sentence = error.what();
    return error.status;
  }
  return kPass;
}

Options parse(std::vector<std::string> words) {
  words.insert(words.begin(), "./run");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  return parse_options(int(words.size()), argv.data());
}

}  // namespace

TEST_CASE("numbers as a person reads them") {
  CHECK(with_commas(0) == "0");
  CHECK(with_commas(999) == "999");
  CHECK(with_commas(1234567) == "1,234,567");
  CHECK(human_bytes(0) == "0 B");
  CHECK(human_bytes(999) == "999 B");
  CHECK(human_bytes(1000) == "1.00 kB");
  CHECK(human_bytes(262144) == "262 kB");
  CHECK(human_bytes(16.1e9) == "16.1 GB");
  CHECK(human_flops(8.4e6) == "8.40 MFLOP");
  CHECK(human_seconds(0.84) == "0.8 s");
  CHECK(human_seconds(300) == "5 min");
  CHECK(split("a,,b", ',') == std::vector<std::string>{"a", "", "b"});
}

TEST_CASE("JSON: nesting, escapes, what has no number") {
  JsonWriter json;
  json.begin_object();
  json.value("text", "a\"b\\c\nd\x01");
  json.value("third", 1.0 / 3);
  json.value("none", std::numeric_limits<double>::infinity());
  json.begin_array("list");
  json.begin_object();
  json.end_object();
  json.end_array();
  json.members_of("{\"x\": 1, \"y\": [2]}");
  json.members_of("{ }");
  json.value("last", std::vector<int>{1, 2});
  json.end_object();
  CHECK(json.text() ==
        "{\n  \"text\": \"a\\\"b\\\\c\\nd\\u0001\",\n  \"third\": 0.33333333333333331,\n  \"none\": null,\n"
        "  \"list\": [\n    {}\n  ],\n  \"x\": 1, \"y\": [2],\n  \"last\": [1, 2]\n}\n");
}

TEST_CASE("options are read, and what was not given stays open") {
  const Options o =
      parse({"--batch", "3", "--scale=0.5", "--causal", "--dtype", "bf16", "--input", "a,b,c", "--seqlen-k", "9"});
  CHECK(o.batch == 3);
  CHECK(o.scale == 0.5f);
  CHECK(o.causal);
  CHECK(o.dtype == Dtype::bf16);
  CHECK(o.input == std::vector<std::string>{"a", "b", "c"});
  CHECK(o.seqlen_k == 9);
  CHECK_FALSE(o.seqlen);
  CHECK_FALSE(o.heads);
  CHECK(o.check);
  CHECK(status_of([] { parse({"--seqlen", "0x10"}); }) == kUsage);
}

TEST_CASE("the model: intensity, the ridge, and the roof that binds") {
  Device device;
  device.peak_fp32_tflops = 10;
  device.peak_tensor_tflops = 100;
  device.peak_gb_per_s = 1000;  // the fp32 ridge is at 10 FLOP a byte, the tensor cores' at 100
  Problem p = small_problem();
  p.seqlen_q = p.seqlen_k = 64;
  StepInfo step = copy_step();
  Model m = model_of(step, plan_for(step, p, device), p, device);
  CHECK(m.flops == 4.0 * 2 * 64 * 64 * 32);
  CHECK(m.min_bytes == 4.0 * (4 * 2 * 64 * 32 + 2 * 64));
  CHECK(m.ridge == Approx(10));
  CHECK(m.compute_bound);
  CHECK(m.least_ms == Approx(m.flops / 10e12 * 1e3));
  step.uses_tensor_cores = true;
  m = model_of(step, plan_for(step, p, device), p, device);
  CHECK_FALSE(m.compute_bound);
  CHECK(m.least_ms == Approx(m.min_bytes / 1e12 * 1e3));
  device.is_emulated = true;  // a virtual device has no roofs
  CHECK(model_of(step, plan_for(step, p, device), p, device).ridge == 0);
}

TEST_CASE("what can't be counted or held is refused before anything is allocated") {
  Problem p = small_problem();
  p.batch = p.heads = p.kv_heads = p.seqlen_q = std::numeric_limits<int>::max();
  CHECK(status_of([&] { require_countable(p); }) == kUsage);
  p = small_problem();
  p.seqlen_k = 1 << 30;
  Device device = query_device();
  device.global_bytes = 1 << 20;
  std::string sentence;
  CHECK(status_of([&] { require_memory(copy_step(), p, device); }, &sentence) == kNotSupported);
  CHECK_THAT(sentence, ContainsSubstring("549,755,815,472 bytes"));  // K and V 2 * 2 * 2^30 * 32 * 4, and a little
  CHECK_THAT(sentence, ContainsSubstring("1,048,576 bytes"));
  StepInfo greedy = copy_step();
  greedy.plan = [](const Problem&, const Device&) {
    Plan plan;
    plan.workspace_bytes = SIZE_MAX;
    return plan;
  };
  CHECK(device_bytes(greedy, small_problem(), device) == SIZE_MAX);
  const size_t before = device_ledger().size();
  CHECK(status_of([&] { Execution(greedy, small_problem(), Inputs()); }) == kNotSupported);
  CHECK(device_ledger().size() == before);
}

TEST_CASE("a step gets NaN outputs, an aligned workspace, and its results come back") {
  const Problem p = small_problem();
  const StepInfo step = copy_step();
  const Inputs inputs = make_inputs(p, Direction::forward, Dist::normal, 1);
  {
    Execution execution(step, p, inputs);
    CHECK(execution.plan().workspace_bytes == 2 * 3 * 4);
    size_t live = 0;
    for (const LedgerEntry& entry : device_ledger()) live += entry.bytes;
    CHECK(live == device_bytes(step, p, query_device()));
    CHECK(device_ledger().back().label == "workspace");
    execution.run();
    const Outputs outputs = execution.outputs();
    CHECK(outputs_were_nan);
    CHECK(workspace_seen == 1);  // 256-byte aligned
    CHECK(outputs.o.size() == q_elements(p));
    CHECK(outputs.o[33] == inputs.v[1]);
    CHECK(outputs.softmax_lse == std::vector<float>(6, 7.f));
    CHECK(check_forward(p, inputs, outputs).verdict == Verdict::fail);
  }
  CHECK(device_ledger().empty());
}

TEST_CASE("a step finds zeros where its plan asks for them, and NaN in the rest of its workspace") {
  StepInfo step = copy_step();
  step.plan = [](const Problem& p, const Device& device) {
    Plan plan = copy_step().plan(p, device);
    plan.zeroed_bytes = 8;
    return plan;
  };
  step.forward = [](const ForwardArgs& a, const Plan& plan, void* workspace, Stream stream) {
    const auto* bytes = static_cast<const unsigned char*>(workspace);
    for (size_t i = 0; i < plan.workspace_bytes; ++i) CHECK(int(bytes[i]) == (i < 8 ? 0 : 0xff));
    copy_v(a, plan, workspace, stream);
  };
  const Problem p = small_problem();
  const Inputs inputs = make_inputs(p, Direction::forward, Dist::normal, 1);
  CHECK(status_of([&] { run_once(step, p, inputs); }) == kPass);
  step.forward = [](const ForwardArgs&, const Plan&, void* workspace, Stream) {
    static_cast<unsigned char*>(workspace)[7] = 1;
  };
  std::string sentence;
  CHECK(status_of([&] { run_once(step, p, inputs); }, &sentence) == kDeviceError);
  CHECK(sentence ==
        "90_copy doesn't leave zeros in the first 8 bytes of its workspace, where every call must find zeros: the next "
        "would go wrong");
}

TEST_CASE("a step is refused by name where it can't take the problem") {
  Problem p = small_problem();
  p.head_dim = 64;
  std::string sentence;
  CHECK(status_of([&] { run_once(copy_step(), p, Inputs()); }, &sentence) == kNotSupported);
  CHECK(sentence == "90_copy takes head_dim 32, not 64");
  StepInfo backward = copy_step();
  backward.direction = Direction::backward;
  CHECK(status_of([&] { device_bytes(backward, small_problem(), query_device()); }, &sentence) == kNotSupported);
  CHECK_THAT(sentence, ContainsSubstring("no forward step"));
}
