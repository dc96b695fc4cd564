// How far a long kernel is on the CPU back end.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

namespace flash {

// Called on the OS thread that called launch(), after blocks that it ran itself, with the blocks done in all and the
// blocks of the grid. An empty function takes the callback away. The callback decides how often to print.
using Progress = std::function<void(const std::string& kernel, uint64_t blocks_done, uint64_t blocks)>;
void set_progress(Progress);

}  // namespace flash
