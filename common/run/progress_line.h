// A line on the terminal that says how far a long kernel on the CPU back end is, while this object lives. Nothing is
// written when standard error is no terminal, in a kernel's first second, or on a GPU.
#pragma once

namespace flash {

class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
};

}  // namespace flash
