#include "common/run/execution.h"

#include <algorithm>

#include "common/base/error.h"
#include "common/device/counts.h"
#include "common/device/memory.h"
#include "common/device/timing.h"
#include "common/problem/dtype.h"
#include "common/run/forward_step.h"
#include "common/run/memory.h"

namespace flash {

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
  void set_workspace(const Plan& plan) {
    workspace.reset();
    if (plan.workspace_bytes == 0) return;
    workspace = std::make_unique<DeviceBuffer>("workspace", plan.workspace_bytes);
    if (plan.zeroed_bytes == 0) return;
    std::vector<unsigned char> content(plan.workspace_bytes, 0xff);
    std::fill_n(content.begin(), plan.zeroed_bytes, 0);
    workspace->copy_from_host(content.data());
  }
  void require_zeros(const std::string& step, const Plan& plan) const {
    if (plan.zeroed_bytes == 0) return;
    std::vector<unsigned char> content(plan.workspace_bytes);
    workspace->copy_to_host(content.data());
    const auto end = content.begin() + ptrdiff_t(plan.zeroed_bytes);
    if (std::all_of(content.begin(), end, [](unsigned char byte) { return byte == 0; })) return;
    throw Error(kDeviceError, step + " doesn't leave zeros in the first " + std::to_string(plan.zeroed_bytes) +
                                  " bytes of its workspace, where every call must find zeros: the next would go wrong");
  }
  void* workspace_data() const { return workspace ? workspace->data() : nullptr; }
  float* lse() const { return static_cast<float*>(softmax_lse.data()); }
  ForwardArgs forward_args(const Problem& p) const { return {p, q.data(), k.data(), v.data(), o.data(), lse()}; }
  BackwardArgs backward_args(const Problem& p) const {
    return {p, q.data(), k.data(), v.data(), o.data(), d_o->data(), lse(), dq->data(), dk->data(), dv->data()};
  }

  DeviceBuffer q, k, v, o, softmax_lse;
  std::unique_ptr<DeviceBuffer> d_o, dq, dk, dv;
  std::unique_ptr<DeviceBuffer> workspace;
};

Execution::Execution(const StepInfo& step, const Problem& p, const Inputs& in) : step_(step), problem_(p) {
  const Device device = query_device();
  plan_ = plan_for(step, p, device);
  if (!plan_.refusal.empty()) throw Error(kNotSupported, plan_.refusal);
  require_memory(step, p, device);
  buffers_ = std::make_unique<Buffers>(p, in);
  if (step.direction == Direction::forward) {
    buffers_->set_workspace(plan_);
    return;
  }
  Execution::Buffers& b = *buffers_;
  const StepInfo& forward = forward_for(step, p, device);
  const Plan forward_plan = plan_for(forward, p, device);
  b.set_workspace(forward_plan);
  forward.forward(b.forward_args(p), forward_plan, b.workspace_data(), nullptr);
  synchronize();
  reset_watch_report();  // the counts are to be those of the step alone
  b.set_workspace(Plan());
  b.add_gradients(p, in);
  b.set_workspace(plan_);
}

Execution::~Execution() = default;

void Execution::run() {
  Execution::Buffers& b = *buffers_;
  if (step_.direction == Direction::forward) {
    step_.forward(b.forward_args(problem_), plan_, b.workspace_data(), nullptr);
  } else {
    step_.backward(b.backward_args(problem_), plan_, b.workspace_data(), nullptr);
  }
}

Outputs Execution::outputs() {
  synchronize();
  buffers_->require_zeros(step_.name, plan_);
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

Outputs run_once(const StepInfo& step, const Problem& p, const Inputs& in) {
  Execution execution(step, p, in);
  execution.run();
  return execution.outputs();
}

}  // namespace flash
