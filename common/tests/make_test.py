"""What a command of make means and what it refuses (common/make/plan.py), how steps are found (common/make/landings.py);
and a few commands from end to end. Nothing is compiled."""
import os
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "common", "make"))
sys.dont_write_bytecode = True

import landings
import plan

FOLDERS = {
    "00_naive": ["naive", "notes"],
    "05_tensor_core": ["2_ldmatrix", "1_mma"],
    "06_backward": ["1_recompute", "2_tensor_core"],
    "07_hopper": ["1_tma", "2_wgmma", "9_nine", "10_ten", "11"],
    "08_hopper_backward": ["hopper_backward"],
    "09_decode": ["decode"],
    "13_ring": ["ring"],
    "20_toy": ["toy"],
    "7_short": ["short"],
    "aa_letters": ["letters"],
}


class Ladder(unittest.TestCase):
    """A ladder of empty files, but for what a file says of itself."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.root = holder.name
        for folder, files in FOLDERS.items():
            for file in files:
                self.write(f"{folder}/{file}.cu", "")
        self.write("05_tensor_core/2_ldmatrix.cu", "// Idea.\n#ifdef TILE_M\n")
        self.write("07_hopper/1_tma.cu", "// Idea.\nwith_tensor_cores(flash::exactly(90), step);\n")
        self.write("05_tensor_core/test.cpp", "// Tests.\n// Tested with TILE=16x8 too.\n")
        self.write("07_hopper/README.cu.md", "")
        self.all = landings.landings(self.root)

    def write(self, path, text):
        os.makedirs(os.path.join(self.root, os.path.dirname(path)), exist_ok=True)
        with open(os.path.join(self.root, path), "w", encoding="utf-8") as file:
            file.write(text)

    def find(self, word):
        found = landings.find(word, self.all)
        return found and found.path

    def command(self, line, gpus=(), **given):
        """plan.Command of `make LINE`; in it NAME=VALUE is a variable."""
        words = line.split()
        given = {**dict(w.split("=", 1) for w in words if "=" in w), **given}
        targets = {"step", "test", "diff", "check", "exercise", "ladder", "bench", "counts", "probe", "cuda", "clean", "sanitize"}
        return plan.Command([w for w in words if "=" not in w], given, targets, self.all, gpus=lambda: list(gpus))

    def variables(self, line, **more):
        return self.command(line, **more).variables()


class Landings(Ladder):
    def test_numbers_and_order(self):
        self.assertEqual([(one.number, one.path) for one in self.all], [
            ("00", "00_naive/naive"), ("05.1", "05_tensor_core/1_mma"), ("05.2", "05_tensor_core/2_ldmatrix"),
            ("06.1", "06_backward/1_recompute"), ("06.2", "06_backward/2_tensor_core"), ("07.1", "07_hopper/1_tma"),
            ("07.2", "07_hopper/2_wgmma"), ("07.9", "07_hopper/9_nine"), ("07.10", "07_hopper/10_ten"),
            ("08", "08_hopper_backward/hopper_backward"), ("09", "09_decode/decode"), ("13", "13_ring/ring"), ("20", "20_toy/toy")])
        self.assertEqual([one.short for one in self.all][::4], ["0", "6.2", "7.10", "20"])

    def test_words(self):
        for words, path in (("0 00 naive 00_naive 00_naive/ 00_naive/naive 00_naive/naive.cu", "00_naive/naive"),
                            ("5 05 05_tensor_core 5.2 05.2 ldmatrix 2_ldmatrix", "05_tensor_core/2_ldmatrix"),
                            ("5.1 05.1 mma 1_mma 05_tensor_core/1_mma", "05_tensor_core/1_mma"),
                            ("7 7.10 07.10 hopper ten", "07_hopper/10_ten"), ("7.1 tma", "07_hopper/1_tma"),
                            ("13 ring", "13_ring/ring"), ("20", "20_toy/toy"), ("tensor_core", "06_backward/2_tensor_core")):
            for word in words.split():
                with self.subTest(word):
                    self.assertEqual(self.find(word), path)
        for word in "1 2 005 5. 5.01 5.10 .1 nai 00_naive/notes 7_short short letters 11 test 05_tensor_core/test".split() + [""]:
            with self.subTest(word):
                self.assertIsNone(self.find(word))

    def test_what_a_step_goes_on_from(self):
        at = lambda word: landings.find(word, self.all)
        for word, old in (("5.1", "00_naive/naive"), ("6.1", "05_tensor_core/2_ldmatrix"), ("6.2", "06_backward/1_recompute"),
                          ("7.1", "05_tensor_core/2_ldmatrix"), ("8", "06_backward/2_tensor_core"), ("13", "07_hopper/10_ten")):
            with self.subTest(word):
                self.assertEqual(landings.before(at(word), self.all).path, old)
        self.assertIsNone(landings.before(at("0"), self.all))

    def test_what_a_backward_step_is_linked_with(self):
        forwards = lambda word: [one.path for one in landings.forwards_for(landings.find(word, self.all), self.all)]
        self.assertEqual(forwards("6.1"), ["00_naive/naive", "05_tensor_core/2_ldmatrix"])
        self.assertEqual(forwards("8"), ["00_naive/naive", "05_tensor_core/2_ldmatrix", "07_hopper/10_ten"])
        self.assertEqual([forwards(word) for word in ("7", "9", "20")], [[], [], []])

    def test_what_a_file_says_of_itself(self):
        said = {one.number: (one.architectures, one.has_tile_size, one.tested_tiles) for one in self.all}
        self.assertEqual(said["07.1"], (["sm_90a"], False, []))
        self.assertEqual(said["05.2"], ([], True, ["16x8"]))
        self.assertEqual(said["20"], ([], False, []))

    def test_the_ladder_itself(self):
        """Two steps' tests look at tiles of another size, and every folder with a number is a step."""
        ours = landings.landings()
        self.assertEqual([one.number for one in ours if one.tested_tiles], ["03.2", "04"])
        self.assertEqual(sorted({one.folder for one in ours}), sorted(f for f in os.listdir(ROOT) if f[:2].isdigit()))


