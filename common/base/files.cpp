#include "common/base/files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "common/base/error.h"

namespace flash {
namespace {

[[noreturn]] void refuse(const std::string& path, int why) {
  throw Error(kUsage, "can't write " + path + ": " + std::strerror(why));
}

// What stands at `path`, links followed; 0 where there is nothing yet.
mode_t kind_of(const std::string& path) {
  struct stat status;
  return stat(path.c_str(), &status) == 0 ? status.st_mode & S_IFMT : 0;
}

// The file itself where `path` is a link to one: renaming onto the link would replace the link.
std::string behind_links(const std::string& path) {
  char* const resolved = realpath(path.c_str(), nullptr);
  const std::string real = resolved ? resolved : path;
  std::free(resolved);
  return real;
}

// The error of the first call that failed, or 0.
int write_all(const std::string& path, const std::string& head, const void* data, size_t bytes) {
  std::FILE* const file = std::fopen(path.c_str(), "wb");
  if (!file) return errno;
  errno = 0;
  bool good = std::fwrite(head.data(), 1, head.size(), file) == head.size();
  good = good && (bytes == 0 || std::fwrite(data, 1, bytes, file) == bytes);
  good = good && std::fflush(file) == 0;
  int why = good ? 0 : errno ? errno : EIO;
  if (std::fclose(file) != 0 && why == 0) why = errno;
  return why;
}

}  // namespace

void require_writable(const std::string& path) {
  const mode_t kind = kind_of(path);
  if (kind == S_IFDIR) refuse(path, EISDIR);
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  const bool in_place = kind != 0 && kind != S_IFREG;
  if (access(in_place ? path.c_str() : folder.c_str(), W_OK) != 0) refuse(path, errno);
  if (slash + 1 == path.size()) refuse(path, EISDIR);  // x/ is no file's name
}

void write_file(const std::string& path, const std::string& head, const void* data, size_t bytes) {
  const mode_t kind = kind_of(path);
  if (kind == S_IFDIR) refuse(path, EISDIR);
  if (kind != 0 && kind != S_IFREG) {
    if (const int why = write_all(path, head, data, bytes)) refuse(path, why);
    return;
  }
  const std::string real = behind_links(path);
  const std::string unfinished = real + ".part" + std::to_string(getpid());
  int why = write_all(unfinished, head, data, bytes);
  if (why == 0 && std::rename(unfinished.c_str(), real.c_str()) != 0) why = errno;
  if (why != 0) {
    std::remove(unfinished.c_str());
    refuse(path, why);
  }
}

}  // namespace flash
