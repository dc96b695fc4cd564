"""The command line as a user meets it: ./run's options, files, reports and exit statuses, and make's words. Everything
runs on the CPU back end with programs that `make test` has built."""
import json
import math
import os
import random
import stat
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "common", "exercises"), os.path.join(ROOT, "common", "make")]
sys.dont_write_bytecode = True

import landings
from npy import npy, packed, read_npy

FAST = os.path.join(ROOT, os.environ.get("FLASH_FAST", "build/emu-fast"))
EMU = os.path.join(ROOT, os.environ.get("FLASH_EMU", "build/emu"))
LASTS = [one.path for one in landings.lasts(landings.landings())]  # built without watching by `make test`
FORWARD = "02_online_softmax/online_softmax"
BACKWARD = "06_backward/1_recompute"
SIXTEEN_BIT = "05_tensor_core/6_lean_loop"
PASS, FAILED, USAGE, CRASHED, SKIP = 0, 1, 2, 3, 4


def has(landing):
    return os.path.exists(os.path.join(ROOT, landing + ".cu"))


def run(*arguments, landing=FORWARD, folder=None, cwd=None, environment=None):
    folder = folder or (FAST if landing in LASTS else EMU)
    return subprocess.run([os.path.join(folder, landing + ".run"), *map(str, arguments)], cwd=cwd, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120,
                          env=dict(os.environ, **(environment or {})))


def make(*words):
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "TILE", "WATCH")}
    environment["BACKEND"] = "emu"
    return subprocess.run(["make", *words], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, env=environment, timeout=300)


def floats(values):
    return packed(values, "fp32")


def attention(q, k, v, heads, kv_heads, n_q, n_k, d, causal, scale):
    """O of batch 1 as flat lists, from the definition: a second opinion beside the program's own reference."""
    out = []
    for h in range(heads):
        g = h // (heads // kv_heads)
        for i in range(n_q):
            row = q[(h * n_q + i) * d:][:d]
            keys = min(n_k, max(0, i + 1 + n_k - n_q)) if causal else n_k
            scores = [scale * sum(a * b for a, b in zip(row, k[(g * n_k + j) * d:][:d])) for j in range(keys)]
            weights = [math.exp(s - max(scores)) for s in scores]
            total = sum(weights)
            for c in range(d):
                out.append(sum(w * v[(g * n_k + j) * d + c] for j, w in enumerate(weights)) / total if keys else 0.0)
    return out


