"""PyTorch's attention, timed beside the steps: scaled_dot_product_attention with its cuDNN, FlashAttention-2,
memory-efficient and plain back ends. PyTorch is needed for this alone; nothing else in the project imports it."""
import statistics

from measure import MeasureError

try:
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel
except ImportError:
    raise MeasureError("--peers times PyTorch's attention, and PyTorch isn't installed for this python3 (pip install torch)")

BACKENDS = {
    "torch_cudnn": (SDPBackend.CUDNN_ATTENTION, ("bf16", "fp16")),
    "torch_flash": (SDPBackend.FLASH_ATTENTION, ("bf16", "fp16")),
    "torch_efficient": (SDPBackend.EFFICIENT_ATTENTION, ("fp32",)),
    "torch_math": (SDPBackend.MATH, ("fp32",)),
}
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def time_ms(work, iters):
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(iters)]
    for start, stop in events:
        start.record()
        work()
        stop.record()
    torch.cuda.synchronize()
    times = [start.elapsed_time(stop) for start, stop in events]
    return {"median": statistics.median(times), "min": min(times), "max": max(times)}


class Peers:
    def __init__(self, dtypes=("fp32", "bf16")):
        self.dtypes = dtypes

    def time(self, shape, iters):
        """Reports shaped like ./run's, a back end and direction each; one that refuses the shape says so."""
        batch, heads, seqlen, head_dim, causal = shape
        flops = 4.0 * batch * heads * seqlen * seqlen * head_dim * (0.5 if causal else 1)
        for dtype in self.dtypes:
            generator = torch.Generator(device="cuda").manual_seed(0)
            q, k, v, d_o = (
                torch.randn(batch, heads, seqlen, head_dim, device="cuda", dtype=TYPES[dtype], generator=generator)
                for _ in range(4)
            )
            for impl, (backend, types) in BACKENDS.items():
                if dtype not in types:
                    continue
                for direction in ("forward", "backward"):
                    report = {"impl": impl, "direction": direction, "problem": {"dtype": dtype}}
                    try:
                        with sdpa_kernel([backend]):
                            times = self.one(direction, q, k, v, d_o, bool(causal), iters)
                        work = flops * (2.5 if direction == "backward" else 1)
                        report.update(time_ms=times, tflops=work / times["median"] * 1e-9, check={"verdict": "peer"})
                    except Exception as error:  # a back end may refuse a shape, or run out of memory
                        report["check"] = {"verdict": "skip", "message": f"{type(error).__name__}: {error}"}
                    yield report
            del q, k, v, d_o
            torch.cuda.empty_cache()

    def one(self, direction, q, k, v, d_o, causal, iters):
        if direction == "forward":
            with torch.no_grad():
                return time_ms(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal), iters)
        inputs = tuple(t.detach().requires_grad_() for t in (q, k, v))
        o = F.scaled_dot_product_attention(*inputs, is_causal=causal)
        return time_ms(lambda: torch.autograd.grad(o, inputs, d_o, retain_graph=True), iters)
