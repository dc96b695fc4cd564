"""Runs a step's program on a problem and reads its JSON (docs/json.md). What the ladder, the bench and the plots share."""
import json
import os
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


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
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return {"check": {"verdict": "error", "message": f"no end after {seconds} seconds"}}
    try:
        return json.loads(done.stdout)
    except ValueError:
        message = (done.stderr.strip() or f"status {done.returncode}").splitlines()[0]
        return {"check": {"verdict": "skip" if done.returncode == 4 else "error", "message": message}}


def problem_options(batch, heads, seqlen, head_dim, causal=False, dtype=None):
    options = ["--batch", str(batch), "--heads", str(heads), "--seqlen", str(seqlen), "--head-dim", str(head_dim)]
    return options + (["--causal"] if causal else []) + (["--dtype", dtype] if dtype else [])


def command_output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    except OSError:
        return ""


def machine():
    """What a figure must be quoted with; "" where it isn't known."""
    gpu = command_output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader").splitlines()
    name, driver = gpu[0].split(", ") if gpu else ("", "")
    toolkit = command_output("sh", "-c", "nvcc --version | sed -n 's/.*release \\([0-9.]*\\),.*/\\1/p'")
    commit = command_output("git", "rev-parse", "--short", "HEAD") or os.environ.get("FLASH_COMMIT", "")
    if commit and command_output("git", "status", "--porcelain", "--", "*.cu", "*.cuh"):
        commit += "+"  # kernels differ from the commit
    return {"gpu": name, "driver": driver, "toolkit": toolkit, "commit": commit}


def clocks():
    """SM and memory clock in MHz and power in watts, read now; "" without nvidia-smi."""
    line = command_output("nvidia-smi", "--query-gpu=clocks.sm,clocks.mem,power.draw", "--format=csv,noheader,nounits")
    parts = line.splitlines()[0].split(", ") if line else ["", "", ""]
    return {"sm_mhz": parts[0], "mem_mhz": parts[1], "power_w": parts[2]}
