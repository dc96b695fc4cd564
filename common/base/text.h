// Numbers as a person reads them.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace flash {

std::string format(const char* pattern, ...) __attribute__((format(printf, 1, 2)));  // printf into a string

std::string with_commas(unsigned long long);                              // 1234567 -> "1,234,567"
std::string human_bytes(double bytes);                                    // 1.5e6 -> "1.5 MB" (powers of ten)
std::string human_flops(double flops);                                    // 8.4e6 -> "8.4 MFLOP"
std::string human_seconds(double seconds);                                // "0.8 s", "12 s", "3 min", "2 h"
std::vector<std::string> split(const std::string& text, char separator);  // keeps empty parts

}  // namespace flash
