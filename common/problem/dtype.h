// Rounding between float and the 16-bit types, on the host, to nearest even; overflow gives infinity, NaN stays NaN.
#pragma once
#include <cstdint>
#include <vector>

#include "common/problem/problem.h"

namespace flash {

uint16_t float_to_bf16(float);
float bf16_to_float(uint16_t);
uint16_t float_to_fp16(float);
float fp16_to_float(uint16_t);

float round_to(Dtype, float);            // the nearest value of the type, as a float
double ulp_at(Dtype, double magnitude);  // distance between neighbouring values of the type at that magnitude

// A tensor as the device holds it, from host floats and back.
std::vector<unsigned char> pack(Dtype, const std::vector<float>&);
std::vector<float> unpack(Dtype, const std::vector<unsigned char>&);

}  // namespace flash