class CommandLine(unittest.TestCase):
    def refused(self, arguments, status, *sentences, landing=FORWARD, cwd=None):
        with self.subTest(arguments=arguments):
            result = run(*arguments, landing=landing, cwd=cwd)
            self.assertEqual(result.returncode, status, result.stderr)
            for sentence in sentences:
                self.assertIn(sentence, result.stderr)
            self.assertEqual(result.stdout, "")
            self.assertEqual(len(result.stderr.strip().split("\n")), 1, "one sentence: " + result.stderr)

    def test_numbers(self):
        for option in ("--batch", "--heads", "--kv-heads", "--seqlen", "--seqlen-k", "--head-dim"):
            for value in ("0", "-5", "abc", "1e99", "2147483648", "99999999999999999999999", "", " 3", "3x", "1.5", "nan"):
                self.refused([option, value], USAGE, f"{option} must be a whole number from 1 to 2147483647, not '{value}'")
        self.refused(["--iters", "1000001"], USAGE, "--iters must be a whole number from 1 to 1000000, not '1000001'")
        for value in ("-1", "x", "", "18446744073709551616"):
            self.refused(["--seed", value], USAGE, "--seed must be a whole number")
        for value in ("0", "nan", "-1", "inf", "1e-60", "1e60", "", "x", "1x", "-0.0"):
            self.refused(["--scale", value], USAGE, f"--scale must be a finite number above 0 that fp32 can hold, not '{value}'")

    def test_names(self):
        self.refused(["--dtype", "fp8"], USAGE, "--dtype must be fp32, fp16 or bf16, not 'fp8'")
        self.refused(["--dist", "gauss"], USAGE, "--dist must be normal, uniform, outliers, large or negative, not 'gauss'")
        self.refused(["--nope"], USAGE, "there is no option --nope", "--help")
        self.refused(["--nope=3"], USAGE, "there is no option --nope")
        self.refused(["-x"], USAGE, "there is no option -x")
        self.refused(["--se", "3"], USAGE, "there is no option --se")
        self.refused(["--seqlen"], USAGE, "--seqlen needs a value")
        self.refused(["--causal=1"], USAGE, "--causal takes no value")
        self.refused(["64"], USAGE, "every argument is an option with two dashes; '64' is not")

    def test_combinations(self):
        self.refused(["--heads", 3, "--kv-heads", 2], USAGE, "must be a multiple of the key/value heads")
        self.refused(["--heads", 2, "--kv-heads", 4], USAGE, "must be a multiple of the key/value heads")
        self.refused(["--no-check", "--expect", "o.npy"], USAGE, "--no-check")
        self.refused(["--deterministic"], USAGE, "--deterministic is for backward steps")
        self.refused(["--output", "a.npy,b.npy"], USAGE, "--output takes one file")
        self.refused(["--output", "no/such/folder/o.npy"], USAGE, "can't write no/such/folder/o.npy")
        self.refused(["--json", "no/such/folder/r.json"], USAGE, "can't write no/such/folder/r.json")
        self.refused(["--output", "/"], USAGE, "can't write /: Is a directory")
        self.refused(["--output", "o.npy", "--json", "o.npy"], USAGE, "two results can't go to one file: o.npy")

    def test_what_the_step_does_not_take(self):
        self.refused(["--head-dim", 48], SKIP, "02_online_softmax takes head_dim 32, 64, 128, not 48")
        self.refused(["--dtype", "bf16"], SKIP, "02_online_softmax takes fp32, not bf16")

    def test_too_large(self):
        huge = ["--batch", 100000, "--heads", 100, "--seqlen", 100000]
        self.refused(huge, SKIP, "needs", "bytes", "free")
        self.refused(["--batch", 2147483647, "--heads", 2147483647, "--seqlen", 2147483647], USAGE, "more than can be counted")
        self.refused(["--seqlen", 2147483647], SKIP, "bytes")
        self.refused(["--seqlen-k", 2147483647], SKIP, "bytes")
        if has("00_naive/naive"):
            self.refused(["--seqlen", 2000000], SKIP, "00_naive", landing="00_naive/naive")

    def test_help_and_list(self):
        for option in ("--help", "-h"):
            result = run(option)
            self.assertEqual(result.returncode, PASS)
            for word in ("--seqlen-k", "--causal", "--input", "--profile", "02_online_softmax", "Exit status"):
                self.assertIn(word, result.stdout)
            self.assertLessEqual(max(map(len, result.stdout.split("\n"))), 120)
        result = run("--list")
        self.assertEqual(result.returncode, PASS)
        self.assertIn("02_online_softmax", result.stdout)

    def test_a_run(self):
        result = run("--heads", 4, "--kv-heads", 2, "--seqlen", 33, "--seqlen-k", 47, "--causal", "--head-dim", 32)
        self.assertEqual(result.returncode, PASS, result.stdout + result.stderr)
        self.assertEqual(result.stderr, "")
        for word in ("02_online_softmax", "PASS", "heads 4  kv_heads 2", "seqlen_q 33  seqlen_k 47", "causal", "model"):
            self.assertIn(word, result.stdout)
        for word in ("FLOP/s", " ms"):  # a CPU's time is no performance of the kernel
            self.assertNotIn(word, result.stdout)

    def test_not_checked(self):
        result = run("--no-check", "--seqlen", 16)
        self.assertEqual(result.returncode, PASS)
        self.assertIn("not checked", result.stdout)
        self.assertNotIn("PASS", result.stdout)

    def test_what_cannot_be_checked(self):
        """Scores past fp32's range: no verdict, and a status that says so."""
        result = run("--seqlen", 65, "--scale", "3.4e38", "--json", "-")
        self.assertEqual(result.returncode, SKIP, result.stdout + result.stderr)
        self.assertEqual(json.loads(result.stdout)["check"]["verdict"], "skip")
        self.assertIn("check    SKIP", run("--seqlen", 65, "--scale", "3.4e38").stdout)

    def test_json(self):
        result = run("--json", "-", "--seqlen", 40, "--seed", 7)
        self.assertEqual(result.returncode, PASS, result.stderr)
        report = json.loads(result.stdout)
        self.assertEqual(report["step"], "02")
        self.assertEqual(report["name"], "02_online_softmax")
        self.assertEqual(report["backend"], "emu")
        self.assertEqual(report["problem"]["seqlen_q"], 40)
        self.assertEqual(report["check"]["verdict"], "pass")
        self.assertEqual(report["check"]["lse_verdict"], "pass")
        self.assertLessEqual(report["check"]["max_error"], report["check"]["bound"])
        self.assertEqual(len(report["check"]["worst_index"]), 4)
        self.assertIsNone(report["time_ms"])
        self.assertIsNone(report["tflops"])
        self.assertEqual(report["model"]["flops"], 4 * 2 * 40 * 40 * 64)
        self.assertEqual(report["model"]["min_bytes"], 4 * (4 * 2 * 40 * 64 + 2 * 40))
        self.assertEqual(report["faults"], [])
        self.assertIsNone(report["counts"])
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "r.json")
            self.assertEqual(run("--json", path, "--seqlen", 40, "--seed", 7).returncode, PASS)
            with open(path) as file:
                self.assertEqual(json.load(file)["check"], report["check"])
            self.assertEqual(os.listdir(folder), ["r.json"])
        skipped = run("--json", "-", "--head-dim", 48)
        self.assertEqual(skipped.returncode, SKIP)
        self.assertEqual(json.loads(skipped.stdout)["check"]["verdict"], "skip")

    def test_json_of_a_watched_run(self):
        result = run("--json", "-", "--seqlen", 40, "--profile", folder=EMU)
        self.assertEqual(result.returncode, PASS, result.stdout + result.stderr)
        report = json.loads(result.stdout)
        self.assertTrue(report["watched"])
        self.assertEqual(report["counts"]["global_write_bytes"], 4 * (2 * 40 * 64 + 2 * 40))  # O and the LSE
        self.assertEqual(report["counts"]["global_read_bytes"], report["model"]["read_bytes"])
        with open(os.path.join(ROOT, "docs/json.md"), encoding="utf-8") as file:
            documented = file.read()
        keys = set(report) | {f"{key}.{inner}" for key in report if isinstance(report[key], dict) for inner in report[key]}
        for key in sorted(keys):
            self.assertIn(f"`{key}`", documented, "docs/json.md doesn't say what it means")

    def test_profile(self):
        result = run("--profile", "--seqlen", 40, folder=EMU)
        self.assertEqual(result.returncode, PASS, result.stdout + result.stderr)
        for word in ("online_softmax_kernel", "online_softmax.cu:", "sectors", "the least possible"):
            self.assertIn(word, result.stdout)
        result = run("--profile", "--seqlen", 40)  # not watched
        self.assertEqual(result.returncode, USAGE)
        self.assertIn("make step 02", result.stderr)

    def test_a_kernel_file_that_registers_no_step(self):
        with tempfile.TemporaryDirectory() as folder:
            source = os.path.join(folder, "mine.cu")
            open(source, "w").close()
            built = make("-s", f"{folder}/fast.run", f"SOURCE={source}", f"LANDING={FORWARD}", f"OUT={folder}")
            self.assertEqual(built.returncode, 0, built.stderr)
            for arguments in ([], ["--help"], ["--list"], ["--json", "-"]):
                result = subprocess.run([os.path.join(folder, "fast.run"), *arguments], capture_output=True, text=True)
                self.assertEqual((result.returncode, result.stdout), (USAGE, ""))
                self.assertEqual(result.stderr, "./run: this program registers no step: its kernel file must end with "
                                                "`const flash::RegisterStep registered(flash::forward_step(...));`\n")

    def test_shuffled(self):
        result = run("--seqlen", 50, environment={"EMU_SEED": "3"})
        self.assertEqual(result.returncode, PASS, result.stdout + result.stderr)


