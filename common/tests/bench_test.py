"""The bench, the ladder and the generated tables, on stand-ins for ./run and nvidia-smi: how rows are made, what is timed
and what isn't, and that the documents' tables are those that docs/data/ gives. No time is asserted."""
import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import unittest
import xml.dom.minidom

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BENCH = os.path.join(ROOT, "common/bench")
sys.path.insert(0, BENCH)
from ablations import ablations_of, read_text
from data import Bench as Measured, read_csv, read_ladder, where_and_when
from labels import without_labels  # ablations.py knows where they are
from measure import landings_of
from turns import by_turns, spread

# A step that makes 1 TFLOP/s, or 0.001. What it does wrong is in its folder's name.
FAKE_STEP = r'''#!%s
import json, os, signal, sys
words = sys.argv[1:]
with open(os.path.join(os.path.dirname(sys.argv[0]), "..", "calls"), "a") as f:
    f.write(os.path.basename(os.path.dirname(sys.argv[0])) + " " + " ".join(words) + "\n")
value = lambda name, default=None: words[words.index(name) + 1] if name in words else default
b, h, n, d = (int(value(w)) for w in ("--batch", "--heads", "--seqlen", "--head-dim"))
folder = os.path.basename(os.path.dirname(os.path.abspath(sys.argv[0])))
if "refuses" in folder:
    sys.stderr.write("SKIP: it takes no problem\n")
    sys.exit(4)
if "crashes" in folder:
    sys.stderr.write("boom\nmore\n")
    sys.exit(139)
if "interrupted" in folder:  # a Ctrl-C while it runs
    os.kill(os.getppid(), signal.SIGINT)
    signal.pause()
wrong = "wrong" in folder and n > 512
flops = 4.0 * b * h * n * n * d
ms = flops * (1e-6 if "slow" in folder else 1e-9)
report = {"direction": "backward" if "_backward" in folder else "forward", "idea": "an idea", "device": "a fake",
          "problem": {"dtype": value("--dtype", "fp32")}, "check": {"verdict": "fail" if wrong or "races" in folder else "pass",
          "message": "O is wrong\nin many places" if wrong else "fine", "max_error": 1, "rms_error": 1, "bound": 2},
          "faults": [{"message": "a race"}] if "races" in folder else [],
          "time_ms": None if wrong else {"median": ms, "min": ms, "max": 2 * ms}, "tflops": None if wrong else flops / ms * 1e-9,
          "counts": None, "model": {"least_ms": ms / 4, "bound_by": "compute", "flops": flops, "read_bytes": flops / 8,
          "write_bytes": flops / 8, "min_bytes": 8, "workspace_bytes": 0, "intensity": 100, "peak_tflops": 50, "peak_gb_per_s": 4000}}
print(json.dumps(report))
sys.exit(1 if wrong else 0)
''' % sys.executable

FAKE_SMI = '''#!/bin/sh
case "$*" in
  *-lms*) while sleep 0.01; do echo "1980, 3201, 412.1"; done;;
  *) echo "A Fake GPU, 1.2.3";;
esac
'''


