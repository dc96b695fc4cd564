// Files that ./run writes: whole or not at all.
#pragma once
#include <cstddef>
#include <string>

namespace flash {

// Throws Error(kUsage) if `path` can't be written: said before a long run rather than after it.
void require_writable(const std::string& path);

// Writes `head`, then `bytes` bytes of `data`, to a temporary file beside `path` that then takes its name: nobody ever sees
// half of it. A device or a pipe (/dev/null, /dev/stdout) is written to as it stands. Throws Error(kUsage) with the reason.
void write_file(const std::string& path, const std::string& head, const void* data = nullptr, size_t bytes = 0);

}  // namespace flash
