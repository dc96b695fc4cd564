#include "common/run/execution.h"

#include <algorithm>
#include <cstdint>

#include "common/problem/dtype.h"
#include "common/device/counts.h"
#include "common/base/error.h"
#include "common/run/memory.h"

namespace flash {

namespace {

size_t workspace_of(const StepInfo& step, const Problem& p) {
  return step.workspace_bytes ? step.workspace_bytes(p) : 0;
}

size_t add_or_max(size_t a, size_t b) { return a + b < a ? SIZE_MAX : a + b; }

// The forward step that gives a backward one its O and LSE: the last linked one that takes the problem.
const StepInfo& forward_for(const StepInfo& step, const Problem& p, const Device& device) {
  const StepInfo* found = nullptr;
  for (const StepInfo& candidate : linked_steps()) {
    if (candidate.direction == Direction::forward && why_not(candidate, p, device).empty()) found = &candidate;
  }
  if (!found) {
    throw Error(kNotSupported, step.name +
                                   " needs O and the LSE from a forward step, and no forward step it is linked "
                                   "with takes " +
                                   dtype_name(p.dtype) + " with head_dim " + std::to_string(p.head_dim) + " here");
  }
  return *found;
}

}  // namespace

size_t device_bytes(const StepInfo& step, const Problem& p) {
  const size_t q = q_elements(p) * dtype_bytes(p.dtype);
  const size_t kv = kv_elements(p) * dtype_bytes(p.dtype);
  const size_t forward = q + 2 * kv + q + q_rows(p) * sizeof(float);  // q, k, v, o, softmax_lse
  if (step.direction == Direction::forward) return add_or_max(forward, workspace_of(step, p));
  const size_t backward = add_or_max(q + q + 2 * kv, workspace_of(step, p));  // d_o, dq, dk, dv
  return add_or_max(forward, std::max(backward, workspace_of(forward_for(step, p, query_device()), p)));
}

struct Execution::Buffers {
  Buffers(const Problem& p, const Inputs& in)
      : q("Q", q_elements(p) * dtype_bytes(p.dtype)),
        k("K", kv_elements(p) * dtype_bytes(p.dtype)),
        v("V", kv_elements(p) * dtype_bytes(p.dtype)),
        o("O", q.bytes()),
        softmax_lse("softmax_lse", q_rows(p) * sizeof(float)) {
    q.copy_from_host(pack(p.dtype, in.q).data());
    k.copy_from_host(pack(p.dtype, in.k).data());
    v.copy_from_host(pack(p.dtype, in.v).data());
  }
  void add_gradients(const Problem& p, const Inputs& in) {
    d_o = std::make_unique<DeviceBuffer>("dO", o.bytes());
    dq = std::make_unique<DeviceBuffer>("dQ", q.bytes());
    dk = std::make_unique<DeviceBuffer>("dK", k.bytes());
    dv = std::make_unique<DeviceBuffer>("dV", v.bytes());
    d_o->copy_from_host(pack(p.dtype, in.d_o).data());
  }
  void set_workspace(size_t bytes) {
    workspace.reset();
    if (bytes) workspace = std::make_unique<DeviceBuffer>("workspace", bytes);
  }

  DeviceBuffer q, k, v, o, softmax_lse;
  std::unique_ptr<DeviceBuffer> d_o, dq, dk, dv;
  std::unique_ptr<DeviceBuffer> workspace;
};

Execution::Execution(const StepInfo& step, const Problem& p, const Inputs& in) : step_(step), problem_(p) {
  const Device device = query_device();
  const std::string reason = why_not(step, p, device);
  if (!reason.empty()) throw Error(kNotSupported, reason);
  require_memory(step, p, device);
  buffers_ = std::make_unique<Buffers>(p, in);
  if (step.direction == Direction::forward) {
    buffers_->set_workspace(workspace_of(step, p));
    return;
  }
  Execution::Buffers& b = *buffers_;
  const StepInfo& forward = forward_for(step, p, device);
  b.set_workspace(workspace_of(forward, p));
  forward.forward({p, b.q.data(), b.k.data(), b.v.data(), b.o.data(), static_cast<float*>(b.softmax_lse.data())},
                  b.workspace ? b.workspace->data() : nullptr, nullptr);
  synchronize();
  emu::reset_report();  // the counts are to be those of the step alone
  b.set_workspace(0);
  b.add_gradients(p, in);
  b.set_workspace(workspace_of(step, p));
}

Execution::~Execution() = default;

void Execution::run() {
  Execution::Buffers& b = *buffers_;
  void* workspace = b.workspace ? b.workspace->data() : nullptr;
  float* softmax_lse = static_cast<float*>(b.softmax_lse.data());
  if (step_.direction == Direction::forward) {
    step_.forward({problem_, b.q.data(), b.k.data(), b.v.data(), b.o.data(), softmax_lse}, workspace, nullptr);
  } else {
    step_.backward({problem_, b.q.data(), b.k.data(), b.v.data(), b.o.data(), b.d_o->data(), softmax_lse, b.dq->data(),
                    b.dk->data(), b.dv->data()},
                   workspace, nullptr);
  }
}

Outputs Execution::outputs() {
  synchronize();
  const auto read = [this](const DeviceBuffer& buffer) {
    std::vector<unsigned char> bytes(buffer.bytes());
    buffer.copy_to_host(bytes.data());
    return unpack(problem_.dtype, bytes);
  };
  Outputs out;
  out.o = read(buffers_->o);
  out.softmax_lse.resize(q_rows(problem_));
  buffers_->softmax_lse.copy_to_host(out.softmax_lse.data());
  if (step_.direction == Direction::backward) {
    out.dq = read(*buffers_->dq);
    out.dk = read(*buffers_->dk);
    out.dv = read(*buffers_->dv);
  }
  return out;
}

size_t Execution::workspace_bytes() const { return workspace_of(step_, problem_); }

Outputs run_once(const StepInfo& step, const Problem& p, const Inputs& in) {
  Execution execution(step, p, in);
  execution.run();
  return execution.outputs();
}

}  // namespace flash