class Files(unittest.TestCase):
    HEADS, KV_HEADS, N_Q, N_K, D = 4, 2, 9, 13, 32

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = holder.name
        draw = random.Random(1)
        self.q_shape, self.k_shape = (1, self.HEADS, self.N_Q, self.D), (1, self.KV_HEADS, self.N_K, self.D)
        self.q, self.k, self.v = ([draw.gauss(0, 1) for _ in range(math.prod(s))]
                                  for s in (self.q_shape, self.k_shape, self.k_shape))
        for name, shape, values in (("q", self.q_shape, self.q), ("k", self.k_shape, self.k), ("v", self.k_shape, self.v)):
            self.write(name + ".npy", npy("<f4", shape, floats(values)))

    def write(self, name, content):
        with open(os.path.join(self.folder, name), "wb") as file:
            file.write(content)

    def call(self, *arguments, landing=FORWARD):
        return run(*arguments, landing=landing, cwd=self.folder)

    def refused(self, arguments, *sentences, landing=FORWARD, status=USAGE):
        before = sorted(os.listdir(self.folder))
        result = self.call(*arguments, "--output", "out.npy", "--json", "out.json", landing=landing)
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        for sentence in sentences:
            self.assertIn(sentence, result.stderr)
        self.assertEqual(result.stdout, "")
        self.assertEqual(sorted(os.listdir(self.folder)), before, "nothing is written")

    def test_writes_to_what_stands_there(self):
        """A pipe stays a pipe, a link a link, and nothing unfinished is left."""
        pipe, link, target = (os.path.join(self.folder, name) for name in ("pipe", "link.npy", "target.npy"))
        os.mkfifo(pipe)
        os.symlink("target.npy", link)
        self.write("target.npy", b"old")
        reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True)
        result = self.call("--input", "q.npy,k.npy,v.npy", "--output", "link.npy", "--json", "pipe")
        if not stat.S_ISFIFO(os.stat(pipe).st_mode):
            reader.kill()
        report = reader.communicate(timeout=10)[0]
        self.assertEqual(result.returncode, PASS, result.stderr)
        self.assertEqual(json.loads(report)["check"]["verdict"], "pass")
        self.assertTrue(os.path.islink(link))
        self.assertEqual(read_npy(target)[1], self.q_shape)
        self.assertEqual([name for name in os.listdir(self.folder) if ".part" in name], [])
        os.remove(pipe), os.remove(link), os.remove(target)

    def test_round_trip(self):
        for causal in (False, True):
            extra = ["--causal"] if causal else []
            result = self.call("--input", "q.npy,k.npy,v.npy", "--output", "o.npy", *extra)
            self.assertEqual(result.returncode, PASS, result.stdout + result.stderr)
            descr, shape, values = read_npy(os.path.join(self.folder, "o.npy"))
            self.assertEqual((descr, shape), ("<f4", self.q_shape))
            expected = attention(self.q, self.k, self.v, self.HEADS, self.KV_HEADS, self.N_Q, self.N_K, self.D, causal,
                                 1 / math.sqrt(self.D))
            self.assertLess(max(abs(a - b) for a, b in zip(values, expected)), 1e-5)

            result = self.call("--input", "q.npy,k.npy,v.npy", "--expect", "o.npy", *extra)
            self.assertEqual(result.returncode, PASS, result.stdout + result.stderr)
            values[77] += 0.01
            self.write("wrong.npy", npy("<f4", shape, floats(values)))
            result = self.call("--input", "q.npy,k.npy,v.npy", "--expect", "wrong.npy", *extra)
            self.assertEqual(result.returncode, FAILED, result.stdout + result.stderr)
            self.assertIn("FAIL", result.stdout)

    def test_versions(self):
        for version in ((1, 0), (2, 0), (3, 0)):
            self.write("q2.npy", npy("<f4", self.q_shape, floats(self.q), version))
            self.assertEqual(self.call("--input", "q2.npy,k.npy,v.npy").returncode, PASS)

    def test_files_that_are_not_right(self):
        good = npy("<f4", self.q_shape, floats(self.q))
        with_nan = list(self.q)
        with_nan[5] = math.nan
        cases = {
            "magic": (b"\x93NUMPX" + good[6:], "expected a NumPy .npy file"),
            "truncated": (good[:-5], "truncated"),
            "in_header": (good[:20], "ends inside its .npy header"),
            "empty": (b"", ""),
            "longer": (good + b"1234", "found more"),
            "fortran": (npy("<f4", self.q_shape, floats(self.q), order="True"), "Fortran order"),
            "big_endian": (npy(">f4", self.q_shape, floats(self.q)), "big-endian"),
            "float64": (npy("<f8", self.q_shape, b"\0" * 8 * len(self.q)), "<f8"),
            "rank_3": (npy("<f4", self.q_shape[1:], floats(self.q)), ""),
            "nan": (npy("<f4", self.q_shape, floats(with_nan)), ""),
            "version_9": (npy("<f4", self.q_shape, floats(self.q), (9, 0)), "version"),
            "no_elements": (npy("<f4", (1, 4, 0, 32), b""), ""),
            "overflow": (npy("<f4", (2**40, 2**40, 1, 32), b""), ""),
        }
        for name, (content, sentence) in cases.items():
            with self.subTest(name):
                self.write(name + ".npy", content)
                self.refused(["--input", f"{name}.npy,k.npy,v.npy"], name + ".npy", sentence)
        self.refused(["--input", "missing.npy,k.npy,v.npy"], "missing.npy")
        self.refused(["--input", f"{self.folder},k.npy,v.npy"], self.folder)

    def test_files_that_do_not_go_together(self):
        self.write("v_short.npy", npy("<f4", (1, 2, 12, 32), floats(self.v[:2 * 12 * 32])))
        self.write("k_64.npy", npy("<f4", (1, 1, 13, 64), floats(self.v)))
        self.write("three.npy", npy("<f4", (1, 3, 12, 32), floats(self.q + self.q)[:3 * 12 * 32 * 4]))
        self.refused(["--input", "q.npy"], "--input takes three files")
        self.refused(["--input", "q.npy,k.npy,v.npy,q.npy"], "--input takes three files")
        self.refused(["--input", "q.npy,,v.npy"], "one comma")
        self.refused(["--input", "q.npy,k.npy,v_short.npy"], "v_short.npy has shape [1, 2, 12, 32]", "[1, 2, 13, 32]")
        self.refused(["--input", "q.npy,k_64.npy,k_64.npy"], "k_64.npy has shape")
        self.refused(["--input", "q.npy,three.npy,three.npy"], "multiple of the key/value heads")
        self.refused(["--input", "q.npy,k.npy,v.npy", "--heads", 3], "--heads 3 disagrees with q.npy, which has 4")
        self.refused(["--input", "q.npy,k.npy,v.npy", "--seqlen-k", 3], "--seqlen-k 3 disagrees with k.npy, which has 13")
        self.refused(["--input", "q.npy,k.npy,v.npy", "--seed", 3], "--seed")
        self.refused(["--input", "q.npy,k.npy,v.npy", "--dtype", "fp16"], "q.npy")
        self.refused(["--input", "q.npy,k.npy,v.npy", "--expect", "k.npy"], "k.npy has shape", "expected O's")

    @unittest.skipUnless(has(SIXTEEN_BIT), "no such step yet")
    def test_sixteen_bits(self):
        q_shape, k_shape = (1, 2, 9, 64), (1, 2, 13, 64)
        draw = random.Random(2)
        values = [[draw.gauss(0, 1) for _ in range(math.prod(s))] for s in (q_shape, k_shape, k_shape)]
        for name, data, shape in zip("qkv", values, (q_shape, k_shape, k_shape)):
            self.write(name + "h.npy", npy("<f2", shape, packed(data, "fp16")))
            self.write(name + "b.npy", npy("<u2", shape, packed(data, "bf16")))
        for ending, dtype, descr in (("h", "fp16", "<f2"), ("b", "bf16", "<u2")):
            files = ",".join(f"{name}{ending}.npy" for name in "qkv")
            result = self.call("--input", files, "--dtype", dtype, "--output", "o.npy", landing=SIXTEEN_BIT)
            self.assertEqual(result.returncode, PASS, result.stdout + result.stderr)
            found, shape, out = read_npy(os.path.join(self.folder, "o.npy"))
            self.assertEqual((found, shape), (descr, q_shape))
            expected = attention(*values, 2, 2, 9, 13, 64, False, 1 / 8)
            self.assertLess(max(abs(a - b) for a, b in zip(out, expected)), 0.03)
            result = self.call("--input", files, "--dtype", dtype, "--expect", "o.npy", landing=SIXTEEN_BIT)
            self.assertEqual(result.returncode, PASS, result.stdout + result.stderr)

    @unittest.skipUnless(has(BACKWARD), "no such step yet")
    def test_backward(self):
        self.write("do.npy", npy("<f4", self.q_shape, floats(self.q[::-1])))
        result = self.call("--input", "q.npy,k.npy,v.npy,do.npy", "--output", "dq.npy,dk.npy,dv.npy", landing=BACKWARD)
        self.assertEqual(result.returncode, PASS, result.stdout + result.stderr)
        for name, shape in (("dq", self.q_shape), ("dk", self.k_shape), ("dv", self.k_shape)):
            self.assertEqual(read_npy(os.path.join(self.folder, name + ".npy"))[:2], ("<f4", shape))
        result = self.call("--input", "q.npy,k.npy,v.npy", landing=BACKWARD)
        self.assertEqual(result.returncode, USAGE)
        self.assertIn("four files", result.stderr)


