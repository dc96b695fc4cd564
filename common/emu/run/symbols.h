// Names of functions and static __shared__ arrays, from the symbol table of the running executable (/proc/self/exe).
// A stripped executable has none: names are then addresses, and static shared memory isn't filled with NaN.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/emu/run/runtime.h"

namespace flash::emu {

// Mangled name of the function that holds the address; "" if there is none.
std::string mangled_function(const void* address);
// "scores_kernel<64>" for "(anonymous namespace)::scores_kernel<64>(float const*)"; "0x..." if there is no symbol.
std::string function_name(const void* address);
// Demangled, without "(anonymous namespace)::", return type and parameters.
std::string short_name(const std::string& mangled);

// The function-local thread_local arrays of the object file that holds the function, with their addresses in the TLS
// block of the calling OS thread. Mangled "_ZZ<function>E<array>".
std::vector<StaticShared> static_shared_arrays(const void* function);

// A __shared__ array of a class that g++ wants to construct (a struct with a float4 and an int) has a guard beside it,
// tested wherever the array is in scope. Shared memory isn't constructed: this marks the guards of the function's object
// file as done, for the calling OS thread.
void skip_shared_constructors(const void* function);
// Is the address such a guard of the calling OS thread? Kernels read them, but it is no access of theirs.
bool is_constructor_guard(const void* address);

// The executable's TLS block of the calling OS thread.
struct TlsRange {
  unsigned char* begin = nullptr;
  unsigned char* end = nullptr;
};
TlsRange tls_range();

// Where the executable is loaded: a link-time address (as addr2line wants it) is run-time address - load_bias().
uintptr_t load_bias();

}  // namespace flash::emu
