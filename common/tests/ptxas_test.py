"""A kernel whose wgmmas ptxas serialises isn't built, and the build says where to read why. Needs nvcc."""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")

KERNEL = """#include "common/kernel/cuda.cuh"
#include "common/kernel/ptx/wgmma.cuh"

using Product = Wgmma<64, __nv_bfloat16>;

%s
__global__ void product(float* out, uint64_t a, uint64_t b, int n) {
  float d[32];
  %s
  wgmma_wait<0>();
  pin(d);
  for (int i = 0; i < 32; ++i) out[threadIdx.x * 32 + i] = d[i];
}
"""
ISSUE = "wgmma_fence(); Product::ss<0, 0>(d, a, b, 0); wgmma_commit();"
BEHIND_A_CALL = """__device__ __noinline__ void issue(float (&d)[32], uint64_t a, uint64_t b) {
  Product::ss<0, 0>(d, a, b, 0);
  wgmma_commit();
}
"""


def build(kernel):
    """-> the build's status, what it said, and whether it left an object."""
    os.makedirs(os.path.join(ROOT, "build"), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.join(ROOT, "build")) as folder:
        source = os.path.relpath(os.path.join(folder, "planted.cu"), ROOT)
        with open(os.path.join(ROOT, source), "w", encoding="utf-8") as file:
            file.write(kernel)
        target = os.path.join("build/cuda-sm_90a", source[: -len("cu")] + "o")
        try:
            done = subprocess.run(["make", "BACKEND=cuda", "ARCH=sm_90a", target], cwd=ROOT, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            return done.returncode, done.stdout, os.path.exists(os.path.join(ROOT, target))
        finally:
            shutil.rmtree(os.path.join(ROOT, os.path.dirname(target)), ignore_errors=True)


@unittest.skipUnless(NVCC, "no nvcc here")
class Serialised(unittest.TestCase):
    def refused(self, kernel, remark):
        status, said, is_there = build(kernel)
        self.assertNotEqual(status, 0, said)
        self.assertIn(remark, said)
        self.assertIn("planted.cu: ptxas makes wgmma wait, or ignores setmaxnreg, as it says above. docs/wgmma_serialised.md has", said)
        self.assertFalse(is_there)

    def test_a_correct_kernel_is_built(self):
        status, said, is_there = build(KERNEL % ("", ISSUE))
        self.assertEqual((status, is_there), (0, True), said)

    def test_accumulators_touched_between_issue_and_wait_in_a_branch(self):
        touch = "if (n > 3) { for (float& x : d) x *= 2; }"
        self.refused(KERNEL % ("", f"{ISSUE} {touch}"), "warpgroup.wait is injected")

    def test_a_product_behind_a_function_that_is_not_inlined(self):
        self.refused(KERNEL % (BEHIND_A_CALL, "wgmma_fence(); issue(d, a, b);"), "wgmma.mma_async instructions are serialized")


if __name__ == "__main__":
    result = unittest.main(exit=False).result
    bad = len({test.id().split(" ")[0] for test, _ in result.failures + result.errors})
    if result.skipped:
        print(f"SKIP: {result.skipped[0][1]}")
    if "FLASH_TEST_TOTALS" in os.environ:
        with open(os.environ["FLASH_TEST_TOTALS"], "a", encoding="utf-8") as totals:
            totals.write(f"{result.testsRun - bad - len(result.skipped)} {bad}\n")
    sys.exit(1 if bad else 0)
