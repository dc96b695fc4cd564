"""A step as a shared library (common/bench/step_library.cpp), called from Python with the addresses of device tensors."""
import ctypes
import os

from measure import ROOT, MeasureError

DTYPES = {"fp32": 0, "fp16": 1, "bf16": 2}


class StepLibrary:
    def __init__(self, path):
        self.path = path
        try:
            self.library = ctypes.CDLL(os.path.join(ROOT, path), mode=os.RTLD_LOCAL | os.RTLD_NOW)
        except OSError as error:
            raise MeasureError(f"{path} can't be loaded: {error}") from None
        self.library.prepare.restype = ctypes.c_void_p
        self.library.prepare.argtypes = [ctypes.c_int] * 5 + [ctypes.c_float, ctypes.c_int, ctypes.c_int]
        self.library.release.argtypes = self.library.workspace_bytes.argtypes = [ctypes.c_void_p]
        self.library.workspace_bytes.restype = ctypes.c_longlong
        self.library.last_sentence.restype = ctypes.c_char_p
        self.library.call.argtypes = [ctypes.c_void_p] * 4

    def fail(self):
        raise MeasureError(self.library.last_sentence().decode())


class PreparedStep:
    """The library's step on one problem; `forward`: the one that gives a backward step its O and LSE. close() it."""

    def __init__(self, library, shape, dtype, forward=False):
        batch, heads, seqlen, head_dim, causal = shape
        self.library = library
        self.handle = library.library.prepare(batch, heads, seqlen, head_dim, int(causal), head_dim**-0.5, DTYPES[dtype], int(forward))
        if not self.handle:
            library.fail()

    @property
    def workspace_bytes(self):
        return self.library.library.workspace_bytes(self.handle)

    def call(self, addresses, workspace, stream):
        """`addresses`: a ctypes array of pointers, as step_library.cpp orders them."""
        if self.library.library.call(self.handle, addresses, workspace, stream) != 0:
            self.library.fail()

    def close(self):
        self.library.library.release(self.handle)
        self.handle = None


def pointers(*addresses):
    return (ctypes.c_void_p * len(addresses))(*addresses)
