"""The steps by turns with the attention that people use: PyTorch's scaled_dot_product_attention with its cuDNN,
FlashAttention-2, memory-efficient and plain back ends, and FlashAttention-3 and -4 where they can be imported. Each gets
its tensors in its own order: FlashAttention's is [batch, seqlen, heads, head_dim], and given another its backward runs two
copies more. Where an implementation takes either, it is timed in the one it is faster with.

PyTorch is needed for this alone; nothing else in the project imports it."""
import sys
from contextlib import nullcontext

if __name__ == "__main__":
    sys.exit('make bench BENCH="--peers" times these.')

from library import PreparedStep, StepLibrary, pointers
from measure import MeasureError, is_backward, landing_of
from turns import by_turns

try:
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel
except ImportError:
    raise MeasureError("--peers times PyTorch's attention, and this python3 has no PyTorch (pip install torch); "
                       "without --peers the steps alone are timed") from None


def imported(module, name):
    try:
        return getattr(__import__(module, fromlist=[name]), name)
    except Exception as error:  # a peer that is broken here is a peer that isn't here
        print(f"{module} is not timed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", file=sys.stderr)
        return None


SIXTEEN_BIT = ("bf16", "fp16")
HEADS_FIRST, SEQLEN_FIRST = "batch, heads, seqlen", "batch, seqlen, heads"
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Peer:
    def __init__(self, name, attend, dtypes, orders, directions=("forward", "backward"), backend=None):
        self.name, self.attend, self.dtypes, self.orders = name, attend, dtypes, orders
        self.directions, self.backend = directions, backend


def sdpa(q, k, v, causal):
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def first_of(function):
    def attend(q, k, v, causal):
        out = function(q, k, v, causal=causal)
        return out[0] if isinstance(out, (tuple, list)) else out

    return attend


def all_peers():
    peers = [
        Peer("torch_cudnn", sdpa, SIXTEEN_BIT, (HEADS_FIRST, SEQLEN_FIRST), backend=SDPBackend.CUDNN_ATTENTION),
        Peer("torch_flash", sdpa, SIXTEEN_BIT, (SEQLEN_FIRST,), backend=SDPBackend.FLASH_ATTENTION),
        Peer("torch_efficient", sdpa, ("fp32",), (SEQLEN_FIRST, HEADS_FIRST), backend=SDPBackend.EFFICIENT_ATTENTION),
        Peer("torch_math", sdpa, ("fp32",), (HEADS_FIRST,), backend=SDPBackend.MATH),
    ]
    fa3, fa4 = imported("fa3_fwd_interface", "flash_attn_func"), imported("flash_attn.cute", "flash_attn_func")
    if fa3:
        peers.append(Peer("flash_attention_3", first_of(fa3), SIXTEEN_BIT, (SEQLEN_FIRST,), ("forward",)))
    if fa4:
        peers.append(Peer("flash_attention_4", first_of(fa4), SIXTEEN_BIT, (SEQLEN_FIRST,)))
    return peers


class Work:
    """A call, and what is set once around a burst of them: PyTorch's choice of back end costs as much as a short kernel."""

    def __init__(self, call, backend=None, gradients=False):
        self.call, self.backend, self.gradients = call, backend, gradients


def burst(work, count):
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    with torch.set_grad_enabled(work.gradients), sdpa_kernel([work.backend]) if work.backend else nullcontext():
        start.record()
        for _ in range(count):
            work.call()
        stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop)


class ByTurns:
    """Steps and peers on one GPU, in this process."""

    def __init__(self, programs, rounds, burst_ms):
        if not torch.cuda.is_available():
            raise MeasureError("--peers times PyTorch's attention, and this PyTorch sees no GPU")
        self.rounds, self.burst_ms, self.peers = rounds, burst_ms, all_peers()
        self.libraries = {landing_of(p): StepLibrary(p[: -len(".run")] + ".so") for p in programs}

    def time(self, shape, dtype, direction, landings):
        """-> ({implementation: [ms a call, a round each]}, {implementation: why it has no time}). `landings`: the steps
        that are right on this shape."""
        batch, heads, seqlen, head_dim, causal = shape
        generator = torch.Generator(device="cuda").manual_seed(0)
        tensors = [torch.randn(batch, heads, seqlen, head_dim, device="cuda", dtype=TYPES[dtype], generator=generator)
                   for _ in range(4)]
        works, skipped, prepared = {}, {}, []
        for landing in landings:
            if is_backward(landing) == (direction == "backward"):
                try:
                    works[landing] = self.step(self.libraries[landing], shape, dtype, direction, tensors, prepared)
                except MeasureError as error:
                    skipped[landing] = str(error)
        for peer in self.peers:
            if dtype in peer.dtypes and direction in peer.directions:
                try:
                    works[peer.name] = self.fastest(peer, direction, tensors, causal)
                except Exception as error:  # it may refuse a shape, or run out of memory
                    skipped[peer.name] = f"{type(error).__name__}: {error}".splitlines()[0]
        times = by_turns(works, self.rounds, self.burst_ms, burst)
        for one in prepared:
            one.close()
        del works, tensors
        torch.cuda.empty_cache()  # the steps' checks are other processes, and need the memory
        return times, skipped

    def step(self, library, shape, dtype, direction, tensors, prepared):
        q, k, v, d_o = tensors
        o, lse = torch.empty_like(q), torch.empty(q.shape[:3], device="cuda")
        stream = torch.cuda.current_stream().cuda_stream

        def ready(forward, *tensors):
            step = PreparedStep(library, shape, dtype, forward)
            prepared.append(step)
            workspace = torch.zeros(max(step.workspace_bytes, 1), dtype=torch.uint8, device="cuda")
            addresses = pointers(*(t.data_ptr() for t in tensors))
            return Work(lambda held=(tensors, workspace): step.call(addresses, held[1].data_ptr(), stream))

        forward = ready(True, q, k, v, o, lse)
        if direction == "forward":
            return forward
        forward.call()
        return ready(False, q, k, v, o, d_o, lse, *(torch.empty_like(t) for t in (q, k, v)))

    def fastest(self, peer, direction, tensors, causal):
        works = []
        for order in peer.orders:
            works.append(self.peer(peer, order, direction, tensors, bool(causal)))
            burst(works[-1], 3)
        return min(works, key=lambda work: burst(work, 3)) if len(works) > 1 else works[0]

    def peer(self, peer, order, direction, tensors, causal):
        q, k, v, d_o = tensors
        if order == SEQLEN_FIRST:
            q, k, v, d_o = (t.transpose(1, 2).contiguous() for t in tensors)
            if peer.backend is not None:  # PyTorch wants to see [batch, heads, seqlen, head_dim], however it lies
                q, k, v, d_o = (t.transpose(1, 2) for t in (q, k, v, d_o))

        if direction == "forward":
            return Work(lambda: peer.attend(q, k, v, causal), peer.backend)
        inputs = tuple(t.detach().requires_grad_() for t in (q, k, v))
        with sdpa_kernel([peer.backend]) if peer.backend else nullcontext():
            o = peer.attend(*inputs, causal)
        return Work(lambda: torch.autograd.grad(o, inputs, d_o, retain_graph=True), gradients=True)