class Plan(Ladder):
    def test_what_is_meant(self):
        for line, expected in (
            ("step 5.1", {"STEP": ["05_tensor_core/1_mma"], "WORDS": ["5.1"], "BACKEND": ["emu"], "WATCH": ["1"]}),
            ("step N=5", {"STEP": ["05_tensor_core/2_ldmatrix"]}),
            ("step 5 TILE=64x32", {"TILE": ["64x32"], "TILES": ["64x32"], "OTHER_TILE_TESTS": []}),
            ("test 6", {"TESTED": ["06_backward/1_recompute", "06_backward/2_tensor_core"], "OTHER_TILE_TESTS": []}),
            ("test 5.1", {"OTHER_TILE_TESTS": ["build/emu-16x8/05_tensor_core/2_ldmatrix.test"]}),
            ("test", {"STEP": [], "TILES": ["16x8"], "TESTED": [one.path for one in self.all]}),
            ("test", {"TESTED_UNWATCHED": ["00_naive/naive", "05_tensor_core/2_ldmatrix", "06_backward/2_tensor_core",
                                           "07_hopper/10_ten", "08_hopper_backward/hopper_backward", "09_decode/decode",
                                           "13_ring/ring", "20_toy/toy"]}),
            ("test 5", {"TESTED_UNWATCHED": ["05_tensor_core/1_mma", "05_tensor_core/2_ldmatrix"]}),
            ("diff 5.1", {"DIFF": ["00_naive/naive.cu", "05_tensor_core/1_mma.cu"]}),
            ("diff 7 0", {"DIFF": ["07_hopper/10_ten.cu", "00_naive/naive.cu"]}),
            ("diff 0", {"DIFF": [], "STEP": ["00_naive/naive"]}),
            ("step 0 clean", {"WORDS": ["0"]}),
            ("check 3x2 ladder", None),
            ("check 3x2", {"WORDS": ["3x2"], "STEP": []}),
            ("nonsense 5", {"WORDS": [], "STEP": []}),  # make itself says that there is no rule
            ("step 0 WATCH= BACKEND= TILE= ARCH=", {"BACKEND": ["emu"], "WATCH": ["1"], "REAL_ARCH": ["sm_80"]}),
            ("step 0 ARCH=arm64", {"REAL_ARCH": ["sm_80"]}),  # as an environment may have it
            ("", {"BACKEND": ["emu"]}),
        ):
            with self.subTest(line):
                if expected:
                    found = self.variables(line)
                    self.assertEqual({name: found[name] for name in expected}, expected)

    def test_where_there_is_a_gpu(self):
        for line, gpus, backend, archs in (("step 0 NVCC=nvcc", [90], "cuda", ["sm_90a"]), ("step 0 NVCC=nvcc", [], "emu", ["sm_80"]),
                                           ("step 0 NVCC=nvcc BACKEND=cuda", [], "cuda", ["sm_80"]), ("step 0", [90], "emu", ["sm_80"]),
                                           ("step 0 NVCC=nvcc BACKEND=emu", [90], "emu", ["sm_80"]),
                                           ("step 0 NVCC=nvcc", [75, 120], "cuda", ["sm_75", "sm_120"])):
            with self.subTest(line, gpus=gpus):
                found = self.variables(line, gpus=gpus)
                self.assertEqual((found["BACKEND"], found["REAL_ARCH"]), ([backend], archs))
        self.assertEqual(self.variables("step 0", NVCC="nvcc -G", BACKEND="cuda", ARCH="sm_75 sm_90")["REAL_ARCH"], ["sm_75", "sm_90a"])

    def test_what_nvidia_smi_says(self):
        old = os.environ["PATH"]
        self.addCleanup(os.environ.__setitem__, "PATH", old)
        os.mkdir(os.path.join(self.root, "bin"))
        path = os.path.join(self.root, "bin", "nvidia-smi")
        for said, found in (("9.0\n9.0\n7.0\n7.5\n12.0", [75, 90, 120]), ("No devices were found", []), ("[N/A]\n", [])):
            with open(path, "w") as file:
                file.write(f"#!/bin/sh\necho '{said}'\n")
            os.chmod(path, 0o755)
            os.environ["PATH"] = os.path.dirname(path) + ":" + old
            self.assertEqual(plan.gpus(), found)

    REFUSED = (  # a sentence for each mistake; in brackets: with the steps there are
        ("step 99", "There is no step '99'.", True), ("test nope", "There is no step 'nope'.", True),
        ("diff 0 nope", "There is no step 'nope'.", False), ("ladder N=99", "There is no step '99'.", True),
        ("step", "Which step? Name it by its number or its name: make step 2", True),
        ("diff", "Which step? Name it by its number or its name: make diff 2", True),
        ("clean step 2", "Which step? Name it by its number or its name: make step 2", True),
        ("step 0 5", "One step at a time: '0 5' names more.", False),
        ("step 0 N=5", "One step at a time: '0 5' names more.", False),
        ("test 0 5", "One step at a time: '0 5' names more.", False),
        ("diff 0 5 6", "make diff compares two steps: '0 5 6' names more.", False),
        ("step a;b", "There is no step 'a;b'.", True), ("step $(x)", "There is no step '$(x)'.", True),
        ("diff 0 *", "There is no step '0 *'.", False), ("check a;b", "There is no exercise 'a;b'.", False),
        ("ladder N=;", "There is no step ';'.", True), ("check a'b", "There is no exercise 'a'b'.", False),
        ("check 3x2 test", "There is no step '3x2'.", True),
        ("step 0 BACKEND=x", "BACKEND is emu or cuda, not 'x'.", False),
        ("clean BACKEND=x", "BACKEND is emu or cuda, not 'x'.", False),
        ("step 0 BACKEND=cuda", "BACKEND=cuda needs nvcc and there is none here; BACKEND=emu needs g++ alone.", False),
        ("counts BACKEND=cuda", "BACKEND=cuda needs nvcc and there is none here; BACKEND=emu needs g++ alone.", False),
        ("step 0 WATCH=5", "WATCH is 0 or 1, not '5'.", False),
        ("step 0 NVCC=n BACKEND=cuda ARCH=x", "ARCH is a GPU architecture like sm_80, not 'x'.", False),
        ("step 0 NVCC=n BACKEND=cuda ARCH=sm_80;x", "ARCH is a GPU architecture like sm_80, not 'sm_80;x'.", False),
        ("cuda NVCC=n ARCH=x", "ARCH is a GPU architecture like sm_80, not 'x'.", False),
        ("step 5 TILE=64", "TILE is query rows x keys of a tile, like 64x32, not '64'.", False),
        ("step 5 TILE=064x32", "TILE is query rows x keys of a tile, like 64x32, not '064x32'.", False),
        ("step 5 TILE=64x32x1", "TILE is query rows x keys of a tile, like 64x32, not '64x32x1'.", False),
        ("ladder TILE=64x32", "make ladder takes each step with its own tile size; TILE is for make step.", False),
        ("bench TILE=64x32", "make bench takes each step with its own tile size; TILE is for make step.", False),
        ("counts TILE=64x32", "make counts takes each step with its own tile size; TILE is for make step.", False),
        ("step 0 TILE=64x32", "00_naive/naive has no tile size to set.", False),
        ("ladder WATCH=0", "make ladder shows counts on the CPU back end, and with WATCH=0 nothing is counted.", False),
        ("cuda", "make cuda needs nvcc, and there is none here.", False),
        ("probe", "make probe measures a GPU, and needs one and nvcc.", False),
        ("calibrate", "make calibrate needs nvcc, a GPU, ncu and compute-sanitizer.", False),
        ("sanitize", "make sanitize needs nvcc and a GPU; on the CPU back end every ./run looks for races and bad accesses.", False),
        *((f"{goal} NVCC=n BACKEND=cuda", f"make {goal} measures a GPU with BACKEND=cuda, and nvidia-smi shows none of compute "
                                          "capability 7.5 or later here.", False) for goal in plan.MEASURED),
    )

    def test_mistakes(self):
        for line, sentence, steps in self.REFUSED:
            with self.subTest(line):
                with self.assertRaises(plan.Mistake) as caught:
                    self.variables(line)
                self.assertEqual((str(caught.exception), caught.exception.steps), (sentence, steps))

    def test_only_what_is_sound_goes_back(self):
        for value in ("a b", "$(x)", "`x`", "a'b", 'a"b', "a\\", "a\nb", "a|b", "é", "64x32\n", ""):
            for name in ("N", "BACKEND", "WATCH", "TILE", "ARCH"):
                with self.subTest(name, value=value):
                    try:
                        found = self.variables("test", **{name: value})
                    except plan.Mistake:
                        continue
                    for words in found.values():
                        for word in words:
                            self.assertRegex(word, r"\A[A-Za-z0-9._/-]*\Z")


