"""A new step needs no edit anywhere but in its own folder: in a copy of the checkout 00_naive becomes 20_toy, by its names
alone, and make knows it: step, list, test, ladder, exercises, check, grade. What is built already is copied along."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OLD, NEW = ("00", "naive"), ("20", "toy")
EXERCISE, NEW_EXERCISE = "which_key", "toy_key"
LEFT_OUT = {"build", "work", "run", "bench.csv"}  # of the checkout's own folder


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def renamed(text):
    """naive -> toy; the step's number where it stands in a name or a string; without the test that takes longest."""
    text = re.sub(r"(?m)^TEST_CASE\(.*awkward problems.*\n", "", text)
    text = re.sub(rf"\b{OLD[0]}_{OLD[1]}", "_".join(NEW), text)
    return re.sub(OLD[1], NEW[1], re.sub(rf'"{OLD[0]}"', f'"{NEW[0]}"', text))


def add_toy_step(root):
    old, new = (os.path.join(root, "_".join(names)) for names in (OLD, NEW))
    for folder, _, files in os.walk(old):
        os.makedirs(folder.replace(old, new))
        for file in files:
            if os.path.basename(folder) != "exercises" or EXERCISE in file:
                path = os.path.join(folder.replace(old, new), renamed(file).replace(EXERCISE, NEW_EXERCISE))
                with open(path, "w", encoding="utf-8") as out:
                    out.write(renamed(read(os.path.join(folder, file))))


class NewStep(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.root = os.path.join(holder.name, "copy")
        left_out = lambda folder, names: [name for name in names if name[0] == "." or folder == ROOT and name in LEFT_OUT]
        shutil.copytree(ROOT, cls.root, ignore=left_out, symlinks=True)
        for folder in ("host", "emu", "emu-fast"):
            built = os.path.join(ROOT, "build", folder)
            if os.path.isdir(built):
                shutil.copytree(built, os.path.join(cls.root, "build", folder), ignore=shutil.ignore_patterns("*.test"))
        add_toy_step(cls.root)

    def make(self, *words, status=0):
        """-> what it printed"""
        environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "TILE", "WATCH", "FLASH_TEST_TOTALS")}
        result = subprocess.run(["make", *words], cwd=self.root, env=dict(environment, BACKEND="emu"), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=500)
        self.assertEqual(result.returncode, status, f"make {words}\n{result.stdout}")
        return result.stdout

    def test_list_and_step(self):
        self.assertIn("  make step 20    20_toy/toy.cu\n", self.make("list"))
        for word in ("20", "toy"):
            self.assertIn("Built 20_toy/toy.cu for the CPU back end", self.make("step", word))
        result = subprocess.run(["./run", "--seqlen", "20", "--json", "-"], cwd=self.root, stdout=subprocess.PIPE, text=True)
        report = json.loads(result.stdout)
        self.assertEqual((report["step"], report["name"], report["check"]["verdict"]), ("20", "20_toy", "pass"))

    def test_test(self):
        said = self.make("test", "20")
        self.assertIn("build/emu/20_toy/toy.test", said)
        self.assertRegex(said, r"(?m)^[1-9]\d* passed, 0 failed$")

    def test_ladder(self):
        said = self.make("ladder", "LADDER=--seqlen 32 --heads 1 --out build/toy.json")
        self.assertRegex(said, r"(?m)^\| 20.toy")
        steps = json.loads(read(os.path.join(self.root, "build/toy.json")))["steps"]
        self.assertEqual([step["check"]["verdict"] for step in steps if "toy" in step["name"]], ["pass"])

    def test_exercises(self):
        self.assertIn("20_toy\n  20x1 ", self.make("exercises"))
        self.make("exercise", "20x1")
        file = os.path.join(self.root, "work", f"20x1_{NEW_EXERCISE}.cu")
        self.assertIn("20x1 isn't right yet", self.make("check", status=2))
        shutil.copy(os.path.join(self.root, "20_toy/toy.cu"), file)
        self.assertIn("20x1 is right", self.make("check", "20x1"))
        os.makedirs(os.path.join(self.root, "class/ada"))
        shutil.move(file, os.path.join(self.root, "class/ada"))
        self.assertRegex(self.make("grade", "SUBMISSIONS=class", "SEED=1"), r"(?m)^ada +20x1 .* right$")

    def test_a_backward_step_after_it_is_linked_with_it(self):
        folder = os.path.join(self.root, "21_toy_backward")
        os.makedirs(folder)
        self.addCleanup(shutil.rmtree, folder)
        shutil.copy(os.path.join(self.root, "06_backward/1_recompute.cu"), os.path.join(folder, "toy_backward.cu"))
        said = self.make("-n", "step", "21")
        self.assertRegex(said, r"(?m)^g\+\+ -pthread .*build/emu/20_toy/toy\.o .*-o build/emu/21_toy_backward/toy_backward\.run")


if __name__ == "__main__":
    result = unittest.main(exit=False).result
    bad = len({test.id().split(" ")[0] for test, _ in result.failures + result.errors})
    if "FLASH_TEST_TOTALS" in os.environ:
        with open(os.environ["FLASH_TEST_TOTALS"], "a", encoding="utf-8") as totals:
            totals.write(f"{result.testsRun - bad} {bad}\n")
    sys.exit(1 if bad else 0)
