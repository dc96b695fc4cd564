#include "common/problem/npy.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>

#include "common/base/error.h"
#include "common/problem/dtype.h"
#include "common/tests/catch.h"

using namespace flash;

namespace {

// A folder that goes with the test.
class Folder {
 public:
  Folder() {
    const char* base = std::getenv("TMPDIR");
    std::string name = std::string(base && *base ? base : "/tmp") + "/flash_npy_XXXXXX";
    REQUIRE(::mkdtemp(&name[0]) != nullptr);
    path_ = name;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string bytes_of(const std::vector<float>& values) {
  const std::vector<unsigned char> bytes = pack(Dtype::fp32, values);
  return std::string(bytes.begin(), bytes.end());
}

// A .npy file byte by byte; the header as given, not padded.
std::string npy(const std::string& header, const std::string& data, int major = 1) {
  std::string out("\x93NUMPY", 6);
  out += char(major);
  out += '\0';
  const size_t length_bytes = major == 1 ? 2 : 4;
  for (size_t i = 0; i < length_bytes; ++i) out += char((header.size() >> (8 * i)) & 0xff);
  return out + header + data;
}

std::string header(const std::string& descr, const std::string& order, const std::string& shape) {
  return "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }\n";
}

void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary);
  file << bytes;
  REQUIRE(file.good());
}

// What reading says: the sentence of the error, or "" if there was none.
std::string complaint(const std::string& path, Dtype dtype = Dtype::fp32) {
  try {
    read_tensor(path, dtype);
  } catch (const Error& error) {
    CHECK(error.status == kUsage);
    return error.what();
  }
  return "";
}

std::string complaint_about(const std::string& bytes, Dtype dtype = Dtype::fp32) {
  static const Folder folder;
  const std::string path = folder.file("q.npy");
  write_bytes(path, bytes);
  const std::string text = complaint(path, dtype);
  if (!text.empty()) CHECK_THAT(text, ContainsSubstring(path + ": "));
  return text;
}

const std::string kShape = "(1, 1, 2, 3)";
const std::vector<float> kValues = {1, -2, 3.5f, 0, 1e-3f, -7};

}  // namespace

TEST_CASE("npy: versions 1, 2 and 3 are read") {
  Folder folder;
  for (int major : {1, 2, 3}) {
    write_bytes(folder.file("x.npy"), npy(header("<f4", "False", kShape), bytes_of(kValues), major));
    const Tensor4 tensor = read_tensor(folder.file("x.npy"), Dtype::fp32);
    CHECK(tensor.values == kValues);
    CHECK(tensor.shape[0] == 1);
    CHECK(tensor.shape[2] == 2);
    CHECK(tensor.shape[3] == 3);
  }
}

TEST_CASE("npy: keys in any order, other quotes, other spacing") {
  Folder folder;
  for (const char* text : {"{\"shape\":(1,1,2,3),\"fortran_order\":False,\"descr\":\"<f4\"}",
                           "  { 'fortran_order' : False , 'descr' : '<f4' , 'shape' : ( 1 , 1 , 2 , 3 , ) , }   \n",
                           "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 2, 3)}"}) {
    write_bytes(folder.file("x.npy"), npy(text, bytes_of(kValues)));
    CHECK(read_tensor(folder.file("x.npy"), Dtype::fp32).values == kValues);
  }
}

TEST_CASE("npy: 16-bit tensors") {
  Folder folder;
  const std::string half("\x00\x3c\x00\xc0", 4);  // 1, -2 in fp16
  write_bytes(folder.file("h.npy"), npy(header("<f2", "False", "(1, 1, 1, 2)"), half));
  CHECK(read_tensor(folder.file("h.npy"), Dtype::fp16).values == std::vector<float>{1, -2});
  const std::string brain("\x80\x3f\x00\xc0", 4);  // 1, -2 in bf16
  write_bytes(folder.file("b.npy"), npy(header("<u2", "False", "(1, 1, 1, 2)"), brain));
  CHECK(read_tensor(folder.file("b.npy"), Dtype::bf16).values == std::vector<float>{1, -2});
  CHECK_THAT(complaint(folder.file("h.npy"), Dtype::bf16),
             ContainsSubstring("expected uint16 ('<u2') for bf16, found float16 ('<f2')"));
  CHECK_THAT(complaint(folder.file("h.npy"), Dtype::fp32),
             ContainsSubstring("expected float32 ('<f4') for fp32, found float16 ('<f2')"));
}

