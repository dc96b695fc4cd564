#include "common/emu/run/symbols.h"

#include <cxxabi.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cstdint>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

namespace flash::emu {
namespace {

struct Function {
  uintptr_t begin, end;  // link-time addresses
  std::string name;
  int object_file;  // which STT_FILE group a local symbol stands in; -1: a global symbol
};

struct TlsArray {
  size_t offset, bytes;  // in the TLS segment
  std::string mangled;
  int object_file;
};

struct SymbolTable {
  std::vector<Function> functions;  // by address
  std::vector<TlsArray> tls_arrays;
  std::vector<TlsArray> tls_guards;  // "_ZGVZ...": has the constructor of the array run?
};

// Reads .symtab of the executable. Whatever is missing or odd gives an empty table.
SymbolTable read_symbols() {
  SymbolTable table;
  const int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  if (file < 0) return table;
  struct stat info {};
  void* const map =
      fstat(file, &info) == 0 ? mmap(nullptr, size_t(info.st_size), PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
  close(file);
  if (map == MAP_FAILED) return table;

  const auto* const base = static_cast<const unsigned char*>(map);
  const auto* const header = reinterpret_cast<const ElfW(Ehdr)*>(base);
  if (std::memcmp(header->e_ident, ELFMAG, SELFMAG) == 0 && header->e_shoff != 0) {
    const auto* const sections = reinterpret_cast<const ElfW(Shdr)*>(base + header->e_shoff);
    for (int s = 0; s < header->e_shnum; ++s) {
      if (sections[s].sh_type != SHT_SYMTAB) continue;
      const char* const names = reinterpret_cast<const char*>(base + sections[sections[s].sh_link].sh_offset);
      const auto* const symbols = reinterpret_cast<const ElfW(Sym)*>(base + sections[s].sh_offset);
      int object_file = -1;
      for (size_t i = 0; i < sections[s].sh_size / sizeof(ElfW(Sym)); ++i) {
        const ElfW(Sym)& symbol = symbols[i];
        const char* const name = names + symbol.st_name;
        const int type = symbol.st_info & 0xf, binding = symbol.st_info >> 4;
        const int home = binding == STB_LOCAL ? object_file : -1;
        if (type == STT_FILE) object_file = int(i);
        if (symbol.st_shndx == SHN_UNDEF) continue;
        if (type == STT_FUNC && symbol.st_size > 0) {
          table.functions.push_back({symbol.st_value, symbol.st_value + symbol.st_size, name, home});
        }
        if (type != STT_TLS) continue;
        const TlsArray array = {symbol.st_value, symbol.st_size, name, home};
        if (std::strncmp(name, "_ZZ", 3) == 0) table.tls_arrays.push_back(array);
        if (std::strncmp(name, "_ZGVZ", 5) == 0) table.tls_guards.push_back(array);
      }
    }
  }
  munmap(map, size_t(info.st_size));
  std::sort(table.functions.begin(), table.functions.end(),
            [](const Function& a, const Function& b) { return a.begin < b.begin; });
  return table;
}

const SymbolTable& symbol_table() {
  static const SymbolTable table = read_symbols();
  return table;
}

const Function* find_function(const void* address) {
  const uintptr_t wanted = reinterpret_cast<uintptr_t>(address) - load_bias();
  const auto& functions = symbol_table().functions;
  auto next = std::upper_bound(functions.begin(), functions.end(), wanted,
                               [](uintptr_t value, const Function& f) { return value < f.begin; });
  if (next == functions.begin()) return nullptr;
  --next;
  return wanted < next->end ? &*next : nullptr;
}

struct Executable {
  uintptr_t bias = 0;
  unsigned char* tls_begin = nullptr;
  size_t tls_bytes = 0;
};

// The first object dl_iterate_phdr shows is the executable; its TLS data is that of the calling OS thread.
Executable find_executable() {
  Executable found;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* result) {
        auto* const executable = static_cast<Executable*>(result);
        executable->bias = info->dlpi_addr;
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          if (info->dlpi_phdr[i].p_type != PT_TLS) continue;
          executable->tls_begin = static_cast<unsigned char*>(info->dlpi_tls_data);
          executable->tls_bytes = info->dlpi_phdr[i].p_memsz;
        }
        return 1;
      },
      &found);
  return found;
}

