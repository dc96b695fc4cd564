"""plan.py NAME=VALUE... -- GOAL...: what a command of make means. The Makefile asks once, for every command.

It prints variables for the Makefile, as NAME:=VALUE with | for blanks: the landings, the step that is named, the back
end. What can't be meant is refused in a sentence, with status 2. Whatever was typed comes here quoted, and only what is
known to be sound goes back: letters, digits and . _ - / in words, numbers in tile sizes.
"""
import os
import re
import sys

import landings as ladder

STEP_GOALS = ("step", "test", "diff")  # `make step 2`: the 2 is a word, not a goal
EXERCISE_GOALS = ("exercise", "check", "hint", "solution", "watch", "test-exercises")
MEASURED = ("ladder", "bench", "probe")
STEPS_ALONE = STEP_GOALS + MEASURED + ("counts",)  # these take no exercise's name
NEEDS_CUDA = {
    "sanitize": "make sanitize needs nvcc and a GPU; on the CPU back end every ./run looks for races and bad accesses.",
    "calibrate": "make calibrate needs nvcc, a GPU, ncu and compute-sanitizer.",
    "probe": "make probe measures a GPU, and needs one and nvcc.",
}
WORD = re.compile(r"[A-Za-z0-9._/-]+")
TILE = re.compile(r"[1-9][0-9]*x[1-9][0-9]*")
ARCH = re.compile(r"sm_[0-9]+[a-z]?")


class Mistake(Exception):
    """A sentence for a person; `steps`: with the steps there are."""

    def __init__(self, sentence, steps=False):
        super().__init__(sentence)
        self.steps = steps


def gpus():
    """Compute capabilities of this machine's GPUs, from 75 up: [75, 90]"""
    with os.popen("nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null") as answer:
        found = {line.strip().replace(".", "") for line in answer if re.fullmatch(r"\d+\.\d", line.strip())}
    return sorted(int(c) for c in found if int(c) >= 75)