TEST_CASE("npy: what isn't taken is refused in words") {
  const std::string data = bytes_of(kValues);
  CHECK_THAT(complaint_about(npy(header(">f4", "False", kShape), data)), ContainsSubstring("found big-endian '>f4'"));
  CHECK_THAT(complaint_about(npy(header("<f8", "False", kShape), data)), ContainsSubstring("found '<f8'"));
  CHECK_THAT(complaint_about(npy(header("|O", "False", kShape), data)), ContainsSubstring("found '|O'"));
  CHECK_THAT(complaint_about(npy(header("<f4", "True", kShape), data)),
             ContainsSubstring("expected C order (row-major), found Fortran order"));
  CHECK_THAT(complaint_about(npy(header("<f4", "False", "(2, 3)"), data)),
             ContainsSubstring("expected 4 dimensions (batch, heads, seqlen, head_dim), found 2: shape (2, 3)"));
  CHECK_THAT(complaint_about(npy(header("<f4", "False", "()"), data.substr(0, 4))),
             ContainsSubstring("found 0: shape ()"));
  CHECK_THAT(complaint_about(npy(header("<f4", "False", "(1, 1, 0, 3)"), "")), ContainsSubstring("at least 1"));
  CHECK_THAT(complaint_about("PK\x03\x04 a zip file, as .npz are"), ContainsSubstring("expected a NumPy .npy file"));
  CHECK_THAT(complaint_about(""), ContainsSubstring("expected a NumPy .npy file"));
  std::string version = npy(header("<f4", "False", kShape), data);
  version[6] = 9;
  CHECK_THAT(complaint_about(version), ContainsSubstring("version 1.0, 2.0 or 3.0, found 9.0"));
  CHECK_THAT(complaint_about(npy("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (1, 1, 2, 3), }", data)),
             ContainsSubstring("found a structured descr"));
}

TEST_CASE("npy: a file cut anywhere is refused") {
  const std::string whole = npy(header("<f4", "False", kShape), bytes_of(kValues));
  REQUIRE(complaint_about(whole).empty());
  for (size_t size = 0; size < whole.size(); ++size) REQUIRE_FALSE(complaint_about(whole.substr(0, size)).empty());
  CHECK_THAT(complaint_about(whole.substr(0, whole.size() - 1)),
             ContainsSubstring("truncated: expected 24 bytes of data for shape (1, 1, 2, 3) of <f4, found 23"));
  CHECK_THAT(complaint_about(whole + "x"), ContainsSubstring("expected 24 bytes of data"));
}

TEST_CASE("npy: a header with any one byte changed does no harm") {
  const std::string whole = npy(header("<f4", "False", kShape), bytes_of(kValues));
  const size_t header_end = whole.size() - 24;
  for (size_t at = 0; at < header_end; ++at) {
    for (char value : {'\0', ' ', '\'', '(', '9', '\xff'}) {
      std::string changed = whole;
      changed[at] = value;
      const std::string text = complaint_about(changed);
      if (!text.empty()) REQUIRE_THAT(text, ContainsSubstring("q.npy: "));
    }
  }
}

TEST_CASE("npy: a header that lies about sizes is refused before memory is taken") {
  const std::string data = bytes_of(kValues);
  CHECK_THAT(complaint_about(npy(header("<f4", "False", "(4294967296, 4294967296, 1, 1)"), data)),
             ContainsSubstring("its size in bytes overflows"));
  CHECK_THAT(complaint_about(npy(header("<f4", "False", "(1, 1, 1, 99999999999999999999999)"), data)),
             ContainsSubstring("expected a dimension below 2^64"));
  CHECK_THAT(complaint_about(npy(header("<f4", "False", "(1, 1, 1000000000000, 64)"), data)),  // 256 TB
             ContainsSubstring("truncated: expected 256000000000000 bytes"));
  CHECK_THAT(complaint_about(npy(header("<f4", "False", "(1, 1, -2, 3)"), data)),
             ContainsSubstring("expected a dimension"));
  std::string long_header = npy(header("<f4", "False", kShape), data, 2);
  long_header[11] = char(0x7f);  // 2 GB of header
  CHECK_THAT(complaint_about(long_header), ContainsSubstring("bad .npy header"));
}

