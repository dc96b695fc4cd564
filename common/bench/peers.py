"""PyTorch's attention, timed beside the steps: scaled_dot_product_attention with its cuDNN, FlashAttention-2,
memory-efficient and plain back ends. PyTorch is needed for this alone; nothing else in the project imports it."""
import statistics
import sys
import time

if __name__ == "__main__":
    sys.exit('make bench BENCH="--peers" times these.')

from measure import MeasureError

try:
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel
except ImportError:
    raise MeasureError("--peers times PyTorch's attention, and this python3 has no PyTorch (pip install torch); "
                       "without --peers the steps alone are timed") from None

SIXTEEN_BIT = ("bf16", "fp16")
BACKENDS = {
    "torch_cudnn": (SDPBackend.CUDNN_ATTENTION, SIXTEEN_BIT),
    "torch_flash": (SDPBackend.FLASH_ATTENTION, SIXTEEN_BIT),
    "torch_efficient": (SDPBackend.EFFICIENT_ATTENTION, ("fp32",)),
    "torch_math": (SDPBackend.MATH, ("fp32",)),
}
PAUSE_S = 0.5  # before each series: a step's process takes about as long to begin, and the card cools meanwhile
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def time_ms(work, budget_ms, most):
    """As ./run times a step: three calls to warm up, then each call between its own pair of events. Here the calls are
    queued one behind the other, so that the GPU doesn't wait for Python: a step is started by a few lines of C++."""

    def times_of(count):
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(count)]
        for start, stop in events:
            start.record()
            work()
            stop.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(stop) for start, stop in events]

    time.sleep(PAUSE_S)
    once = min(times_of(3))
    times = times_of(int(max(3, min(most, budget_ms / max(once, 1e-3)))))
    return {"median": statistics.median(times), "min": min(times), "max": max(times), "iters": len(times)}


class Peers:
    def __init__(self, dtypes, directions):
        if not torch.cuda.is_available():
            raise MeasureError("--peers times PyTorch's attention, and this PyTorch sees no GPU")
        self.dtypes, self.directions = dtypes, directions

    def time(self, shape, budget_ms, most):
        """Reports shaped like ./run's, one a back end and direction; a back end that refuses the shape says so."""
        batch, heads, seqlen, head_dim, causal = shape
        pairs = seqlen * (seqlen + 1) / 2 if causal else seqlen * seqlen  # as problem.h counts them
        flops = 4.0 * batch * heads * pairs * head_dim
        for dtype in self.dtypes:
            generator = torch.Generator(device="cuda").manual_seed(0)
            q, k, v, d_o = (
                torch.randn(batch, heads, seqlen, head_dim, device="cuda", dtype=TYPES[dtype], generator=generator)
                for _ in range(4)
            )
            for impl, (backend, types) in BACKENDS.items():
                for direction in self.directions if dtype in types else ():
                    report = {"impl": impl, "direction": direction, "problem": {"dtype": dtype}}
                    try:
                        with sdpa_kernel([backend]):
                            times = self.one(direction, q, k, v, d_o, bool(causal), budget_ms, most)
                        work = flops * (2.5 if direction == "backward" else 1)
                        report.update(time_ms=times, tflops=work / times["median"] * 1e-9, check={"verdict": "peer"})
                    except Exception as error:  # a back end may refuse a shape, or run out of memory
                        report["check"] = {"verdict": "skip", "message": f"{type(error).__name__}: {error}"}
                    yield report
            del q, k, v, d_o
            torch.cuda.empty_cache()  # the steps are other processes, and need the memory

    def one(self, direction, q, k, v, d_o, causal, budget_ms, most):
        if direction == "forward":
            with torch.no_grad():
                return time_ms(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal), budget_ms, most)
        inputs = tuple(t.detach().requires_grad_() for t in (q, k, v))
        o = F.scaled_dot_product_attention(*inputs, is_causal=causal)
        return time_ms(lambda: torch.autograd.grad(o, inputs, d_o, retain_graph=True), budget_ms, most)
