#!/usr/bin/env python3
"""The classroom: `make exercises`, `make exercise 3.1x2`, `make check`, `make hint`, `make solution`, `make watch`.

A student's files lie in work/, which git ignores: work/3.1x2_NAME.cu, the task beside it as .md, and what is passed so far
in work/state.json. Nothing of a student's is overwritten without FORCE=1, and then a backup is kept.
"""
import difflib
import json
import os
import signal
import sys
import time

from exercise_files import ROOT, WORK, ExerciseError, all_exercises, find_exercise, read_kernel, write_whole
from judge import judge
from labels import without_labels

STATE = os.path.join(ROOT, WORK, "state.json")


def load_state():
    try:
        with open(STATE, encoding="utf-8") as f:
            return json.load(f)
    except FileNotFoundError:
        return {"current": None, "passed": {}, "hints": {}}
    except ValueError:
        raise ExerciseError("work/state.json is damaged; delete it to start the score anew (your kernels stay)")


def save_state(state):
    os.makedirs(os.path.dirname(STATE), exist_ok=True)
    write_whole(STATE, json.dumps(state, indent=2) + "\n")


def points_text(n):
    return f"{n:g} point" + ("" if n == 1 else "s")


def started(exercise):
    return os.path.exists(os.path.join(ROOT, exercise.work_file))


def next_open(exercises, state, after=None):
    """The first exercise behind `after` that isn't passed, else the first of all; None when all are."""
    behind = exercises[exercises.index(after) + 1 :] if after else []
    for exercise in behind + exercises:
        if exercise.name not in state["passed"]:
            return exercise
    return None


def the_one(words, exercises, state):
    """The exercise a command is about: the one it names, else the current one."""
    word = words[0] if words else state["current"]
    if not word:
        raise ExerciseError("no exercise is begun; `make exercises` lists them, `make exercise 3.1x2` begins one")
    return find_exercise(word, exercises)


def list_exercises(exercises, state):
    print("bug: find and repair it; hole: write what is missing; idea: right but wasteful, make it ask for less")
    folder = None
    for e in exercises:
        if e.landing.split("/")[0] != folder:
            folder = e.landing.split("/")[0]
            print(f"\n{folder}")
        mark = "done" if e.name in state["passed"] else "begun" if started(e) else ""
        here = "  <- you are here" if e.name == state["current"] and mark != "done" else ""
        print(f"  {e.id:7s} {e.kind:5s} {e.minutes:3d} min {e.points:3d} p  {mark:5s}  {e.title}{here}")
    have = sum(state["passed"].get(e.name, 0) for e in exercises)
    print(f"\n{have:g} of {points_text(sum(e.points for e in exercises))}.", end=" ")
    if not next_open(exercises, state):
        print("All are done: you have repaired every kernel of the ladder.")
    elif state["current"] and state["current"] not in state["passed"]:
        current = find_exercise(state["current"], exercises)
        print(f"Go on with {current.work_file}, then `make check`.")
    else:
        current = find_exercise(state["current"], exercises) if state["current"] else None
        print(f"Next: `make exercise {next_open(exercises, state, current).id}`; begin anywhere you like.")


def begin(exercise, state, force):
    path = os.path.join(ROOT, exercise.work_file)
    text = exercise.broken()
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            old = f.read()
        if old != text and not force:
            state["current"] = exercise.name
            save_state(state)
            print(f"{exercise.work_file} holds your edits; it stays as it is.")
            print(f"To start anew: `make exercise {exercise.id} FORCE=1` (your file is kept as a backup).")
            print("Next: edit it, then `make check`.")
            return
        if old != text:
            backup = f"{path}.{time.strftime('%Y%m%d-%H%M%S')}.bak"
            os.rename(path, backup)
            print(f"Your file is kept as {os.path.relpath(backup, ROOT)}.")
    todo = next((n for n, line in enumerate(text.splitlines(), 1) if "TODO:" in line), None)
    place = f" (line {todo}, marked TODO)" if todo else ""
    task = (
        f"# {exercise.id}: {exercise.title}\n\n{exercise.task}\n\n"
        f"Edit `{exercise.work_file}`{place}, then `make check`. `make hint` helps, as often as you like.\n"
        f"The chapter is {exercise.chapter}. About {exercise.minutes} minutes, {points_text(exercise.points)}.\n"
    )
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_whole(path, text)
    write_whole(path[: -len(".cu")] + ".md", task)
    state["current"] = exercise.name
    save_state(state)
    print(task)


