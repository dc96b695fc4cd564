"""run_tests.py PROGRAM...: runs test programs (Catch2 binaries, or Python scripts that end in .py), as many at once as
there are cores, and prints the output of those that fail. The last line is "N passed, N failed": test cases, over all
of them. A program adds a line "passed failed" to the file $FLASH_TEST_TOTALS."""
import concurrent.futures
import os
import subprocess
import sys
import tempfile
import time

TIME_LIMIT = int(os.environ.get("FLASH_TIME_LIMIT", 600))  # seconds a program; a hang is a failure


def run(program):
    begin = time.monotonic()
    command = [sys.executable, program] if program.endswith(".py") else [os.path.join(".", program)]
    with tempfile.NamedTemporaryFile("r") as totals:
        environment = dict(os.environ, FLASH_TEST_TOTALS=totals.name)
        try:
            result = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                    stderr=subprocess.STDOUT, timeout=TIME_LIMIT)
            status, output = result.returncode, result.stdout.decode(errors="replace")
        except subprocess.TimeoutExpired as expired:
            status = 1
            output = (expired.stdout or b"").decode(errors="replace") + f"stopped after {TIME_LIMIT} s\n"
        except OSError as error:
            status, output = 1, f"{error}\n"
        counts = [[int(word) for word in line.split()] for line in totals.read().splitlines()]
    passed, failed = (sum(column) for column in zip(*counts)) if counts else (0, 0)
    if status != 0 and failed == 0:
        failed = 1  # it crashed, or ran nothing
        output += f"{program} ended with status {status}\n"
    return program, passed, failed, output, time.monotonic() - begin


def main():
    programs = sys.argv[1:]
    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        # Scripts run other programs and move ./run about: one after the other, beside the binaries.
        scripts = [p for p in programs if p.endswith(".py")]
        jobs = [pool.submit(lambda: [run(p) for p in scripts])]
        jobs += [pool.submit(lambda p: [run(p)], p) for p in reversed(programs) if p not in scripts]  # later steps take longer
        for job in concurrent.futures.as_completed(jobs):
            for program, good, bad, output, seconds in job.result():
                passed, failed = passed + good, failed + bad
                print(f"{'FAIL' if bad else 'ok  '}  {good:4} passed {bad:3} failed  {seconds:5.1f} s  {program}", flush=True)
                if bad or "SKIP" in output:
                    print(output, end="", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


sys.exit(main())