class Bench(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = self.temporary.name
        self.addCleanup(self.temporary.cleanup)
        self.environment = dict(os.environ, FLASH_COMMIT="abc1234", PYTHONDONTWRITEBYTECODE="1", PATH=os.path.join(self.folder, "bin") + ":" + os.environ["PATH"])
        self.write("bin/nvidia-smi", FAKE_SMI)

    def write(self, path, content):
        path = os.path.join(self.folder, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(content)
        os.chmod(path, 0o755)
        return path

    def step(self, name):
        return self.write(f"build/cuda/{name}.run", FAKE_STEP)

    def python(self, script, *words, **more):
        # Where a job runs in the background, SIGINT is ignored, and children inherit that.
        more.setdefault("preexec_fn", lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        return subprocess.run([sys.executable, os.path.join(BENCH, script), *words], env=self.environment, cwd=self.folder,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60, **more)

    def refused(self, done, sentence=""):
        """It ended with a sentence, and not well."""
        self.assertNotEqual(done.returncode, 0, done.stdout)
        self.assertNotIn("Traceback", done.stderr)
        self.assertIn(sentence, done.stderr)
        self.assertTrue(done.stderr.strip())

    def bench(self, *words, status=0):
        out = os.path.join(self.folder, "out.csv")
        done = self.python("bench.py", *words, "--out", out)
        self.assertEqual(done.returncode, status, done.stderr)
        with open(out, newline="", encoding="utf-8") as f:
            return list(csv.DictReader(f))

    def calls(self):
        with open(os.path.join(self.folder, "build/cuda/calls"), encoding="utf-8") as f:
            return [line.split() for line in f]

    def test_ablations_are_timed_by_turns_with_their_landing(self):
        fake, landing = self.step("00_fake/fake"), self.step("05_tensor_core/6_lean_loop")
        self.write("bin/make", f'#!/bin/sh\nfor p; do mkdir -p "$(dirname "$p")" && cp {fake} "$p"; done\n')
        shape = ("--seqlens", "512", "--headdims", "64", "--causal", "0", "--reps", "2")
        impls = [r["impl"] for r in self.bench(landing, "--ablations", "5.6", *shape)]
        half = len(impls) // 2
        self.assertEqual(impls[:half], impls[half:])
        self.assertEqual(impls[:half], ["05_tensor_core/6_lean_loop", *ablations_of("05_tensor_core/6_lean_loop")])
        self.assertIn("05_tensor_core/6_lean_loop_no_vote", impls)
        self.refused(self.python("bench.py", landing, "--ablations", "5.9"), "there is no landing 5.9")
        self.refused(self.python("bench.py", fake, "--ablations", "0"), "has no ablations")

    def test_every_ablation_fits_its_kernel_and_changes_it(self):
        for folder in (one for one in os.listdir(ROOT) if one[:2].isdigit() and os.path.isdir(os.path.join(ROOT, one, "ablations"))):
            kernels = {}
            for landing in landings_of(folder.split("_")[0]):
                whole = without_labels(read_text(landing + ".cu"))
                kernels.update({name: text for name, text in ablations_of(landing).items() if text != whole})
            self.assertEqual(len(kernels), len(os.listdir(os.path.join(ROOT, folder, "ablations"))), folder)

    def test_rows(self):
        rows = self.bench(self.step("00_one/one"), self.step("05_two/1_first"), "--seqlens", "512,1024", "--headdims", "64",
                          "--causal", "0,1", "--reps", "2")
        self.assertEqual(len(rows), 2 * 2 * 2 * 2)
        # By turns: all steps on a shape, then the next shape; all shapes, then the next repetition.
        self.assertEqual([r["impl"] for r in rows[:4]], ["00_one/one", "05_two/1_first"] * 2)
        self.assertEqual([r["rep"] for r in rows], ["0"] * 8 + ["1"] * 8)
        row = rows[0]
        self.assertEqual((row["batch"], row["heads"], row["seqlen"], row["head_dim"], row["causal"]), ("32", "32", "512", "64", "0"))
        flops = 4.0 * 32 * 32 * 512 * 512 * 64
        self.assertEqual(row["ms"], f"{flops * 1e-9:.6g}")
        self.assertEqual(row["ms_max"], f"{2 * flops * 1e-9:.6g}")
        self.assertAlmostEqual(float(row["tflops"]), 1)
        self.assertEqual(float(row["of_roof"]), 0.25)
        self.assertEqual((row["gpu"], row["driver"], row["commit"], row["verdict"], row["note"]),
                         ("A Fake GPU", "1.2.3", "abc1234", "pass", ""))
        self.assertEqual({r["sm_mhz"] for r in rows} - {""}, {"1980"})
        self.assertIn("--seqlens 512,1024", row["command"])
        self.assertNotIn(self.folder + "/build", row["command"])
        # The first repetition is checked, later ones aren't again.
        self.assertEqual(["--no-check" in c for c in self.calls()], [False] * 8 + [True] * 8)
        self.assertEqual([r["verdict"] for r in rows], ["pass"] * 8 + ["again"] * 8)

    def test_wrong_is_not_timed_nor_tried_again(self):
        rows = self.bench(self.step("00_wrong/wrong"), "--seqlens", "512,1024", "--headdims", "64", "--causal", "0", "--reps", "3",
                          status=1)
        self.assertEqual([(r["seqlen"], r["verdict"]) for r in rows],
                         [("512", "pass"), ("1024", "incorrect"), ("512", "again"), ("512", "again")])
        self.assertEqual((rows[1]["ms"], rows[1]["tflops"], rows[1]["note"]), ("", "", "O is wrong"))

    def test_refusals_and_crashes(self):
        rows = self.bench(self.step("00_refuses/refuses"), self.step("01_crashes/crashes"), "--seqlens", "512", "--headdims", "64",
                          "--causal", "0", "--reps", "2", status=1)
        self.assertEqual([(r["verdict"], r["note"]) for r in rows], [("skip", "SKIP: it takes no problem"), ("error", "boom")])

    def test_slow_calls_are_not_made(self):
        # 512: 4 * 64 * 512^2 * 1e-6 ms = 67 ms a call; 1024: 268 ms; 2048: 1074 ms.
        rows = self.bench(self.step("00_slow/slow"), "--batch", "1", "--heads", "1", "--seqlens", "512,1024,2048", "--headdims", "64",
                          "--causal", "0", "--reps", "2", "--call-ms", "500", "--cell-ms", "300")
        self.assertEqual([r["verdict"] for r in rows], ["pass", "pass", "too slow", "again", "again"])
        self.assertIn("about 1074 ms", rows[2]["note"])
        self.assertEqual([r["iters"] for r in rows], ["20", "3", "", "4", "3"])

    def test_minutes_end_repetitions_after_the_first(self):
        rows = self.bench(self.step("00_one/one"), "--seqlens", "512,1024", "--headdims", "64", "--reps", "5", "--minutes", "0")
        self.assertEqual([r["rep"] for r in rows], ["0"] * 4)

    def test_append(self):
        words = self.step("00_one/one"), "--headdims", "64", "--causal", "0", "--reps", "1", "--append"
        self.assertEqual([r["seqlen"] for r in self.bench(*words, "--seqlens", "512")], ["512"])
        self.assertEqual([r["seqlen"] for r in self.bench(*words, "--seqlens", "1024")], ["512", "1024"])

    def test_mistakes(self):
        step = self.step("00_one/one")
        for words, sentence in ((["--steps", "07"], "There is no step 07; there are 00."), (["--causal", "2"], "--causal"),
                                (["--out", "/nowhere/x.csv"], "/nowhere/x.csv")):
            with self.subTest(words):
                done = self.python("bench.py", step, *words)
                self.assertEqual(done.returncode, 2)
                self.assertIn(sentence, done.stderr)
                self.assertNotIn("Traceback", done.stderr)

    def test_turns(self):
        """Bursts of equal length, by turns, the first of each not kept; a ratio is the median of the rounds' ratios."""
        log, ms = [], {"fast": 1.0, "slow": 4.0}

        def burst(name, count):
            log.append((name, count))
            return ms[name] * count * (1 + 0.5 * (len(log) > 12))  # the card slows down for both

        times = by_turns({"fast": "fast", "slow": "slow"}, 3, 8, burst)
        rounds = [log[at : at + 2] for at in range(len(log) - 6, len(log), 2)]
        self.assertEqual([sorted(one) for one in rounds], [[("fast", 8), ("slow", 2)]] * 3)
        self.assertGreater(len({tuple(one) for one in rounds}), 1, "each round has an order of its own")
        self.assertEqual([len(rounds) for rounds in times.values()], [3, 3])
        self.assertEqual(spread([slow / fast for slow, fast in zip(times["slow"], times["fast"])])[0], 4)

    def test_ratio_by_repetition(self):
        header = "impl,direction,seqlen,head_dim,causal,rep,verdict,ms,tflops\n"
        rows = [f"{impl},forward,64,64,0,{rep},pass,{ms},1\n" for impl, times in (("a", (1, 2, 3)), ("b", (4, 2, 9))) for rep, ms in enumerate(times)]
        self.write("ratio.csv", header + "".join(rows))
        bench = Measured(os.path.join(self.folder, "ratio.csv"))
        self.assertEqual(bench.ratio("a", "b", "forward", 64, 64, 0), (3, 1, 4))  # the medians alone would say 4 / 2
        self.assertEqual(bench.ratio("b", "a", "forward", 64, 64, 0), (1 / 3, 0.25, 1))
        self.assertIsNone(bench.ratio("a", "c", "forward", 64, 64, 0))

    def test_no_torch(self):
        self.write("torch.py", "raise ImportError('no')")
        self.environment["PYTHONPATH"] = self.folder
        done = self.python("bench.py", self.step("00_one/one"), "--peers")
        self.assertEqual(done.returncode, 2)
        self.assertIn("PyTorch", done.stderr)
        self.assertNotIn("Traceback", done.stderr)

    def test_ladder(self):
        out = os.path.join(self.folder, "ladder.json")
        done = self.python("ladder.py", self.step("00_slow/slow"), self.step("01_refuses/refuses"), self.step("02_two/two"),
                           self.step("06_backward/1_three"), "--seqlen", "512", "--out", out)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]]
                 for line in done.stdout.splitlines() if line.startswith("| ")}
        self.assertEqual(lines["02_two/two"][2:], ["pass", "2.147", "1.0", "1000", "1000", "25 % compute"])
        self.assertEqual(lines["06_backward/1_three"][5:7], ["", "1.00 (06.1)"])
        self.assertIn("SKIP 01_refuses/refuses: SKIP: it takes no problem", done.stdout)
        with open(out, encoding="utf-8") as f:
            kept = json.load(f)
        self.assertEqual([s["name"] for s in kept["steps"]], ["00_slow/slow", "01_refuses/refuses", "02_two/two", "06_backward/1_three"])
        self.assertEqual(kept["gpu"], "A Fake GPU")

    def test_ladder_mistakes(self):
        """Found before anything is run, and what an earlier ladder left stays."""
        out = self.write("ladder.json", "an earlier one")
        step = self.step("00_one/one")
        os.mkfifo(os.path.join(self.folder, "device"))
        for words in (["--seqlen", "0"], ["--batch", "0"], ["--heads", "0"], ["--seqlen", "-5"], ["--head-dim", "0"], ["07_nothing"],
                      ["README.md"], ["--out", "/nowhere/x.json"], ["--out", self.folder], ["--out", "device"]):
            with self.subTest(words):
                done = self.python("ladder.py", step, *words, *([] if "--out" in words else ["--out", out]))
                self.refused(done, "is not a plain file" if words[-1] == self.folder else words[-1])
        self.assertFalse(os.path.exists(os.path.join(self.folder, "build/cuda/calls")))
        self.refused(self.python("ladder.py", self.step("01_refuses/refuses"), "--out", out), "No step has a figure")
        self.assertEqual(self.text_of(out), "an earlier one")
        self.assertEqual(self.python("ladder.py", step, "--out", out).returncode, 0)
        self.assertIn('"steps"', self.text_of(out))

    def text_of(self, path):
        with open(os.path.join(self.folder, path), encoding="utf-8") as f:
            return f.read()

    def test_results_are_written_whole_or_not_at_all(self):
        out = self.write("ladder.json", "an earlier one")
        full = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))  # as a full disk
        self.refused(self.python("ladder.py", self.step("00_one/one"), "--out", out, preexec_fn=full), "ladder.json")
        done = self.python("ladder.py", self.step("00_one/one"), self.step("01_interrupted/interrupted"), "--out", out)
        self.refused(done, "Stopped.")
        self.assertEqual((done.returncode, len(done.stderr.splitlines())), (130, 1))
        self.assertEqual(self.text_of(out), "an earlier one")
        self.assertFalse(os.path.exists(out + ".part"))
        # A bench of hours keeps its rows, beside the file.
        words = "--seqlens", "512", "--headdims", "64", "--causal", "0", "--reps", "1", "--out", out
        done = self.python("bench.py", self.step("00_one/one"), self.step("01_interrupted/interrupted"), *words)
        self.refused(done, "ladder.json.part")
        self.assertEqual(self.text_of(out), "an earlier one")
        self.assertEqual([r["impl"] for r in read_csv(out + ".part")], ["00_one/one"])

    def test_a_race_is_told(self):
        out = os.path.join(self.folder, "ladder.json")
        done = self.python("ladder.py", self.step("00_races/races"), "--out", out)
        self.assertEqual(done.returncode, 1)
        self.assertIn("FAIL 00_races/races: a race\n", done.stdout)
        self.assertEqual(read_ladder(out)["steps"][0]["check"], {"verdict": "fail", "message": "a race"})

    def test_forward_and_backward_are_ladders_of_their_own(self):
        steps = [self.step(name) for name in ("00_slow/slow", "02_two/two", "06_backward/1_three", "07_mine/mine")]
        done = self.python("ladder.py", *steps, "--out", os.path.join(self.folder, "ladder.json"))
        lines = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in done.stdout.splitlines() if line.startswith("| ")}
        self.assertEqual(lines["06_backward/1_three"][5:7], ["", "1.00 (06.1)"])
        self.assertEqual(lines["07_mine/mine"][5:7], ["1.00", "1000"])  # over 02, over 00

    def test_counts(self):
        """`make counts` replaces its files when every run has passed, and else none of them."""
        self.environment["FLASH_DATA"] = data = os.path.join(self.folder, "data")
        os.mkdir(data)
        landings = ["04_flash_v2/flash_v2", "05_tensor_core/6_lean_loop"]
        for folder in ("emu", "fast"):
            for name in landings:
                self.write(f"build/{folder}/{name}.run", FAKE_STEP)
        self.write("build/emu/00_races/races.run", FAKE_STEP)
        self.write("build/fast/00_races/races.run", FAKE_STEP.replace('"races"', '"nothing"'))  # not watched: not found
        self.write("build/emu/03_half/half.run", FAKE_STEP)  # and not in build/fast
        folders = [os.path.join(self.folder, "build", name) for name in ("emu", "fast")]
        texts = lambda: {name: self.text_of(os.path.join(data, name)) for name in os.listdir(data)}
        for more, sentence in (["00_races/races"], "a race"), (["03_half/half"], "03_half"), (["nonsense"], "nonsense"):
            with self.subTest(more):
                self.refused(self.python("counts.py", *folders, *landings, *more), sentence)
                self.assertEqual(texts(), {})
        done = self.python("counts.py", *folders, *landings)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sorted(texts()), ["emu_ladder.json", "error_by_seqlen.csv", "memory.csv"])
        self.assertEqual([s["name"] for s in read_ladder(os.path.join(data, "emu_ladder.json"))["steps"]], landings)
        self.assertEqual(len(read_csv(os.path.join(data, "memory.csv"))), 2 * 4)

    def test_called_with_nonsense(self):
        for command in (["bench.py", "x", "y"], ["ladder.py"], ["counts.py"], ["counts.py", "a"], ["counts.py", "a", "b", "nonsense"],
                        ["peers.py"], ["../make/diff_steps.py"], ["../make/diff_steps.py", "a", "b"], ["tables.py", "--root", "/nowhere"],
                        ["plot_traffic.py", "nonsense"]):
            with self.subTest(command):
                self.refused(self.python(*command))

    def test_make_refuses(self):
        """Before anything is built: a compiler that is asked for anything fails with no sentence."""
        self.write("bin/nvidia-smi", "#!/bin/sh\nexit 9\n")
        environment = {k: v for k, v in self.environment.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "TILE", "WATCH", "BACKEND")}
        for words, sentence in ((["ladder", "TILE=64x32"], "make ladder takes each step with its own tile size"),
                                (["counts", "TILE=64x32"], "make counts takes each step with its own tile size"),
                                (["bench", "TILE=64x32"], "make bench takes each step with its own tile size"),
                                (["ladder", "BACKEND=emu", "WATCH=0"], "nothing is counted"),
                                (["ladder", "BACKEND=cuda"], "nvidia-smi shows none"), (["bench", "BACKEND=cuda"], "nvidia-smi shows none"),
                                (["probe", "BACKEND=cuda"], "nvidia-smi shows none"), (["probe", "BACKEND=emu"], "make probe measures a GPU"),
                                (["diff", "2", "3", "4"], "make diff compares two steps")):
            with self.subTest(words):
                done = subprocess.run(["make", *words, "NVCC=false", "CXX=false"], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
                self.refused(done, sentence)
                self.assertEqual(done.stdout, "")

    def test_plots_without_matplotlib(self):
        self.write("matplotlib.py", "raise ImportError('no')")
        self.environment["PYTHONPATH"] = self.folder
        done = self.python("plots.py")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn("matplotlib", done.stderr)

    def plots(self, *words, **environment):
        """plots.py, by a python3 that has matplotlib; the test is skipped where there is none."""
        has = lambda p: subprocess.run([p, "-c", "import matplotlib"], stderr=subprocess.DEVNULL).returncode == 0
        python = next((p for p in (sys.executable, "/usr/bin/python3") if os.path.exists(p) and has(p)), None)
        if not python:
            self.skipTest("no matplotlib here")
        return subprocess.run([python, os.path.join(BENCH, "plots.py"), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env=dict(self.environment, **environment), timeout=120)

    def words_in(self, picture):
        texts = xml.dom.minidom.parse(picture).getElementsByTagName("text")
        return " ".join(t.firstChild.data for t in texts if t.firstChild)

    def test_plots_of_this_machine(self):
        """`make plots` draws the last `make ladder` and leaves the documents' figures alone."""
        build, figures = os.path.join(self.folder, "own"), os.path.join(self.folder, "figures")
        os.mkdir(build)
        environment = {"FLASH_BUILD": build, "FLASH_FIGURES": figures}
        done = self.plots(**environment)
        self.assertEqual(done.returncode, 2)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn("run make ladder first", done.stderr)
        ladder = os.path.join(build, "ladder.json")
        steps = [self.step("00_naive/naive"), self.step("04_flash_v2/flash_v2")]
        self.assertEqual(self.python("ladder.py", *steps, "--out", ladder).returncode, 0)
        done = self.plots(**environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        drawn = os.path.join(build, "figures")
        self.assertEqual(sorted(os.listdir(drawn)), ["ladder.svg", "roofline.svg"])
        for name in os.listdir(drawn):
            self.assertIn("A Fake GPU", self.words_in(os.path.join(drawn, name)))
        self.assertFalse(os.path.exists(figures))
        # Without a GPU there are counts; with WATCH=0 not even these.
        with open(ladder, encoding="utf-8") as f:
            kept = json.load(f)
        for step in kept["steps"]:
            step.update(time_ms=None, tflops=None)
        for counts, files, status in (({"global_read_bytes": 3000, "global_write_bytes": 1000}, ["ladder.svg"], 0), (None, [], 2)):
            with self.subTest(counts):
                for step in kept["steps"]:
                    step["counts"] = counts
                with open(ladder, "w", encoding="utf-8") as f:
                    json.dump(kept, f)
                for name in os.listdir(drawn):
                    os.unlink(os.path.join(drawn, name))
                done = self.plots(**environment)
                self.assertEqual(done.returncode, status, done.stderr)
                self.assertEqual(os.listdir(drawn), files)
                self.assertEqual(len(done.stderr.splitlines()), 1 if status else 0, done.stderr)
                self.assertTrue(not files or "4 kB" in self.words_in(os.path.join(drawn, "ladder.svg")))

    def test_figures(self):
        """Every figure of measurements is drawn from what the bench and the ladder write."""
        data, figures = os.path.join(self.folder, "data"), os.path.join(self.folder, "figures")
        os.mkdir(data)
        fp32, bf16 = [self.step("00_naive/naive"), self.step("04_flash_v2/flash_v2")], [self.step("05_tensor_core/6_lean_loop"), self.step("06_backward/3_two_teams")]
        for name, steps, dtype in (("h200_fp32.csv", fp32, "fp32"), ("h200_bf16.csv", bf16, "bf16")):
            done = self.python("bench.py", *steps, "--seqlens", "512,1024", "--reps", "1", "--dtype", dtype, "--out", os.path.join(data, name))
            self.assertEqual(done.returncode, 0, done.stderr)
        done = self.python("ladder.py", *fp32, *bf16, "--out", os.path.join(data, "h200_ladder.json"))
        self.assertEqual(done.returncode, 0, done.stderr)
        wanted = ["ladder", "tflops_fp32", "tflops_bf16", "tflops_backward", "time_by_seqlen", "roofline"]
        done = self.plots("documents", *wanted, "memory", FLASH_DATA=data, FLASH_FIGURES=figures)
        self.assertEqual(done.returncode, 1)  # for memory's data alone aren't there; the others are drawn
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn("memory.csv", done.stderr)
        self.assertEqual(sorted(os.listdir(figures)), sorted(f"{name}.svg" for name in wanted))
        for name in wanted:
            words = self.words_in(os.path.join(figures, name + ".svg"))
            self.assertIn("A Fake GPU", words)
            self.assertIn("make ", words)
        # Data that are broken leave a picture as it was.
        broken = {"traffic_by_tile.csv": ("traffic_by_tile", "step,seqlen\n"), "h200_ladder.json": ("roofline", "{}"),
                  "h200_fp32.csv": ("tflops_fp32", "impl,ms\na,b\n")}
        for file, (picture, text) in broken.items():
            self.write(os.path.join("data", file), text)
            self.write(f"figures/{picture}.svg", "as it was")
        done = self.plots("documents", *(picture for picture, _ in broken.values()), FLASH_DATA=data, FLASH_FIGURES=figures)
        self.refused(done)
        for file, (picture, _) in broken.items():
            with self.subTest(file):
                self.assertIn(file, done.stderr)
                self.assertEqual(self.text_of(f"figures/{picture}.svg"), "as it was")


class Tables(unittest.TestCase):
    def tables(self, *words, root=ROOT):
        return subprocess.run([sys.executable, os.path.join(BENCH, "tables.py"), "--root", root, *words], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)

    def test_documents_are_up_to_date(self):
        done = self.tables("--check")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_pictures_are_those_of_the_data(self):
        """Each says in its last line which commit and day its data are of."""
        data = lambda name: os.path.join(ROOT, "docs/data", name)
        ladder = where_and_when(read_ladder(data("h200_ladder.json")))
        fp32, bf16, hopper = (Measured(data(f"h200_{name}.csv")).source()[0] for name in ("fp32", "bf16", "hopper"))
        sources = {"ladder": ladder, "roofline": ladder, "tflops_fp32": fp32, "time_by_seqlen": fp32, "tflops_bf16": bf16, "tflops_backward": bf16,
                   "tflops_hopper": hopper}
        for name in ("memory", "error_by_seqlen"):
            row = read_csv(data(name + ".csv"))[0]
            sources[name] = f"{row['date']}, commit {row['commit']}"
        for name, source in sources.items():
            with self.subTest(name, hint="make figures draws it anew"), open(os.path.join(ROOT, f"docs/figures/{name}.svg"), encoding="utf-8") as f:
                self.assertIn(source, " ".join(re.sub("<[^>]*>", " ", f.read()).split()))

    def test_counts_are_those_of_the_kernels(self):
        """docs/data/emu_ladder.json, which a table shows, against the kernels as they are now."""
        with open(os.path.join(ROOT, "docs/data/emu_ladder.json"), encoding="utf-8") as f:
            kept = json.load(f)
        self.assertTrue(kept["steps"])
        for step in kept["steps"]:
            p = step["problem"]
            words = [f"--{name.replace('_', '-')}={p[key]}" for name, key in (("batch", "batch"), ("heads", "heads"), ("seqlen", "seqlen_q"),
                                                                            ("head_dim", "head_dim"), ("dtype", "dtype"))]
            program = os.path.join(ROOT, os.environ.get("FLASH_EMU", "build/emu"), step["name"] + ".run")
            done = subprocess.run([program, *(w for word in words for w in word.split("=")), "--no-check", "--json", "-"],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=120)
            with self.subTest(step["name"], hint="make counts && make docs writes them anew"):
                self.assertEqual(json.loads(done.stdout)["counts"], step["counts"])

    def test_stale_tables_are_found_and_rewritten(self):
        with tempfile.TemporaryDirectory() as root:
            def write(path, text):
                path = os.path.join(root, path)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "w", encoding="utf-8") as f:
                    f.write(text)

            def page():
                with open(os.path.join(root, "README.md"), encoding="utf-8") as f:
                    return f.read()

            empty = "Before\n\n<!-- table:ladder -->\n<!-- /table -->\n\nAfter\n"
            write("README.md", empty)
            step = {"name": "00_naive/naive", "idea": "an idea", "direction": "forward", "problem": {"dtype": "fp32"},
                    "check": {"verdict": "pass"}, "time_ms": {"median": 12.5}, "tflops": 3.25,
                    "model": {"least_ms": 6.25, "bound_by": "memory"}}
            data = {"command": "make ladder", "problem": "batch 2", "gpu": "A GPU", "driver": "1", "toolkit": "2", "commit": "c",
                    "date": "2026-01-01", "steps": [step]}
            write("docs/data/h200_ladder.json", json.dumps(data))
            stale = self.tables("--check", root=root)
            self.assertEqual(stale.returncode, 1)
            self.assertIn("README.md", stale.stdout)
            self.assertEqual(page(), empty)
            self.assertEqual(self.tables(root=root).returncode, 0)
            self.assertIn("12.5", page())
            self.assertIn("A GPU", page())
            self.assertTrue(page().startswith("Before\n") and page().endswith("<!-- /table -->\n\nAfter\n"))
            self.assertEqual(self.tables("--check", root=root).returncode, 0)
            write("README.md", page().replace("12.5", "11.5"))  # a figure changed by hand
            self.assertEqual(self.tables("--check", root=root).returncode, 1)
            # Without its data a table isn't emptied, nor passed over; the sentence names the file.
            good = page()
            for text in (None, "", "{", "{}", "[]", *(json.dumps(dict(data, steps=steps)) for steps in ([], [{}], 3))):
                with self.subTest(text):
                    os.unlink(os.path.join(root, "docs/data/h200_ladder.json"))
                    if text is not None:
                        write("docs/data/h200_ladder.json", text)
                    for words in ((), ("--check",)):
                        done = self.tables(*words, root=root)
                        self.assertEqual(done.returncode, 2)
                        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
                        self.assertIn("h200_ladder.json", done.stderr)
                        self.assertEqual(page(), good)
                    write("docs/data/h200_ladder.json", "")
            write("docs/data/h200_ladder.json", json.dumps(data))
            for wrong, sentence in (("<!-- table:nothing -->\n<!-- /table -->\n", "nothing"), ("<!-- table:ladder -->\n", "never closed")):
                write("README.md", wrong)
                done = self.tables("--check", root=root)
                self.assertEqual(done.returncode, 1)
                self.assertIn(sentence, done.stdout)


    def test_broken_csv(self):
        """One sentence, with the file and the line."""
        header = "impl,direction,verdict,seqlen,head_dim,causal,ms,tflops,command\n"
        row = "00_naive/naive,forward,pass,4096,64,0,1.5,2.5,make bench\n"
        with tempfile.TemporaryDirectory() as root:
            os.makedirs(os.path.join(root, "docs/data"))
            with open(os.path.join(root, "README.md"), "w", encoding="utf-8") as f:
                f.write("<!-- table:h200-fp32 -->\n<!-- /table -->\n")
            for text, sentence in ((header + row, None), ("", "no rows"), (header, "no rows"), (header.replace("impl", "imp") + row, "line 2 has no 'impl'"),
                                   (header + row + row[:20], "line 3 doesn't have as many fields"), (header + row.replace("4096", "fourk"), "line 2: seqlen is 'fourk'"),
                                   (header + row.replace("1.5", "fast"), "line 2: ms is 'fast'"), (header + row.replace("1.5", ""), "no times"),
                                   (header + row.replace("forward", "backward"), "nothing to put at 'h200-fp32'"), (header + row + "\udcff", "is not text"),
                                   (header + row + '"', "unexpected end")):
                with open(os.path.join(root, "docs/data/h200_fp32.csv"), "w", encoding="utf-8", errors="surrogateescape") as f:
                    f.write(text)
                with self.subTest(sentence):
                    done = self.tables(root=root)
                    self.assertEqual(done.returncode, 2 if sentence else 0, done.stderr)
                    if sentence:
                        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
                        self.assertIn("h200_fp32.csv" if "nothing" not in sentence else "README.md", done.stderr)
                        self.assertIn(sentence, done.stderr)


def main():
    result = unittest.main(exit=False, buffer=False).result
    failed = len({test.id().split(" ")[0] for test, _ in result.failures + result.errors})
    if os.environ.get("FLASH_TEST_TOTALS"):
        with open(os.environ["FLASH_TEST_TOTALS"], "a") as totals:
            totals.write(f"{result.testsRun - failed - len(result.skipped)} {failed}\n")
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