def check_one(exercise, exercises, state, among_others=False):
    """-> True if it passes; says what it sees."""
    if not started(exercise):
        raise ExerciseError(f"{exercise.id} isn't begun: `make exercise {exercise.id}`")
    print(f"{exercise.id} {exercise.title}: building and running {exercise.work_file}", flush=True)
    verdict = judge(exercise.work_file, exercise.landing, exercise, say=lambda text: print(text, flush=True))
    if not verdict.passed:
        print(f"\n{verdict.text}\n\n{exercise.id} isn't right yet. Next: edit {exercise.work_file}, then `make check`;")
        print("`make hint` shows the next hint.", end="\n\n" if among_others else "\n")
        return False
    state["passed"][exercise.name] = exercise.points
    save_state(state)
    if among_others:
        print(f"{exercise.id} is right: {points_text(exercise.points)}.\n")
        return True
    print(f"\n{exercise.id} is right: {points_text(exercise.points)}.\n\nWhy:\n{exercise.why}\n")
    following = next_open(exercises, state, exercise)
    if following:
        print(f"`make solution` shows the ladder's own kernel. Next: `make exercise {following.id}`, {following.title}.")
    else:
        print("That was the last one: you have repaired every kernel of the ladder.")
    return True


def check(words, exercises, state):
    if words == ["all"]:
        begun = [e for e in exercises if started(e)]
        if not begun:
            raise ExerciseError("no exercise is begun; `make exercise 3.1x2` begins one")
        right = [check_one(e, exercises, state, among_others=True) for e in begun]
        print(f"{sum(right)} of {len(right)} begun exercises are right.")
        return all(right)
    return check_one(the_one(words, exercises, state), exercises, state)


def hint(exercise, state):
    shown = state["hints"].get(exercise.name, 0)
    if not exercise.hints:
        print(f"{exercise.id} has no hints. Its task is in {exercise.work_file[:-3]}.md.")
        return
    tier = min(shown + 1, len(exercise.hints))
    state["hints"][exercise.name] = tier
    save_state(state)
    for n, text in enumerate(exercise.hints[:tier], 1):
        print(f"Hint {n} of {len(exercise.hints)}: {text}\n")
    if tier == len(exercise.hints) and shown == tier:
        force = "" if exercise.name in state["passed"] else " FORCE=1"
        print(f"There are no more hints. `make solution {exercise.id}{force}` shows the solution.")


def solution(exercise, state, force):
    if exercise.name not in state["passed"] and not force:
        raise ExerciseError(
            f"{exercise.id} isn't passed yet; `make check` it first, or `make solution {exercise.id} FORCE=1` to look anyway"
        )
    kernel = without_labels(read_kernel(exercise.kernel, exercise.path))
    print(f"From the broken kernel to {exercise.kernel}:\n")
    print("".join(difflib.unified_diff(
        exercise.broken().splitlines(True), kernel.splitlines(True), exercise.work_file, exercise.kernel, n=3)))
    print(f"Why:\n{exercise.why}")


def watch(words, exercises, state):
    exercise = the_one(words, exercises, state)
    path = os.path.join(ROOT, exercise.work_file)
    if not started(exercise):
        begin(exercise, state, force=False)
    seen = None
    while True:
        now = os.stat(path).st_mtime_ns if os.path.exists(path) else None
        if now is not None and now != seen:
            seen = now
            print("\033[2J\033[H" if sys.stdout.isatty() else "", end="")
            if check_one(exercise, exercises, state):
                return
            print(f"Watching {exercise.work_file}: save it to check again, Ctrl-C to stop.", flush=True)
        time.sleep(0.5)


def main(arguments):
    command, words = arguments[0], arguments[1:]
    force = os.environ.get("FORCE") == "1"
    exercises, state = all_exercises(), load_state()
    if command == "list":
        list_exercises(exercises, state)
    elif command == "begin":
        if not words:
            raise ExerciseError("which one? `make exercise 3.1x2`; `make exercises` lists them")
        begin(find_exercise(words[0], exercises), state, force)
    elif command == "check":
        return 0 if check(words, exercises, state) else 1
    elif command == "hint":
        hint(the_one(words, exercises, state), state)
    elif command == "solution":
        solution(the_one(words, exercises, state), state, force)
    elif command == "watch":
        watch(words, exercises, state)
    else:
        raise ExerciseError(f"no command '{command}'")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `make solution | head` ends quietly
    try:
        sys.exit(main(sys.argv[1:]))
    except ExerciseError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # work/ that can't be written to
        print(f"{error.filename or WORK}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print()
        sys.exit(130)
