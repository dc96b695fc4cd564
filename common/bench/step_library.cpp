// A step as a shared library with a C face (bench.py loads it), so that it can be called by turns with PyTorch's kernels
// in one process. A call that fails returns nullptr or a negative number, and last_sentence() says why.
#include <memory>

#include "common/base/error.h"
#include "common/kernel/step.h"
#include "common/run/forward_step.h"

namespace {

struct Prepared {
  flash::StepInfo step;
  flash::Problem problem;
  flash::Plan plan;
};

std::string sentence;

template <class Work>
auto guarded(const Work& work, decltype(work()) failed) {
  try {
    return work();
  } catch (const std::exception& error) {
    sentence = error.what();
    return failed;
  }
}

}  // namespace

extern "C" {

const char* last_sentence() { return sentence.c_str(); }

// The library's step on a problem with kv_heads = heads and seqlen_q = seqlen_k; dtype 0 fp32, 1 fp16, 2 bf16. With
// `forward` the step that gives a backward one its O and LSE.
Prepared* prepare(int batch, int heads, int seqlen, int head_dim, int causal, float softmax_scale, int dtype,
                  int forward) {
  const auto work = [&] {
    auto prepared = std::make_unique<Prepared>();
    flash::Problem& p = prepared->problem;
    p.batch = batch, p.heads = p.kv_heads = heads, p.seqlen_q = p.seqlen_k = seqlen, p.head_dim = head_dim;
    p.causal = causal != 0, p.softmax_scale = softmax_scale, p.dtype = flash::Dtype(dtype);
    const flash::Device device = flash::query_device();
    const flash::StepInfo& main = flash::main_step();
    prepared->step = forward && main.backward ? flash::forward_for(main, p, device) : main;
    prepared->plan = flash::plan_for(prepared->step, p, device);
    if (!prepared->plan.refusal.empty()) throw flash::Error(flash::kNotSupported, prepared->plan.refusal);
    return prepared.release();
  };
  return guarded(work, static_cast<Prepared*>(nullptr));
}
void release(Prepared* prepared) { delete prepared; }

long long workspace_bytes(const Prepared* prepared) { return static_cast<long long>(prepared->plan.workspace_bytes); }

// Enqueues one call. Device pointers in the order of ForwardArgs (5: q, k, v, o, softmax_lse) or of BackwardArgs (9: q, k,
// v, o, d_o, softmax_lse, dq, dk, dv).
int call(const Prepared* prepared, void* const* tensors, void* workspace, flash::Stream stream) {
  const auto work = [&] {
    void* const* t = tensors;
    const flash::Problem& p = prepared->problem;
    if (prepared->step.forward) {
      prepared->step.forward({p, t[0], t[1], t[2], t[3], static_cast<float*>(t[4])}, prepared->plan, workspace, stream);
    } else {
      prepared->step.backward({p, t[0], t[1], t[2], t[3], t[4], static_cast<float*>(t[5]), t[6], t[7], t[8]},
                              prepared->plan, workspace, stream);
    }
    return 0;
  };
  return guarded(work, -1);
}

}  // extern "C"
