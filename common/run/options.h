// The command line of ./run. docs/json.md and `./run --help` describe what the options do.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/kernel/step.h"
#include "common/problem/inputs.h"
#include "common/problem/problem.h"

namespace flash {

// What was asked for; what wasn't is empty and takes its default in run.cpp, which knows the step and the device.
struct Options {
  std::optional<int> batch, heads, kv_heads, seqlen, seqlen_k, head_dim;
  bool causal = false;
  std::optional<float> scale;
  std::optional<Dtype> dtype;
  std::optional<Dist> dist;
  std::optional<uint64_t> seed;
  std::optional<int> iters;
  bool deterministic = false;

  std::vector<std::string> input;   // q, k, v and for a backward step dO
  std::string expect;               // O
  std::vector<std::string> output;  // O, or dQ, dK, dV
  std::string json;                 // a file, or "-" for standard output
  bool check = true;
  bool profile = false;
  bool list = false;
  bool help = false;
};

// Throws Error(kUsage) with a sentence about the first thing that is wrong.
Options parse_options(int argc, char** argv);

// The page that --help prints; `defaults` are the sizes of a run without options here.
std::string help_text(const StepInfo&, const Problem& defaults);

}  // namespace flash
