#include "common/run/options.h"

#include <getopt.h>
#include <cstdint>

#include <cerrno>
#include <climits>
#include <cmath>
#include <cstdlib>

#include "common/base/error.h"
#include "common/base/text.h"
#include "common/kernel/step.h"

namespace flash {

namespace {

enum Option {
  kBatch = 256,
  kHeads,
  kKvHeads,
  kSeqlen,
  kSeqlenK,
  kHeadDim,
  kCausal,
  kScale,
  kDtype,
  kDist,
  kSeed,
  kIters,
  kDeterministic,
  kInput,
  kExpect,
  kOutput,
  kJson,
  kNoCheck,
  kProfile,
  kList,
  kHelp,
};

const option kOptions[] = {
    {"batch", required_argument, nullptr, kBatch},
    {"heads", required_argument, nullptr, kHeads},
    {"kv-heads", required_argument, nullptr, kKvHeads},
    {"seqlen", required_argument, nullptr, kSeqlen},
    {"seqlen-k", required_argument, nullptr, kSeqlenK},
    {"head-dim", required_argument, nullptr, kHeadDim},
    {"causal", no_argument, nullptr, kCausal},
    {"scale", required_argument, nullptr, kScale},
    {"dtype", required_argument, nullptr, kDtype},
    {"dist", required_argument, nullptr, kDist},
    {"seed", required_argument, nullptr, kSeed},
    {"iters", required_argument, nullptr, kIters},
    {"deterministic", no_argument, nullptr, kDeterministic},
    {"input", required_argument, nullptr, kInput},
    {"expect", required_argument, nullptr, kExpect},
    {"output", required_argument, nullptr, kOutput},
    {"json", required_argument, nullptr, kJson},
    {"no-check", no_argument, nullptr, kNoCheck},
    {"profile", no_argument, nullptr, kProfile},
    {"list", no_argument, nullptr, kList},
    {"help", no_argument, nullptr, kHelp},
    {nullptr, 0, nullptr, 0},
};

[[noreturn]] void usage_error(const std::string& sentence) {
  throw Error(kUsage, sentence + " (./run --help lists the options)");
}

bool all_digits(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

int parse_count(const char* name, const std::string& text, int most = INT_MAX) {
  errno = 0;
  const unsigned long long value = all_digits(text) ? std::strtoull(text.c_str(), nullptr, 10) : 0;
  if (errno || value < 1 || value > unsigned(most)) {
    usage_error(format("--%s must be a whole number from 1 to %d, not '%s'", name, most, text.c_str()));
  }
  return int(value);
}

uint64_t parse_seed(const std::string& text) {
  errno = 0;
  const unsigned long long value = all_digits(text) ? std::strtoull(text.c_str(), nullptr, 10) : 0;
  if (errno || !all_digits(text)) {
    usage_error(format("--seed must be a whole number from 0 to %llu, not '%s'", ULLONG_MAX, text.c_str()));
  }
  return value;
}

float parse_scale(const std::string& text) {
  char* end = nullptr;
  const float value = std::strtof(text.c_str(), &end);
  const bool starts_well = !text.empty() && text.find_first_of(" \t\n") == std::string::npos;
  if (!starts_well || *end != '\0' || !std::isfinite(value) || value <= 0) {
    usage_error("--scale must be a finite number above 0 that fp32 can hold, not '" + text + "'");
  }
  return value;
}

Dtype parse_dtype(const std::string& text) {
  for (Dtype dtype : {Dtype::fp32, Dtype::fp16, Dtype::bf16}) {
    if (text == dtype_name(dtype)) return dtype;
  }
  usage_error("--dtype must be fp32, fp16 or bf16, not '" + text + "'");
}

std::vector<std::string> parse_files(const char* name, const std::string& text) {
  const std::vector<std::string> files = split(text, ',');
  for (const std::string& file : files) {
    if (file.empty())
      usage_error(format("--%s takes file names with one comma between them, not '%s'", name, text.c_str()));
  }
  return files;
}

}  // namespace

Options parse_options(int argc, char** argv) {
  Options o;
  opterr = 0;  // our sentences, not getopt's
  optind = 1;
  for (;;) {
    const int at = optind;
    const int which = getopt_long(argc, argv, ":h", kOptions, nullptr);
    if (which == -1) break;
    const std::string value = optarg ? optarg : "";
    switch (which) {
      case kBatch: o.batch = parse_count("batch", value); break;
      case kHeads: o.heads = parse_count("heads", value); break;
      case kKvHeads: o.kv_heads = parse_count("kv-heads", value); break;
      case kSeqlen: o.seqlen = parse_count("seqlen", value); break;
      case kSeqlenK: o.seqlen_k = parse_count("seqlen-k", value); break;
      case kHeadDim: o.head_dim = parse_count("head-dim", value); break;
      case kCausal: o.causal = true; break;
      case kScale: o.scale = parse_scale(value); break;
      case kDtype: o.dtype = parse_dtype(value); break;
      case kDist: {
        Dist dist;
        if (!parse_dist(value, &dist)) {
          usage_error("--dist must be normal, uniform, outliers, large or negative, not '" + value + "'");
        }
        o.dist = dist;
        break;
      }
      case kSeed: o.seed = parse_seed(value); break;
      case kIters: o.iters = parse_count("iters", value, 1000000); break;
      case kDeterministic: o.deterministic = true; break;
      case kInput: o.input = parse_files("input", value); break;
      case kExpect: o.expect = value; break;
      case kOutput: o.output = parse_files("output", value); break;
      case kJson: o.json = value; break;
      case kNoCheck: o.check = false; break;
      case kProfile: o.profile = true; break;
      case kList: o.list = true; break;
      case 'h':
      case kHelp: o.help = true; break;
      case ':': usage_error(std::string(argv[optind - 1]) + " needs a value");
      default: {
        const std::string given = argv[optind > at ? optind - 1 : at];
        if (optopt >= kBatch) usage_error(given.substr(0, given.find('=')) + " takes no value");
        usage_error("there is no option " + given);
      }
    }
    if ((which == kExpect || which == kJson) && value.empty()) usage_error("a file name is empty");
  }
  if (optind < argc)
    usage_error("every argument is an option with two dashes; '" + std::string(argv[optind]) + "' is not");
  if (!o.input.empty() && (o.dist || o.seed))
    usage_error("--input reads the values from files, so --dist and --seed have no use with it");
  if (!o.check && !o.expect.empty()) usage_error("--expect asks for a check and --no-check for none");
  return o;
}

std::string help_text(const StepInfo& step, const Problem& defaults) {
  const bool backward = step.direction == Direction::backward;
  std::string text = "./run: " + step.name + ", " + step.idea + "\n";
  text += R"(
It makes (or reads) Q, K and V, runs the step, checks the result against double precision, and reports.

The problem)";
  text += format(" (without options here: batch %d, heads %d, seqlen %d, head_dim %d, %s)", defaults.batch,
                 defaults.heads, defaults.seqlen_q, defaults.head_dim, dtype_name(defaults.dtype));
  text += R"(
  --batch N          batch size
  --heads N          query heads
  --kv-heads N       key/value heads; must divide the query heads (default: as many as query heads)
  --seqlen N         query rows and keys
  --seqlen-k N       keys, where they are not as many as query rows
  --head-dim N       elements of a head
  --causal           a query sees the keys up to its own position, aligned to the last ones
  --scale X          factor of Q K^T before the softmax (default: 1/sqrt(head_dim))
  --dtype T          fp32, fp16 or bf16
  --dist D           values: normal, uniform, outliers, large or negative (default: normal)
  --seed N           of the values (default: 0)
)";
  if (backward) text += "  --deterministic    gradients with the same bits run after run\n";
  text += "\nFiles (NumPy .npy; [batch, heads, seqlen, head_dim], C order: float32, float16, or uint16 for bf16)\n";
  text += backward ? "  --input Q,K,V,DO   read the values; the problem's sizes are the files'\n"
                     "  --output A,B,C     write dQ, dK and dV\n"
                   : "  --input Q,K,V      read the values; the problem's sizes are the files'\n"
                     "  --expect O         check O against this file instead of the reference\n"
                     "  --output O         write O\n";
  text += R"(
The run
  --iters N          timed calls on a GPU (default: about a second's worth)
  --no-check         run without checking
  --profile          counts by kernel and by source line (CPU back end)
  --json FILE        the report as JSON; - for standard output, and then nothing else goes there
  --list             the steps in this program; with --json for a program
  --help             this page

Exit status: 0 pass, 1 wrong result or faulty access, 2 bad option or file, 3 CUDA error or crashed kernel,
4 the step, the device, its memory or the check can't take the problem.
)";
  return text;
}

}  // namespace flash
