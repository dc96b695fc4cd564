#include "common/emu/watch/sites.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <unistd.h>
#include <cstdint>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/emu/run/symbols.h"

extern char** environ;

namespace flash::emu {

namespace {

// A running `addr2line -e this-program -a -i`. It answers each address with the address itself and a file:line for each
// function the instruction was inlined into, innermost first; a second, impossible address marks the answer's end.
class LineFinder {
 public:
  LineFinder() {
    char program[PATH_MAX] = {};
    if (readlink("/proc/self/exe", program, sizeof program - 1) <= 0) return;
    int question[2], answer[2];
    if (pipe2(question, O_CLOEXEC) != 0) return;
    if (pipe2(answer, O_CLOEXEC) != 0) {
      close(question[0]), close(question[1]);
      return;
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, question[0], 0);
    posix_spawn_file_actions_adddup2(&actions, answer[1], 1);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    const char* arguments[] = {"addr2line", "-e", program, "-a", "-i", nullptr};
    pid_t pid = 0;
    const int status = posix_spawnp(&pid, "addr2line", &actions, nullptr, const_cast<char* const*>(arguments), environ);
    posix_spawn_file_actions_destroy(&actions);
    close(question[0]), close(answer[1]);
    if (status != 0) {
      close(question[1]), close(answer[0]);
      return;
    }
    question_ = question[1];
    answer_ = fdopen(answer[0], "r");
  }
  ~LineFinder() {  // addr2line ends when it has nothing left to read
    if (question_ >= 0) close(question_);
    if (answer_) std::fclose(answer_);
  }

  // The file:line of each inlined level, innermost first.
  std::vector<std::string> ask(uintptr_t address) {
    std::vector<std::string> levels;
    if (!answer_) return levels;
    char text[64];
    const int length =
        std::snprintf(text, sizeof text, "%#lx\n0xfffffffffffffff0\n", static_cast<unsigned long>(address));
    if (!say(text, size_t(length))) return levels;
    char* line = nullptr;
    size_t capacity = 0;
    int addresses = 0;
    while (getline(&line, &capacity, answer_) > 0) {
      if (std::strncmp(line, "0x", 2) == 0) {
        ++addresses;
        continue;
      }
      if (addresses == 2) break;  // the "??:0" of the impossible address
      line[std::strcspn(line, "\n")] = 0;
      levels.push_back(line);
    }
    std::free(line);
    return levels;
  }

 private:
  bool say(const char* text, size_t length) {
    struct sigaction ignore = {}, before;
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &ignore, &before);  // addr2line may be missing or gone
    const bool said = write(question_, text, length) == ssize_t(length);
    sigaction(SIGPIPE, &before, nullptr);
    return said;
  }

  int question_ = -1;
  std::FILE* answer_ = nullptr;
};

struct Table {
  std::vector<CallSite> places = {CallSite()};
  std::vector<Site> resolved = {Site{"?", 0}};
  std::unordered_map<uint64_t, uint32_t> numbers;
};
Table& table() {
  static Table* the_table = new Table;  // hooks may run while statics are destroyed
  return *the_table;
}

// The path as the compiler was given it, cleaned: "/a/b/./c.cu" -> "/a/b/c.cu", below the current directory "c.cu".
std::string tidy(std::string path) {
  for (size_t at; (at = path.find("/./")) != std::string::npos;) path.erase(at, 2);
  if (path.compare(0, 2, "./") == 0) path.erase(0, 2);
  static const std::string here = [] {
    char directory[PATH_MAX];
    return getcwd(directory, sizeof directory) ? std::string(directory) + "/" : std::string();
  }();
  if (!here.empty() && path.compare(0, here.size(), here) == 0) path.erase(0, here.size());
  return path;
}

bool is_plumbing(const std::string& file) {
  for (const char* part : {"common/emu/", "common/kernel/"}) {
    const size_t at = file.find(part);
    if (at != std::string::npos && file.find("common/emu/calibrate/") == std::string::npos) return true;
  }
  return file.find("/c++/") != std::string::npos;
}

Site to_site(const std::string& text) {  // "file:12 (discriminator 3)"
  const size_t colon = text.rfind(':', text.find(" (discriminator"));
  if (colon == std::string::npos) return {text, 0};
  return {tidy(text.substr(0, colon)), std::atoi(text.c_str() + colon + 1)};
}

// file:line of each function the instruction was inlined into, innermost first.
std::vector<std::string> levels_of(const CallSite& place) {
  static LineFinder finder;
  // The return address is the next instruction's: one byte back lies in the call.
  return finder.ask(reinterpret_cast<uintptr_t>(place.pc) - load_bias() - 1);
}

}  // namespace

uint32_t site_number(CallSite place) {
  Table& t = table();
  const uint64_t key = uint64_t(reinterpret_cast<uintptr_t>(place.pc)) * 0x9e3779b97f4a7c15u ^
                       (place.file ? uint64_t(place.line) << 40 : 0);
  const auto [at, is_new] = t.numbers.try_emplace(key, uint32_t(t.places.size()));
  if (is_new) {
    if (t.places.size() >= (1u << kSiteBits)) return at->second = (1u << kSiteBits) - 1;
    t.places.push_back(place);
    t.resolved.push_back(place.file ? Site{tidy(place.file), place.line} : Site{});
  }
  return at->second;
}

Site resolve_site(uint32_t number) {
  Table& t = table();
  if (number >= t.places.size()) return {"?", 0};
  Site& site = t.resolved[number];
  if (site.file.empty()) {
    site = {"?", 0};
    for (const std::string& level : levels_of(t.places[number])) {
      if (level.compare(0, 2, "??") == 0) continue;
      if (!is_plumbing(level)) {
        site = to_site(level);
        break;
      }
      if (site.line == 0) site = to_site(level);  // better than nothing
    }
  }
  return site;
}

bool is_vector_copy(uint32_t number) {
  static std::unordered_map<uint32_t, bool> known;
  const auto [at, is_new] = known.try_emplace(number, false);
  if (is_new) {
    const std::vector<std::string> levels = levels_of(table().places[number]);
    at->second = !levels.empty() && (levels[0].find("vector_types.h") != std::string::npos ||
                                     levels[0].find("half_types.h") != std::string::npos);
  }
  return at->second;
}

}  // namespace flash::emu
