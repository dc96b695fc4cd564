#include "common/run/progress_line.h"

#include <unistd.h>
#include <cstdint>

#include <chrono>
#include <cstdio>

#include "common/base/text.h"
#include "common/device/progress.h"

namespace flash {

namespace {

using Clock = std::chrono::steady_clock;

struct State {
  std::string kernel;
  Clock::time_point begin, last_print;
  uint64_t blocks_before = UINT64_MAX;

  void operator()(const std::string& name, uint64_t done, uint64_t blocks) {
    const Clock::time_point now = Clock::now();
    if (name != kernel || done < blocks_before) {  // a new launch
      kernel = name;
      begin = last_print = now;
    }
    blocks_before = done;
    const std::chrono::duration<double> since_begin = now - begin, since_print = now - last_print;
    if (since_begin.count() < 1 || since_print.count() < 0.2 || done == 0) return;
    last_print = now;
    const double left = since_begin.count() * double(blocks - done) / double(done);
    std::fprintf(stderr, "\r\033[K%s: %s of %s blocks, %s left", name.c_str(), with_commas(done).c_str(),
                 with_commas(blocks).c_str(), human_seconds(left).c_str());
    std::fflush(stderr);
  }
};

}  // namespace

ProgressLine::ProgressLine() {
  if (isatty(STDERR_FILENO)) set_progress(State());
}

ProgressLine::~ProgressLine() {
  set_progress({});
  if (isatty(STDERR_FILENO)) std::fputs("\r\033[K", stderr);
}

}  // namespace flash
