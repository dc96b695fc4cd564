"""Is a kernel file right? Builds it in its step's place, runs problems and looks at the watcher's report; compares an
idea exercise's count with the ladder's own kernel; runs the step's tests of correctness. The first thing that is wrong
becomes the verdict, told to a student.

An exercise's `fails:` line says what must be wrong as shipped: a kind below, and a part of the text that must show.
    check every row past     the checker's report on a problem
    fault race               the watcher's report: race, out of bounds, uninitialised, misaligned, barrier ...
    count                    an idea exercise: the count it names is too high
    test   ...               one of the step's tests
    crash, hang              the kernel died, or didn't end
"""
import contextlib
import json
import os
import re
import select
import signal
import subprocess

from exercise_files import ROOT, ExerciseError, dtypes, short_number_of
from problems import check_problems, options

BUILD_SECONDS = 600
HANG_SECONDS = 40  # of one problem, which takes one or two
TEST_HANG_SECONDS = 120  # of one test, which takes up to twenty, and three times that on a busy machine


class Verdict:
    def __init__(self, kind, text, count=None):
        self.kind = kind  # pass, compile, or a word of the list above
        self.text = text  # for the student
        self.count = count  # of an idea exercise: the figure its points depend on

    @property
    def passed(self):
        return self.kind == "pass"

    def is_as_declared(self, fails):
        kind, _, part = fails.partition(" ")
        return self.kind == kind and part.lower() in self.text.lower()


def end(process):
    """Ends it and what it started; SIGTERM first, on which make deletes what is half written."""
    for number, seconds in ((signal.SIGTERM, 1), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.communicate(timeout=seconds)


def run_limited(command, seconds=HANG_SECONDS, **more):
    """-> (status, stdout, stderr); status None: it ran past the limit and was ended"""
    process = subprocess.Popen(
        command, cwd=ROOT, text=True, errors="replace", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL, start_new_session=True, **more
    )
    try:
        out, err = process.communicate(timeout=seconds)
        return process.returncode, out, err
    except subprocess.TimeoutExpired:
        end(process)
        return None, "", ""
    except BaseException:  # Ctrl-C: nothing is left running
        end(process)
        raise


def run_until_silent(command, seconds=TEST_HANG_SECONDS, **more):
    """-> (status, output); status None: it said nothing for so long and was ended"""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        start_new_session=True, **more
    )
    output = b""
    try:
        while True:
            if not select.select([process.stdout], [], [], seconds)[0]:
                end(process)
                return None, ""
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece:
                return process.wait(), output.decode(errors="replace")
            output += piece
    except BaseException:
        end(process)
        raise


def build(source, landing, out, program, flags="", **more):
    """`program` of $(OUT), such as watched.run. -> (True, the compiler's warnings) or (False, what it said)

    A warning is no error: which ones there are depends on the compiler's version. flags="-Werror" makes it one.
    """
    arguments = [f"SOURCE={source}", f"LANDING={landing}", f"OUT={out}", f"SOURCE_FLAGS={flags}"]
    status, stdout, stderr = run_limited(["make", "-s", *arguments, f"{out}/{program}"], BUILD_SECONDS, **more)
    if status is None:
        return False, f"error: the compiler didn't end within {BUILD_SECONDS} seconds"
    lines = [l for l in (stdout + stderr).splitlines() if not l.startswith(("make", "  g++", "  nvcc"))]
    text = "\n".join(lines).strip()
    return status == 0, text or ("" if status == 0 else "make failed without a word")


def missing_step(program, landing, **more):
    """-> a sentence where the file didn't register its step, which makes the program one of no step, or of another"""
    status, out, err = run_limited([program, "--list"], **more)
    names = re.findall(r"(?m)^\S+ +(\S+)", out)  # the last is what the program runs
    if status == 2:
        return err.strip().replace("./run: ", "")
    if status == 0 and names[-1:] not in ([landing], [os.path.dirname(landing)]):
        return (f"this file registers no step {os.path.dirname(landing)}: it must end with "
                "`const flash::RegisterStep registered(flash::forward_step(...));`")
    return None


def todo_lines(source):
    with open(os.path.join(ROOT, source), encoding="utf-8", errors="replace") as f:
        return [f"{source}:{n}: {line.strip().lstrip('/ ')}" for n, line in enumerate(f, 1) if "TODO:" in line]


def run_problem(program, options):
    """-> (kind, text, JSON or None) of ./run on one problem"""
    status, out, err = run_limited([program, *options.split(), "--json", "-"])
    command = f"{program} {options}"
    if status is None:
        return "hang", (f"{command}\nThe kernel didn't end within {HANG_SECONDS} seconds. Look for a loop that nothing ends: "
                        "a counter that doesn't grow, a condition that stays true."), None
    try:
        result = json.loads(out)
    except ValueError:
        result = None
    if status == 4:  # a problem this step doesn't take
        return "skip", err.strip(), None
    if status == 2:
        raise ExerciseError(f"{command}: {err.strip()}")
    faults = (result or {}).get("faults") or []
    if faults:
        return "fault", f"{command}\n" + "\n\n".join(f["message"] for f in faults[:2]), result
    if status not in (0, 1) or result is None:
        return "crash", f"{command}\n{err.strip() or f'The program died with status {status}.'}", result
    if result["check"]["verdict"] == "fail":
        return "check", f"{command}\n{result['check']['message']}", result
    return "pass", "", result


