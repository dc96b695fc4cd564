#include "common/problem/npy.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>

#include "common/base/error.h"
#include "common/base/files.h"
#include "common/problem/dtype.h"

namespace flash {
namespace {

const char kMagic[] = "\x93NUMPY";  // 6 bytes, then major and minor version, then the header's length
const size_t kMagicBytes = 6;
const size_t kLongestHeader = 64 * 1024;  // a header that describes one array takes about a hundred bytes

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

[[noreturn]] void refuse(const std::string& path, const std::string& why) { throw Error(kUsage, path + ": " + why); }

std::string quoted(const std::string& text) {
  std::string out = "'";
  for (unsigned char c : text.substr(0, 40)) out += c >= 32 && c < 127 ? char(c) : '?';
  return out + (text.size() > 40 ? "...'" : "'");
}

std::string shape_text(const std::vector<size_t>& shape) {
  std::string out = "(";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + (shape.size() == 1 ? ",)" : ")");
}

// The header is a Python dictionary with three known keys:
//   {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
class HeaderParser {
 public:
  HeaderParser(const std::string& path, const std::string& text) : path_(path), text_(text) {}

  NpyArray parse() {
    expect('{');
    while (!accept('}')) {
      const std::string key = string_literal();
      expect(':');
      if (key == "descr" && !has_descr_) {
        if (peek() == '[' || peek() == '(')
          refuse(path_, "expected one plain number type ('<f4', '<f2' or '<u2'), found a structured descr.");
        array_.descr = string_literal();
        has_descr_ = true;
      } else if (key == "fortran_order" && !has_order_) {
        fortran_order_ = boolean();
        has_order_ = true;
      } else if (key == "shape" && !has_shape_) {
        array_.shape = tuple();
        has_shape_ = true;
      } else {
        malformed("the keys descr, fortran_order and shape, once each", "key " + quoted(key));
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_spaces();
    if (at_ != text_.size()) malformed("the end of the header", quoted(text_.substr(at_)));
    if (!has_descr_ || !has_order_ || !has_shape_)
      malformed("the keys descr, fortran_order and shape", "only some of them");
    if (fortran_order_)
      refuse(path_, "expected C order (row-major), found Fortran order; save np.ascontiguousarray(x).");
    return array_;
  }

 private:
  [[noreturn]] void malformed(const std::string& expected, const std::string& found) {
    refuse(path_, "bad .npy header: expected " + expected + ", found " + found + ".");
  }
  void skip_spaces() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t')) ++at_;
  }
  char peek() {
    skip_spaces();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool accept(char c) {
    if (peek() != c || at_ >= text_.size()) return false;
    ++at_;
    return true;
  }
  std::string here() { return at_ < text_.size() ? quoted(text_.substr(at_, 1)) : "its end"; }
  void expect(char c) {
    if (!accept(c)) malformed(quoted(std::string(1, c)), here());
  }
  std::string string_literal() {
    const char quote = peek();
    if (quote != '\'' && quote != '"') malformed("a quoted word", here());
    const size_t end = text_.find(quote, at_ + 1);
    if (end == std::string::npos) malformed("a closing quote", "its end");
    const std::string word = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return word;
  }
  bool boolean() {
    skip_spaces();
    for (const char* word : {"True", "False"}) {
      if (text_.compare(at_, std::strlen(word), word) == 0) {
        at_ += std::strlen(word);
        return word[0] == 'T';
      }
    }
    malformed("True or False", here());
  }
  size_t number() {
    if (peek() < '0' || peek() > '9') malformed("a dimension", here());
    size_t value = 0;
    while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') {
      if (__builtin_mul_overflow(value, size_t(10), &value) ||
          __builtin_add_overflow(value, size_t(text_[at_] - '0'), &value))
        malformed("a dimension below 2^64", "a larger one");
      ++at_;
    }
    return value;
  }
  std::vector<size_t> tuple() {
    std::vector<size_t> shape;
    expect('(');
    while (!accept(')')) {
      shape.push_back(number());
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return shape;
  }

  const std::string& path_;
  const std::string& text_;
  size_t at_ = 0;
  NpyArray array_;
  bool has_descr_ = false, has_order_ = false, has_shape_ = false, fortran_order_ = false;
};

size_t element_bytes(const std::string& descr) {
  if (descr == "<f4") return 4;
  if (descr == "<f2" || descr == "<u2") return 2;
  return 0;
}

void check_descr(const std::string& path, const std::string& descr) {
  if (element_bytes(descr) != 0) return;
  const std::string expected = "expected little-endian float32 ('<f4'), float16 ('<f2') or uint16 ('<u2'), found ";
  if (!descr.empty() && descr[0] == '>') refuse(path, expected + "big-endian " + quoted(descr) + ".");
  refuse(path, expected + quoted(descr) + ".");
}

// The bytes an array takes; refuses a product that doesn't fit.
size_t checked_bytes(const std::string& path, const NpyArray& array) {
  size_t bytes = element_bytes(array.descr);
  for (size_t extent : array.shape)
    if (__builtin_mul_overflow(bytes, extent, &bytes) || bytes > size_t(PTRDIFF_MAX))
      refuse(path, "shape " + shape_text(array.shape) + " is too large: its size in bytes overflows.");
  return bytes;
}

// Reads up to `bytes` bytes, memory growing with what is there: a header that lies about its array costs nothing.
std::vector<unsigned char> read_up_to(std::FILE* file, size_t bytes) {
  const size_t kChunk = size_t(16) << 20;
  std::vector<unsigned char> data;
  while (data.size() < bytes) {
    const size_t start = data.size();
    const size_t wanted = std::min(std::max(kChunk, start), bytes - start);
    data.resize(start + wanted);
    const size_t got = std::fread(&data[start], 1, wanted, file);
    data.resize(start + got);
    if (got < wanted) break;
  }
  return data;
}

}  // namespace

NpyArray read_npy(const std::string& path) {
  File file(std::fopen(path.c_str(), "rb"));
  if (!file) refuse(path, std::string("can't be opened: ") + std::strerror(errno) + ".");

  unsigned char start[8];
  errno = 0;
  const size_t started = std::fread(start, 1, sizeof start, file.get());
  if (std::ferror(file.get())) refuse(path, std::string("can't be read: ") + std::strerror(errno) + ".");
  if (started < kMagicBytes || std::memcmp(start, kMagic, kMagicBytes) != 0)
    refuse(path, "expected a NumPy .npy file, found other content (its first bytes aren't \\x93NUMPY).");
  if (started < sizeof start) refuse(path, "the file ends inside its .npy header.");
  const int major = start[6];
  if (major < 1 || major > 3 || start[7] != 0)
    refuse(path, "expected .npy format version 1.0, 2.0 or 3.0, found " + std::to_string(major) + "." +
                     std::to_string(start[7]) + ".");

  unsigned char length_bytes[4] = {};
  const size_t length_size = major == 1 ? 2 : 4;
  if (std::fread(length_bytes, 1, length_size, file.get()) != length_size)
    refuse(path, "the file ends inside its .npy header.");
  const size_t header_bytes = size_t(length_bytes[0]) | size_t(length_bytes[1]) << 8 | size_t(length_bytes[2]) << 16 |
                              size_t(length_bytes[3]) << 24;
  if (header_bytes > kLongestHeader)
    refuse(path, "bad .npy header: expected at most " + std::to_string(kLongestHeader) + " bytes, found a length of " +
                     std::to_string(header_bytes) + ".");
  std::string header(header_bytes, '\0');
  if (std::fread(&header[0], 1, header_bytes, file.get()) != header_bytes)
    refuse(path, "the file ends inside its .npy header.");

  NpyArray array = HeaderParser(path, header).parse();
  check_descr(path, array.descr);
  const size_t bytes = checked_bytes(path, array);
  array.data = read_up_to(file.get(), bytes);
  if (array.data.size() != bytes)
    refuse(path, "truncated: expected " + std::to_string(bytes) + " bytes of data for shape " +
                     shape_text(array.shape) + " of " + array.descr + ", found " + std::to_string(array.data.size()) +
                     ".");
  if (std::fgetc(file.get()) != EOF)
    refuse(path, "expected " + std::to_string(bytes) + " bytes of data for shape " + shape_text(array.shape) + " of " +
                     array.descr + ", found more.");
  return array;
}

void write_npy(const std::string& path, const NpyArray& array) {
  check_descr(path, array.descr);
  if (checked_bytes(path, array) != array.data.size())
    refuse(path, "can't be written: shape " + shape_text(array.shape) + " of " + array.descr + " isn't " +
                     std::to_string(array.data.size()) + " bytes.");
  std::string header =
      "{'descr': '" + array.descr + "', 'fortran_order': False, 'shape': " + shape_text(array.shape) + ", }";
  const size_t prefix = kMagicBytes + 2 + 2;
  while ((prefix + header.size() + 1) % 64 != 0) header += ' ';  // data starts at a multiple of 64, as NumPy has it
  header += '\n';
  if (header.size() > 0xffff) refuse(path, "can't be written: too many dimensions.");

  const unsigned char version_and_length[4] = {1, 0, static_cast<unsigned char>(header.size() & 0xff),
                                               static_cast<unsigned char>(header.size() >> 8)};
  const std::string head =
      kMagic + std::string(version_and_length, version_and_length + sizeof version_and_length) + header;
  write_file(path, head, array.data.data(), array.data.size());
}

namespace {

const char* descr_of(Dtype dtype) { return dtype == Dtype::fp32 ? "<f4" : dtype == Dtype::fp16 ? "<f2" : "<u2"; }

const char* name_of_descr(const std::string& descr) {
  return descr == "<f4" ? "float32" : descr == "<f2" ? "float16" : "uint16";
}

}  // namespace

Tensor4 read_tensor(const std::string& path, Dtype dtype) {
  const NpyArray array = read_npy(path);
  if (array.descr != descr_of(dtype))
    refuse(path, std::string("expected ") + name_of_descr(descr_of(dtype)) + " ('" + descr_of(dtype) + "') for " +
                     dtype_name(dtype) + ", found " + name_of_descr(array.descr) + " ('" + array.descr + "').");
  if (array.shape.size() != 4)
    refuse(path, "expected 4 dimensions (batch, heads, seqlen, head_dim), found " + std::to_string(array.shape.size()) +
                     ": shape " + shape_text(array.shape) + ".");
  Tensor4 tensor;
  for (int axis = 0; axis < 4; ++axis) {
    tensor.shape[axis] = array.shape[axis];
    if (array.shape[axis] == 0)
      refuse(path, "expected every dimension to be at least 1, found shape " + shape_text(array.shape) + ".");
  }
  tensor.values = unpack(dtype, array.data);
  for (size_t i = 0; i < tensor.values.size(); ++i) {
    if (std::isfinite(tensor.values[i])) continue;
    size_t rest = i;
    std::string index = "]";
    for (int axis = 3; axis >= 0; --axis) {
      index = (axis ? ", " : "[") + std::to_string(rest % tensor.shape[axis]) + index;
      rest /= tensor.shape[axis];
    }
    refuse(path, std::string("expected finite numbers, found ") + (std::isnan(tensor.values[i]) ? "NaN" : "infinity") +
                     " at " + index + ".");
  }
  return tensor;
}

void write_tensor(const std::string& path, Dtype dtype, const Tensor4& tensor) {
  NpyArray array;
  array.shape.assign(tensor.shape, tensor.shape + 4);
  array.descr = descr_of(dtype);
  array.data = pack(dtype, tensor.values);
  write_npy(path, array);
}

}  // namespace flash
