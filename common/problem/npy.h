// NumPy's .npy files: format versions 1, 2, 3; C order, little-endian; float32 ('<f4'), float16 ('<f2') and uint16
// ('<u2', taken as bfloat16 bit patterns). Anything else throws flash::Error(kUsage) with a sentence that names the
// file, what was expected and what was found.
#pragma once
#include <string>
#include <vector>

#include "common/problem/problem.h"

namespace flash {

struct NpyArray {
  std::vector<size_t> shape;
  std::string descr;                // as in the file: "<f4", "<f2", "<u2"
  std::vector<unsigned char> data;  // row-major
};
NpyArray read_npy(const std::string& path);
// Writes beside the target and renames, so that a reader never sees half a file.
void write_npy(const std::string& path, const NpyArray&);

// A 4-D tensor of the wanted dtype from a file, and back. NaN and infinity in an input are refused.
struct Tensor4 {
  size_t shape[4];
  std::vector<float> values;
};
Tensor4 read_tensor(const std::string& path, Dtype);
void write_tensor(const std::string& path, Dtype, const Tensor4&);

}  // namespace flash