std::string demangle(const std::string& mangled) {
  int status = 0;
  char* const text = abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status);
  const std::string result = status == 0 ? text : mangled;
  std::free(text);
  return result;
}

void erase_all(std::string* text, const std::string& part) {
  for (size_t at = text->find(part); at != std::string::npos; at = text->find(part, at)) text->erase(at, part.size());
}

// "_ZZN3fooEvE4tile" and "_ZZ...E4tile_0" (the second array of that name): the text after the function's encoding is a
// length and a name. Found from the end: the last length that fits.
void split_local_name(const std::string& mangled, std::string* function, std::string* array) {
  for (size_t at = mangled.size() - 1; at > 3; --at) {
    if (mangled[at - 1] != 'E' || mangled[at] < '1' || mangled[at] > '9') continue;
    size_t name = at, length = 0;
    while (name < mangled.size() && mangled[name] >= '0' && mangled[name] <= '9') {
      length = 10 * length + size_t(mangled[name++] - '0');
    }
    const std::string rest = name + length <= mangled.size() ? mangled.substr(name + length) : "x";
    if (!rest.empty() && rest[0] != '_') continue;
    *function = "_Z" + mangled.substr(3, at - 1 - 3);
    *array = mangled.substr(name, length);
    return;
  }
  *function = mangled;
  *array = mangled;
}

}  // namespace

uintptr_t load_bias() {
  static const uintptr_t bias = find_executable().bias;
  return bias;
}

TlsRange tls_range() {
  const Executable executable = find_executable();
  return {executable.tls_begin, executable.tls_begin + executable.tls_bytes};
}

std::string mangled_function(const void* address) {
  const Function* const function = find_function(address);
  return function == nullptr ? "" : function->name;
}

std::string short_name(const std::string& mangled) {
  std::string name = demangle(mangled.substr(0, mangled.find('.')));  // "kernel.cold", "kernel.constprop.0"
  erase_all(&name, "(anonymous namespace)::");
  // The parameters start at the first '(' outside of template arguments; the return type of a template instance ends
  // at the first blank outside of them.
  int depth = 0;
  size_t start = 0;
  for (size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '<') ++depth;
    if (name[i] == '>') --depth;
    if (depth == 0 && name[i] == ' ') start = i + 1;
    if (depth == 0 && name[i] == '(') return name.substr(start, i - start);
  }
  return name;
}

std::string function_name(const void* address) {
  const std::string mangled = mangled_function(address);
  if (!mangled.empty()) return short_name(mangled);
  char text[32];
  std::snprintf(text, sizeof text, "%p", address);
  return text;
}

std::vector<StaticShared> static_shared_arrays(const void* function) {
  // Which arrays belong to a function is looked up once.
  static std::mutex mutex;
  static std::map<const void*, std::vector<const TlsArray*>> known;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [entry, is_new] = known.try_emplace(function);
  if (is_new) {
    const Function* const home = find_function(function);
    for (const TlsArray& array : symbol_table().tls_arrays) {
      if (home != nullptr && (array.object_file == home->object_file || array.object_file == -1)) {
        entry->second.push_back(&array);
      }
    }
  }
  const TlsRange tls = entry->second.empty() ? TlsRange() : tls_range();
  std::vector<StaticShared> arrays;
  for (const TlsArray* array : entry->second) {
    StaticShared shared;
    split_local_name(array->mangled, &shared.function, &shared.name);
    shared.base = tls.begin + array->offset;
    shared.bytes = array->bytes;
    arrays.push_back(shared);
  }
  return arrays;
}

void skip_shared_constructors(const void* function) {
  const Function* const home = find_function(function);
  const TlsRange tls = tls_range();
  for (const TlsArray& guard : symbol_table().tls_guards) {
    if (home != nullptr && guard.object_file == home->object_file) tls.begin[guard.offset] = 1;
  }
}

bool is_constructor_guard(const void* address) {
  const auto& guards = symbol_table().tls_guards;
  if (guards.empty()) return false;
  const size_t offset = size_t(static_cast<const unsigned char*>(address) - tls_range().begin);
  return std::any_of(guards.begin(), guards.end(),
                     [&](const TlsArray& guard) { return offset - guard.offset < guard.bytes; });
}

}  // namespace flash::emu
