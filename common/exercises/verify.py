#!/usr/bin/env python3
"""`make test-exercises`: proves of every exercise that it can be used in a class.

Its changes fit the kernel; the file a student gets compiles without warnings and fails, with the test or report that
the preamble declares; each near-miss repair still fails; the ladder's own kernel passes the exercise's check.
"""
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from exercise_files import ROOT, ExerciseError, all_exercises
from judge import judge, run_limited


def write(exercise, label, text):
    path = os.path.join("build", "exercise", f"{exercise.id}_{label}.cu")
    os.makedirs(os.path.join(ROOT, os.path.dirname(path)), exist_ok=True)
    full = os.path.join(ROOT, path)
    if not os.path.exists(full) or open(full, encoding="utf-8").read() != text:
        with open(full, "w", encoding="utf-8") as f:
            f.write(text)
    return path


def shipped(exercise):
    source = write(exercise, "shipped", exercise.broken())
    verdict = judge(source, exercise.landing, exercise, flags="-Werror")
    if verdict.kind == "compile":
        return f"as shipped it doesn't compile without warnings:\n{verdict.text}"
    if verdict.passed:
        return "as shipped it passes"
    if not verdict.is_as_declared(exercise.fails):
        return f"as shipped it should fail with '{exercise.fails}', but the verdict is {verdict.kind}:\n{verdict.text}"
    return None


def wrong_repair(exercise, path):
    source = write(exercise, os.path.basename(path), exercise.wrong_repair(path))
    verdict = judge(source, exercise.landing, exercise)
    if verdict.kind == "compile":
        return f"{path} doesn't compile:\n{verdict.text}"
    return f"{path} passes" if verdict.passed else None


def ladders_own(exercise):
    out = f"build/exercise/{exercise.id}_ladder"  # two exercises may judge one kernel at the same time
    verdict = judge(exercise.kernel, exercise.landing, exercise, out)
    return None if verdict.passed else f"the ladder's own kernel fails ({verdict.kind}):\n{verdict.text}"


def main(words):
    exercises = [e for e in all_exercises() if not words or e.id in words or e.name in words]
    if not exercises:
        raise ExerciseError("no exercise to test")
    # What all jobs link with is built before they start, so that no two of them build it at once.
    for landing in sorted({e.landing for e in exercises}):
        programs = [f"build/{folder}/{landing}.{kind}" for folder in ("emu", "emu-fast") for kind in ("run", "test")]
        if run_limited(["make", "-s", *programs], 900)[0] != 0:
            raise ExerciseError(f"{landing}.cu doesn't build")
    jobs = []
    for e in exercises:
        jobs.append((e, "as shipped", lambda e=e: shipped(e)))
        jobs += [(e, os.path.basename(w), lambda e=e, w=w: wrong_repair(e, w)) for w in e.wrongs]
        if not e.wrongs:
            jobs.append((e, "wrong repairs", lambda: "it has no near-miss repair (NAME.wrong1)"))
    # The ladder's kernel is judged once for each set of problems it meets.
    seen = set()
    for e in exercises:
        key = (e.kernel, e.fields.get("problems"))
        if key not in seen:
            seen.add(key)
            jobs.append((e, "the ladder's kernel", lambda e=e: ladders_own(e)))

    def one(job):
        exercise, what, work = job
        try:
            return exercise, what, work()
        except ExerciseError as error:
            return exercise, what, str(error)

    begin, failed = time.time(), 0
    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        for exercise, what, trouble in pool.map(one, jobs):
            if trouble:
                failed += 1
                print(f"FAILED {exercise.id} {exercise.name}, {what}: {trouble}\n", flush=True)
    print(f"{len(exercises)} exercises in {time.time() - begin:.0f} s")
    print(f"{len(jobs) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ExerciseError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