def problems_of(landing, exercise):
    """Options of the runs on the watched build, in order: the exercise's own problems, else the list's."""
    own = [l.strip() for l in exercise.fields.get("problems", "").splitlines() if l.strip()] if exercise else []
    other = " --dtype fp16" if "fp16" in dtypes(landing) else ""  # every second one; bf16 for the rest
    return own or [options(p) + (other if i % 2 else "") for i, p in enumerate(check_problems())]


def count_of(result, name):
    value = result
    for part in ("counts", *name.split(".")):
        value = value[part]
    return value


# The count to measure, options of the run it is measured in.
COUNT_PROBLEM = "--heads 1 --seqlen 96"
FULL_POINTS = 1.05  # times the ladder's own count: as good as the ladder's


def count_problem(exercise):
    return exercise.fields.get("problems", COUNT_PROBLEM).strip().splitlines()[0].strip()


def too_many(exercise, count, least, out):
    times = f" (you have {count / least:.2f} times that)" if least else ""
    return (f"The result is right, but {exercise.count} is {count:,}; it should be {least:,}{times}.\n"
            f"Where it comes from: {out}/watched.run {count_problem(exercise)} --profile")


def measured_count(program, exercise):
    """-> the count, or None where the run didn't get that far"""
    _, _, result = run_problem(program, count_problem(exercise))
    return count_of(result, exercise.count) if result and "counts" in result else None


def ladders_count(exercise):
    """The count of the ladder's own kernel."""
    program = f"build/emu/{exercise.landing}.run"
    if run_limited(["make", "-s", program], 600)[0] != 0:
        raise ExerciseError(f"{exercise.kernel} doesn't build: `make step {short_number_of(exercise.landing)}` says why")
    return measured_count(program, exercise)


def failing_test(program):
    """The step's tests, up to the first that fails. -> (kind, text), kind None where all pass"""
    # With durations: a line a test, as it ends.
    status, out = run_until_silent([program, "--abort", "-d", "yes"])
    if status == 0:
        return None, ""
    if status is None:
        return "hang", f"One of the step's tests ({program}) didn't end within {TEST_HANG_SECONDS} seconds."
    out = re.sub(r"(?m)^\d+\.\d+ s: .*\n", "", out)
    text = re.sub(r"\n{3,}", "\n\n", out).strip()
    text = re.sub(r"(?s)\A.*?-{20,}\n", "", text, count=1)
    text = re.sub(r"(?m)^={20,}[\s\S]*\Z", "", text).strip()
    return "test", text or f"{program} died with status {status}."


def judge(source, landing, exercise=None, out=None, say=lambda text: None, flags=""):
    """The verdict on a kernel file in the place of `landing`'s, e.g. judge('work/3.1x2_a.cu', '03_flash_v1/1_tiles').

    `say` is told the compiler's warnings, and how far it is where the rest takes a while. `flags`: more for the compiler.
    """
    out = out or os.path.join("build", "exercise", re.sub(r"\W+", "_", source))
    todo = todo_lines(source)
    note = ("\n\nStill marked TODO (delete the mark when it is done):\n  " + "\n  ".join(todo)) if todo else ""

    built, text = build(source, landing, out, "watched.run", flags)
    if not built:
        return Verdict("compile", text + note)
    if text:
        say(f"The compiler warns, which costs nothing but may be worth a look:\n{text}\n")
    if text := missing_step(f"{out}/watched.run", landing):
        return Verdict("crash", text + note)
    for options in problems_of(landing, exercise):
        kind, text, _ = run_problem(f"{out}/watched.run", options)
        if kind not in ("pass", "skip"):
            return Verdict(kind, text + note)

    count = None
    if exercise and exercise.count:
        count, least = measured_count(f"{out}/watched.run", exercise), ladders_count(exercise)
        if count is None or least is None:
            return Verdict("crash", f"{exercise.count} could not be counted: the run left no report.{note}")
        if count > FULL_POINTS * least:
            return Verdict("count", f"{too_many(exercise, count, least, out)}{note}", count)

    say("The watched problems are right; now the step's tests ...")
    # The unwatched build: many more problems, and no test of counts, which another right solution may not meet.
    built, text = build(source, landing, out, "fast.test", flags)
    if not built:
        return Verdict("compile", text + note)
    kind, text = failing_test(f"{out}/fast.test")
    return Verdict(kind, text + note, count) if kind else Verdict("pass", "", count)
