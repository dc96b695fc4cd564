"""Runs a step's program on a problem and reads its JSON (docs/json.md). What the ladder, the bench and the plots share."""
import json
import os
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.append(os.path.join(ROOT, "common", "make"))
from landings import dtypes, is_backward, landings_for, landings_of, name_of, number_of  # for the scripts beside this one


class MeasureError(Exception):
    """A sentence for a person."""


def landing_of(program):
    """'build/emu/05_tensor_core/1_mma.run' -> '05_tensor_core/1_mma'"""
    return "/".join(program.split("/")[-2:])[: -len(".run")]


def run_json(program, options, seconds=600):
    """-> the report as a dictionary. A step that can't take the problem gives its verdict "skip"; a run that fails in
    another way gives {"check": {"verdict": "error", "message": ...}}."""
    command = [os.path.join(ROOT, program), *options, "--json", "-"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return {"check": {"verdict": "error", "message": f"no end after {seconds} seconds"}}
    except OSError as error:
        return {"check": {"verdict": "error", "message": str(error)}}
    try:
        return json.loads(done.stdout)
    except ValueError:
        message = (done.stderr.strip() or f"status {done.returncode}").splitlines()[0]
        return {"check": {"verdict": "skip" if done.returncode == 4 else "error", "message": message}}


def verdict_of(report):
    return report["check"]["verdict"]


def message_of(report):
    """The first line of why a report has the verdict it has: of the first fault, where the memory accesses have some."""
    said = (report.get("faults") or [report["check"]])[0].get("message")
    return (said or "no reason given").splitlines()[0]


def passed(program, options):
    """The report of a run that has to pass."""
    report = run_json(program, options)
    if verdict_of(report) != "pass":
        raise MeasureError(f"{landing_of(program)} {' '.join(options)}: {verdict_of(report)}, {message_of(report)}")
    return report


def problem_options(batch, heads, seqlen, head_dim, causal=False, dtype=None):
    options = ["--batch", str(batch), "--heads", str(heads), "--seqlen", str(seqlen), "--head-dim", str(head_dim)]
    return options + (["--causal"] if causal else []) + (["--dtype", dtype] if dtype else [])


def command_output(*command):
    """"" where there is no such program. git looks no higher than here: a tarball's folder may lie in another repository."""
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": os.path.dirname(ROOT)}
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment).stdout.strip()
    except OSError:
        return ""


def machine():
    """What a figure must be quoted with; "" where it isn't known. FLASH_COMMIT names the commit where git can't."""
    gpu = command_output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader").splitlines()
    name, driver = gpu[0].split(", ") if gpu and ", " in gpu[0] else ("", "")
    toolkit = command_output("sh", "-c", "PATH=$PATH:/usr/local/cuda/bin; nvcc --version | sed -n 's/.*release \\([0-9.]*\\),.*/\\1/p'")
    commit = os.environ.get("FLASH_COMMIT") or command_output("git", "rev-parse", "--short", "HEAD")
    if commit and not os.environ.get("FLASH_COMMIT") and command_output("git", "status", "--porcelain", "--", "*.cu", "*.cuh"):
        commit += "+"  # kernels differ from the commit
    return {"gpu": name, "driver": driver, "toolkit": toolkit, "commit": commit, "date": time.strftime("%Y-%m-%d")}


class Clocks:
    """SM and memory clock (MHz) and power (W) while something runs: one nvidia-smi asks the first GPU ten times a second.
    Asked after a run, an idle GPU would answer. Without nvidia-smi, or in a run too short to be seen, the values are ""."""

    QUERY = ["nvidia-smi", "--id=0", "--query-gpu=clocks.sm,clocks.mem,power.draw", "--format=csv,noheader,nounits", "-lms", "100"]

    def __enter__(self):
        self.samples = []
        try:
            self.process = subprocess.Popen(self.QUERY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        except OSError:
            self.process = None
            return self
        threading.Thread(target=self.read, daemon=True).start()
        return self

    def read(self):
        for line in self.process.stdout:
            try:
                self.samples.append((time.monotonic(), *(float(part) for part in line.split(","))))
            except ValueError:
                pass  # "[N/A]"

    def since(self, begin):
        """The highest of each since time.monotonic() was `begin`."""
        seen = [sample[1:] for sample in list(self.samples) if sample[0] >= begin and len(sample) == 4]
        highest = [f"{max(values):.0f}" for values in zip(*seen)] or ["", "", ""]
        return dict(zip(("sm_mhz", "mem_mhz", "power_w"), highest))

    def __exit__(self, *_):
        if self.process:
            self.process.terminate()
            self.process.wait()


def progress(text):
    """A line that the next one overwrites; nothing where no person is looking."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