class Make(unittest.TestCase):
    def test_words(self):
        for words in (["step", "2"], ["step", "02"], ["step", "N=2"], ["step", "02_online_softmax"],
                      ["step", "online_softmax"], ["step", "02_online_softmax/online_softmax.cu"]):
            with self.subTest(words):
                result = make(*words)
                self.assertEqual((result.returncode, result.stderr), (0, ""))
                self.assertNotIn("make:", result.stdout)
                self.assertEqual(os.readlink(os.path.join(ROOT, "run")), f"build/emu/{FORWARD}.run")

    def test_mistakes(self):
        for words, sentence in ((["step", "99"], "There is no step '99'"), (["step", "nope"], "There is no step 'nope'"),
                                (["step"], "Which step?"), (["test", "99"], "There is no step '99'"),
                                (["step", "2", "BACKEND=x"], "BACKEND is emu or cuda, not 'x'"),
                                (["step", "2", "WATCH=5"], "WATCH is 0 or 1, not '5'"),
                                (["step", "4", "TILE=64"], "not '64'"),
                                (["step", "4", "TILE=6'; touch run.tile; echo '"], "TILE is query rows x keys")):
            with self.subTest(words):
                result = make(*words)
                self.assertEqual(result.returncode, 2)
                self.assertIn(sentence, result.stderr)
        self.assertFalse(os.path.exists(os.path.join(ROOT, "run.tile")), "a part of TILE was run")
        self.assertIn("make step 2 ", make("step", "99").stderr)

    def test_a_strange_word_is_named_and_no_part_of_it_is_run(self):
        with tempfile.TemporaryDirectory() as folder:
            mark = os.path.join(folder, "mark")
            for word in ("a;b", f"2;touch {mark}", f"`touch {mark}`", f"$(touch {mark})", f"$(shell touch {mark})",
                         f"a'; touch {mark}; '", f'a"; touch {mark}; "', "a:b", "a#b", "%", "*", "\\n", "a\\"):
                for first, what in (("step", "step"), ("test", "step"), ("exercise", "exercise"), ("check", "exercise")):
                    with self.subTest(f"make {first} '{word}'"):
                        result = make(first, word)
                        self.assertEqual(result.returncode, 2)
                        self.assertEqual(result.stderr.splitlines()[0], f"There is no {what} '{word}'.")
                        self.assertNotIn("No rule", result.stderr)
                        self.assertEqual(os.listdir(folder), [])

    def test_help(self):
        result = make()
        self.assertEqual(result.returncode, 0)
        for word in ("make step 2", "make test", "make cuda", "make diff", "BACKEND", "TILE"):
            self.assertIn(word, result.stdout)

    def test_the_python_tools_know_the_same_steps(self):
        listed = [line.split()[2:] for line in make("list").stdout.splitlines()]
        self.assertEqual(listed, [[one.short, one.path + ".cu"] for one in landings.landings()])
        self.assertEqual(landings.landings_of("05.6"), [SIXTEEN_BIT])
        for one in landings.landings():  # the program itself says what its step takes
            answer = json.loads(run("--list", "--json", "-", landing=one.path).stdout)
            self.assertEqual(answer["main"], one.number)
            step = next(step for step in answer["steps"] if step["number"] == one.number)
            self.assertEqual((step["dtypes"], step["direction"]), (list(one.dtypes), one.direction))
            self.assertIn(step["name"], (one.folder, one.path))

    def test_diff(self):
        result = make("diff", "2")
        self.assertEqual(result.returncode, 0)
        self.assertIn("+++ 02_online_softmax/online_softmax.cu", result.stdout)
        self.assertNotIn("+//", result.stdout)


def main():
    run_path = os.path.join(ROOT, "run")
    link_before = os.readlink(run_path) if os.path.islink(run_path) else None
    program = unittest.main(exit=False, buffer=False)
    if link_before:  # what the reader had built last is what ./run runs again
        if os.path.lexists(run_path):
            os.unlink(run_path)
        os.symlink(link_before, run_path)
    result = program.result
    failed = len({test.id().split(" ")[0] for test, _ in result.failures + result.errors})
    if os.environ.get("FLASH_TEST_TOTALS"):
        with open(os.environ["FLASH_TEST_TOTALS"], "a") as totals:
            totals.write(f"{result.testsRun - failed - len(result.skipped)} {failed}\n")
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