class Command:
    """What was typed. `given`: variables by name; `targets`: the goals there are, everything else is a word."""

    def __init__(self, goals, given, targets, among, gpus=gpus):
        self.goals, self.among = goals or ["help"], among
        self.takes_words = self.goals[0] in STEP_GOALS + EXERCISE_GOALS
        self.words = given.get("N", "").split()
        if self.takes_words:
            self.words = [goal for goal in self.goals[1:] if goal not in targets] + self.words
        self.steps = [ladder.find(word, among) for word in self.words]
        self.step = self.steps[0] if self.steps else None
        self.nvcc = bool(given.get("NVCC"))
        asks = self.nvcc and not given.get("BACKEND") or given.get("BACKEND") == "cuda"
        self.gpus = gpus() if asks else []
        self.backend = given.get("BACKEND") or ("cuda" if self.nvcc and self.gpus else "emu")
        self.watch, self.tile = given.get("WATCH") or "1", given.get("TILE", "")
        self.archs = given.get("ARCH", "").split() or [f"sm_{c}" for c in self.gpus] or ["sm_80"]

    def has(self, *goals):
        """The first goal of these that was typed, or ''."""
        return next((goal for goal in self.goals if goal in goals), "")

    def refuse_words(self):
        words = " ".join(self.words)
        strange = [word for word in self.words if not WORD.fullmatch(word)]
        if strange:
            step = self.has(*STEPS_ALONE)
            raise Mistake(f"There is no {'step' if step else 'exercise'} '{words}'.", steps=bool(step) and not self.step)
        if not self.words and self.has("step", "diff"):
            goal = self.has("step", "diff")
            raise Mistake(f"Which step? Name it by its number or its name: make {goal} 2", steps=True)
        if not self.has(*STEPS_ALONE):
            return
        if len(self.words) > 1 and not self.has("diff"):
            raise Mistake(f"One step at a time: '{words}' names more.")
        if len(self.words) > 2:
            raise Mistake(f"make diff compares two steps: '{words}' names more.")
        for word, step in zip(self.words, self.steps):
            if not step:
                raise Mistake(f"There is no step '{word}'.", steps=not self.step)

    def refuse_values(self):
        if self.backend not in ("emu", "cuda"):
            raise Mistake(f"BACKEND is emu or cuda, not '{self.backend}'.")
        if self.watch not in ("0", "1"):
            raise Mistake(f"WATCH is 0 or 1, not '{self.watch}'.")
        if self.tile and not TILE.fullmatch(self.tile):
            raise Mistake(f"TILE is query rows x keys of a tile, like 64x32, not '{self.tile}'.")
        if not all(map(ARCH.fullmatch, self.archs)):
            if self.backend == "cuda" or self.has("cuda"):
                raise Mistake(f"ARCH is a GPU architecture like sm_80, not '{' '.join(self.archs)}'.")
            self.archs = ["sm_80"]  # no GPU is compiled for, and elsewhere ARCH has other meanings

    def refuse_together(self):
        for goal in self.goals:
            if goal in NEEDS_CUDA and self.backend != "cuda":
                raise Mistake(NEEDS_CUDA[goal])
        if self.has("cuda") and not self.nvcc:
            raise Mistake("make cuda needs nvcc, and there is none here.")
        if self.backend == "cuda" and not self.nvcc and self.has(*STEPS_ALONE):
            raise Mistake("BACKEND=cuda needs nvcc and there is none here; BACKEND=emu needs g++ alone.")
        goal = self.has("ladder", "bench", "counts")
        if self.tile and goal:
            raise Mistake(f"make {goal} takes each step with its own tile size; TILE is for make step.")
        if self.has("ladder") and self.backend == "emu" and self.watch == "0":
            raise Mistake("make ladder shows counts on the CPU back end, and with WATCH=0 nothing is counted.")
        goal = self.has(*MEASURED)
        if goal and self.backend == "cuda" and not self.gpus:
            raise Mistake(f"make {goal} measures a GPU with BACKEND=cuda, and nvidia-smi shows none of compute capability 7.5 "
                          "or later here.")
        if self.has("step") and self.tile and not self.step.has_tile_size:
            raise Mistake(f"{self.step.path} has no tile size to set.")

    def variables(self):
        """-> {name: words} for the Makefile. Raises Mistake."""
        self.refuse_words()
        self.refuse_values()
        self.refuse_together()
        tested = [one for one in self.among if not self.step or one.folder == self.step.folder]
        found = {
            "LANDINGS": [one.path for one in self.among],
            "WORDS": self.words,
            "STEP": [self.step.path] if self.step else [],
            "TESTED": [one.path for one in tested],
            "TESTED_UNWATCHED": [one.path for one in (tested if self.step else ladder.lasts(tested))],
            "BACKEND": [self.backend],
            "WATCH": [self.watch],
            "TILE": [self.tile],
            "REAL_ARCH": ["sm_90a" if arch == "sm_90" else arch for arch in self.archs],  # 90a: Hopper's own instructions
            "TILES": [self.tile] if self.tile else [],  # for each there are rules
            "OTHER_TILE_TESTS": [],
        }
        if self.has("diff"):
            old = self.step if len(self.steps) > 1 else ladder.before(self.step, self.among)
            found["DIFF"] = [old.path + ".cu", self.steps[-1].path + ".cu"] if old else []
        for one in self.among:
            found[one.path + ".forwards"] = [forward.path for forward in ladder.forwards_for(one, self.among)]
            found[one.path + ".archs"] = one.architectures
            for tile in one.tested_tiles if not self.tile else []:
                found["TILES"] = sorted({*found["TILES"], tile})
                found["OTHER_TILE_TESTS"] += [f"build/emu-{tile}/{one.path}.test"] if one in tested else []
        return found


def main(arguments):
    at = arguments.index("--")
    given = dict(argument.split("=", 1) for argument in arguments[:at])
    among = ladder.landings()
    command = Command(arguments[at + 1 :], given, given.get("TARGETS", "").split(), among)
    try:
        found = command.variables()
    except Mistake as mistake:
        sys.stderr.reconfigure(errors="surrogateescape")  # a word is printed as it was typed
        sys.stderr.write(f"{mistake}\n" + ("The steps are\n" + ladder.listing(among) if mistake.steps else ""))
        return 2
    print(" ".join(f"{name}:={'|'.join(words)}" for name, words in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