def make(*words, **variables):
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "TILE", "WATCH", "BACKEND")}
    return subprocess.run(["make", *words], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, env={**environment, **variables}, timeout=60)


class EndToEnd(unittest.TestCase):
    def refused(self, sentence, *words, **variables):
        with self.subTest(words, **variables):
            result = make(*words, **variables)
            self.assertEqual((result.returncode, result.stdout), (2, ""))
            self.assertEqual(result.stderr.splitlines()[0], sentence)

    def test_mistakes(self):
        self.refused("There is no step '99'.", "step", "99")
        self.refused("There is no step '%'.", "step", "%")
        self.refused("BACKEND is emu or cuda, not 'x'.", "step", "2", BACKEND="x")
        self.refused("make cuda needs nvcc, and there is none here.", "cuda", "NVCC=")
        self.refused("python3 is missing: ./setup installs what is needed.", "step", "2", "PYTHON3=no_such_python")
        self.assertIn("  make step 5.1   05_tensor_core/1_mma.cu\n", make("step", "99").stderr)

    def test_no_part_of_what_is_typed_is_run(self):
        with tempfile.TemporaryDirectory() as folder:
            mark = os.path.join(folder, "mark")
            for value in (f"$(shell touch {mark})", f"`touch {mark}`", f"';touch {mark};'", f'";touch {mark};"', f"x:;touch {mark}",
                          f"a\n\ttouch {mark}\nb"):
                for words in ["step", value], ["check", value], ["step", "2", f"N={value}"], ["cuda", f"ARCH={value}", "NVCC=false"]:
                    self.nothing_run(folder, *words)
            for value in (f"$(shell touch {mark})", f"';touch {mark};'"):
                for name in ("BACKEND", "WATCH", "TILE"):
                    self.nothing_run(folder, "step", "2", f"{name}={value}")
                    self.nothing_run(folder, "step", "2", **{name: value})

    def nothing_run(self, folder, *words, **variables):
        with self.subTest(words, **variables):
            result = make(*words, **variables)
            self.assertEqual((result.returncode, os.listdir(folder)), (2, []), result.stderr)

    def test_options_are_split_but_not_run(self):
        script = os.path.join(ROOT, "common/make/with_options.py")
        for options, words in (("", []), ("--a 1", ["--a", "1"]), ("'a b' \"c d\"", ["a b", "c d"]), ("$(x) `y` $z; * ~", ["$(x)", "`y`", "$z;", "*", "~"])):
            with self.subTest(options):
                done = subprocess.run([sys.executable, script, f"LADDER={options}", sys.executable, "-c", "import sys; print(sys.argv[1:])"],
                                      stdout=subprocess.PIPE, text=True)
                self.assertEqual((done.returncode, done.stdout), (0, f"{words}\n"))
        done = subprocess.run([sys.executable, script, "LADDER='a", "false"], stderr=subprocess.PIPE, text=True)
        self.assertEqual((done.returncode, done.stderr), (1, "LADDER='a: no closing quotation.\n"))

    def test_a_backward_program_and_its_objects(self):
        """By what make would do: the forward steps stand in the link, without TILE, and nothing is compiled twice."""
        said = make("-n", "-B", "build/emu-64x32/06_backward/1_recompute.run", "TILE=64x32", "BACKEND=emu").stdout
        compiled = [line for line in said.splitlines() if " -c " in line]
        self.assertEqual(len(compiled), len(set(compiled)))
        link = next(line for line in said.splitlines() if " -o build/emu-64x32/06_backward/1_recompute.run" in line and " -c " not in line)
        kernels = [word for word in link.split() if word.startswith("build/emu") and word.endswith(".o")]
        self.assertEqual(sorted(kernels), sorted(["build/emu-64x32/06_backward/1_recompute.o", *(f"build/emu/{one}.o" for one in (
            "00_naive/naive", "01_fused_softmax/fused_softmax", "02_online_softmax/online_softmax", "03_flash_v1/2_register_blocks",
            "04_flash_v2/flash_v2", "05_tensor_core/6_lean_loop"))]))


if __name__ == "__main__":
    result = unittest.main(exit=False).result
    bad = len({test.id().split(" ")[0] for test, _ in result.failures + result.errors})
    if "FLASH_TEST_TOTALS" in os.environ:
        with open(os.environ["FLASH_TEST_TOTALS"], "a", encoding="utf-8") as totals:
            totals.write(f"{result.testsRun - bad} {bad}\n")
    sys.exit(1 if bad else 0)
