// Inputs of a problem: drawn from a named distribution, or read from files. Values are kept as floats that the
// problem's dtype holds exactly.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "common/problem/problem.h"

namespace flash {

enum class Dist {
  normal,    // N(0, 1)
  uniform,   // U(-1, 1)
  outliers,  // N(0, 1) with one entry in a thousand times 20
  large,     // Q and K N(0, 1) times 8: scores of several hundred, exp() overflows unless the maximum is subtracted
  negative,  // Q = 4 + |N(0, 1)|, K = -(4 + |N(0, 1)|): every score is below -100 (at the default scale), where exp()
             // underflows unless the maximum is subtracted and the maximum doesn't start at zero
};
bool parse_dist(const std::string& name, Dist* dist);
const char* dist_name(Dist);

struct Inputs {
  std::vector<float> q, k, v;  // shapes of problem.h
  std::vector<float> d_o;      // for a backward step; empty otherwise
};
// The same seed gives the same values on every machine and back end.
Inputs make_inputs(const Problem&, Direction, Dist, uint64_t seed);

}  // namespace flash