TEST_CASE("npy: malformed headers") {
  for (const char* text : {"", "{", "{}", "}", "{'descr'", "{'descr': }", "{'descr': '<f4'", "{'descr': '<f4',}",
                           "{'descr': '<f4', 'fortran_order': Maybe, 'shape': (1, 1, 2, 3)}",
                           "{'descr': '<f4', 'fortran_order': False, 'shape': 6}",
                           "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 2, 3}",
                           "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 2, 3)} extra",
                           "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 2, 3)}",
                           "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 2, 3), 'more': 1}",
                           "{'descr': '<f4, 'fortran_order': False, 'shape': (1, 1, 2, 3)}"}) {
    INFO(text);
    CHECK_THAT(complaint_about(npy(text, bytes_of(kValues))), ContainsSubstring("bad .npy header: expected"));
  }
}

TEST_CASE("npy: NaN and infinity are refused with their place") {
  std::vector<float> values = kValues;
  values[4] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THAT(complaint_about(npy(header("<f4", "False", kShape), bytes_of(values))),
             ContainsSubstring("expected finite numbers, found NaN at [0, 0, 1, 1]"));
  values[4] = -std::numeric_limits<float>::infinity();
  CHECK_THAT(complaint_about(npy(header("<f4", "False", kShape), bytes_of(values))),
             ContainsSubstring("found infinity at"));
  CHECK_THAT(complaint_about(npy(header("<f2", "False", "(1, 1, 1, 1)"), std::string("\x00\x7c", 2)), Dtype::fp16),
             ContainsSubstring("found infinity at [0, 0, 0, 0]"));
}

TEST_CASE("npy: files that can't be opened or read") {
  Folder folder;
  CHECK_THAT(complaint(folder.file("missing.npy")), ContainsSubstring("missing.npy: can't be opened: No such file"));
  CHECK_THAT(complaint(folder.path()), ContainsSubstring("can't be "));  // a directory
}

TEST_CASE("npy: what is written is read back, by this reader and by the format's rules") {
  Folder folder;
  for (Dtype dtype : {Dtype::fp32, Dtype::fp16, Dtype::bf16}) {
    Tensor4 tensor{{1, 2, 1, 3}, {0.5f, -1, 2, 3, -0.25f, 1024}};
    const std::string path = folder.file("o.npy");
    write_tensor(path, dtype, tensor);
    CHECK(read_tensor(path, dtype).values == tensor.values);
    std::ifstream file(path, std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const size_t header_bytes =
        size_t(static_cast<unsigned char>(bytes[8])) + 256 * static_cast<unsigned char>(bytes[9]);
    CHECK(bytes.compare(0, 8, std::string("\x93NUMPY\x01\x00", 8)) == 0);
    CHECK((10 + header_bytes) % 64 == 0);
    CHECK(bytes[10 + header_bytes - 1] == '\n');
    CHECK(bytes.size() == 10 + header_bytes + 6 * dtype_bytes(dtype));
  }
  const std::filesystem::directory_iterator files(folder.path());
  CHECK(std::distance(begin(files), end(files)) == 1);  // no temporary file is left
}

TEST_CASE("npy: a write that fails leaves the old file") {
  Folder folder;
  const Tensor4 tensor{{1, 1, 1, 2}, {1, 2}};
  CHECK_THROWS_AS(write_tensor(folder.file("no/such/folder/o.npy"), Dtype::fp32, tensor), Error);
  write_tensor(folder.file("o.npy"), Dtype::fp32, tensor);
  CHECK_THROWS_AS(write_tensor(folder.file("o.npy"), Dtype::fp32, Tensor4{{1, 1, 1, 3}, {1, 2}}), Error);
  CHECK(read_tensor(folder.file("o.npy"), Dtype::fp32).values == tensor.values);
  REQUIRE(::mkdir(folder.file("taken.npy").c_str(), 0700) == 0);  // rename onto a directory fails
  CHECK_THROWS_AS(write_tensor(folder.file("taken.npy"), Dtype::fp32, tensor), Error);
  const std::filesystem::directory_iterator files(folder.path());
  CHECK(std::distance(begin(files), end(files)) == 2);
}
