// The problem every step solves, and the interface a step offers. The harness, the tests, the bench and
// the plots know a step by its StepInfo alone.
//
//   O = softmax(softmax_scale * Q K^T + mask) V        softmax_lse = log(sum(exp(scores))), a row at a time
//
//   Q, O           [batch, heads,    seqlen_q, head_dim]   contiguous, row-major
//   K, V           [batch, kv_heads, seqlen_k, head_dim]   kv_heads divides heads (GQA; kv_heads = 1 is MQA):
//                                                          query head h reads key/value head h / (heads / kv_heads)
//   softmax_lse    [batch, heads, seqlen_q]                always fp32, natural logarithm
//
// Causal is aligned to the bottom right: query row i sees the keys j <= i + seqlen_k - seqlen_q. A row that sees
// no key (seqlen_q > seqlen_k) has O = 0 and softmax_lse = -inf, and gives zero gradients.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

struct CUstream_st;  // cudaStream_t is a pointer to this; said here so that no CUDA header is needed

namespace flash {

using Stream = CUstream_st*;  // nullptr (the default stream) on the CPU back end

enum class Dtype { fp32, fp16, bf16 };

struct Problem {
  int batch = 1;
  int heads = 1;
  int kv_heads = 1;
  int seqlen_q = 1;
  int seqlen_k = 1;
  int head_dim = 64;
  bool causal = false;
  float softmax_scale = 0.125f;  // finite and > 0; ./run's default is 1/sqrt(head_dim)
  Dtype dtype = Dtype::fp32;     // of Q, K, V, O, dO, dQ, dK, dV
  bool deterministic = false;    // backward only: the same bits run after run
};

inline size_t q_elements(const Problem& p) { return size_t(p.batch) * p.heads * p.seqlen_q * p.head_dim; }
inline size_t kv_elements(const Problem& p) { return size_t(p.batch) * p.kv_heads * p.seqlen_k * p.head_dim; }
inline size_t q_rows(const Problem& p) { return size_t(p.batch) * p.heads * p.seqlen_q; }
inline size_t dtype_bytes(Dtype t) { return t == Dtype::fp32 ? 4 : 2; }

// Device pointers. Inputs are read-only, outputs are written whole: every element, every time.
struct ForwardArgs {
  Problem problem;
  const void* q;
  const void* k;
  const void* v;
  void* o;
  float* softmax_lse;
};

struct BackwardArgs {
  Problem problem;
  const void* q;
  const void* k;
  const void* v;
  const void* o;             // the forward's result
  const void* d_o;           // gradient of the loss by O, shaped like O
  const float* softmax_lse;  // the forward's result
  void* dq;                  // shaped like Q
  void* dk;                  // shaped like K: summed over the query heads of a group
  void* dv;                  // shaped like V: likewise
};

// What a step may ask of the device it is to run on. The CPU back end answers with a virtual device.
struct Device {
  std::string name;
  bool is_emulated = false;
  int compute_capability = 0;  // 75, 80, 86, 89, 90 …
  int sm_count = 0;
  size_t global_bytes = 0;            // free device memory
  size_t shared_bytes_per_block = 0;  // the most a block may ask for (opt-in limit), bytes
  double peak_fp32_tflops = 0;        // 0: not known
  double peak_tensor_tflops = 0;      // dense fp16/bf16 with fp32 accumulation; 0: not known
  double peak_gb_per_s = 0;           // device memory; 0: not known
};

// Global-memory bytes that the threads of a step ask for, counted a thread at a time: what the CPU back end counts
// as global_read_bytes and global_write_bytes. (Caches lie below this; sectors are another count.)
struct Traffic {
  double read_bytes = 0;
  double write_bytes = 0;
};

enum class Direction { forward, backward };

struct StepInfo {
  std::string number;  // "00", "05.1"
  std::string name;    // "00_naive", "05_tensor_core/1_mma": the path of the kernel file without its ending
  std::string idea;    // one line
  Direction direction = Direction::forward;
  std::vector<Dtype> dtypes;
  std::vector<int> head_dims;
  int min_compute_capability = 75;
  bool uses_tensor_cores = false;  // which peak the step is measured against

  // Why this step can't take a problem it has the dtype and head_dim for, as one clear sentence; "" if it can.
  std::string (*supports)(const Problem&, const Device&) = nullptr;  // nullptr: nothing more to refuse
  // Scratch memory the step needs beside inputs and outputs. Nothing is allocated inside a timed call.
  size_t (*workspace_bytes)(const Problem&) = nullptr;  // nullptr: none
  Traffic (*traffic)(const Problem&) = nullptr;
  // Enqueue the step's kernels on the stream. `workspace` is 256-byte aligned, its content undefined.
  void (*forward)(const ForwardArgs&, void* workspace, Stream) = nullptr;
  void (*backward)(const BackwardArgs&, void* workspace, Stream) = nullptr;
};

// A kernel file ends with `const flash::RegisterStep registered(step_info());` in its anonymous namespace.
struct RegisterStep {
  explicit RegisterStep(const StepInfo& info);
};

// The steps linked into this program, sorted by name.
const std::vector<StepInfo>& linked_steps();
// The step this program is about: the last of linked_steps() (a backward step is linked with a forward one).
// Throws Error(kUsage) where none is linked: a kernel file that registers no step.
const StepInfo& main_step();

// "" if the step takes the problem on the device, else the reason: dtype, head_dim, compute capability, then supports().
std::string why_not(const StepInfo&, const Problem&, const Device&);

const char* dtype_name(Dtype);  // "fp32", "fp16", "bf16"

// The least global traffic any implementation needs: every input read once, every output written once, bytes.
Traffic least_traffic(const Problem&, Direction);
// 4 * batch * heads * head_dim * (unmasked query-key pairs) forward, 2.5 times that backward.
double flops(const Problem&, Direction);

}  // namespace flash
