// base/ has small things that everybody uses and that know nothing of attention: this error, text, files, JSON, threads.
//
// The one exception the project throws for a person to read: a sentence and the exit status it ends ./run with.
#pragma once
#include <stdexcept>
#include <string>

namespace flash {

enum Status {
  kPass = 0,
  kCheckFailed = 1,   // the kernel ran and its result (or a watched access) is wrong
  kUsage = 2,         // the command line or an input file is wrong
  kDeviceError = 3,   // a CUDA call failed, or a kernel crashed on the CPU back end
  kNotSupported = 4,  // SKIP: this step, device or problem size does not go together
};

struct Error : std::runtime_error {
  Error(Status status, const std::string& sentence) : std::runtime_error(sentence), status(status) {}
  Status status;
};

}  // namespace flash
