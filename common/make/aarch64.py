"""aarch64.py [STEP...]: builds the CPU back end and the steps for aarch64, what a container on a Mac is, and runs their
tests under qemu's user emulation; by default those of the forward steps, 00 to 05, and of the back end itself.
Status 0 if all pass, 1 if one doesn't, 77 if it can't be tried here."""
import os
import platform
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SHADOW = os.path.join(ROOT, "build/aarch64")  # links to the sources, and a build folder of its own
GXX = "aarch64-linux-gnu-g++"
LIBC = "/usr/aarch64-linux-gnu"
CANT_TRY = 77


class CantTry(Exception):
    """A sentence."""


def find(what, *programs):
    for program in programs:
        if shutil.which(program):
            return shutil.which(program)
    raise CantTry(f"{programs[0]} is not here: {what}")


def landings(steps):
    """'00_naive/naive' ... as `make list` has them; all whose folder isn't a backward step's, or those of the steps."""
    listed = subprocess.run(["make", "-s", "list"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"make step (\S+) +(\S+)\.cu", listed)
    if not steps:
        return [path for _, path in found if "_backward/" not in path]
    for step in steps:
        if not any(step in (number, number.split(".")[0]) for number, _ in found):
            raise CantTry(f"There is no step '{step}'.")
    return [path for number, path in found if number in steps or number.split(".")[0] in steps]


def lay_shadow():
    os.makedirs(os.path.join(SHADOW, "include"), exist_ok=True)
    os.makedirs(os.path.join(SHADOW, "bin"), exist_ok=True)
    links = {name: os.path.join("../..", name) for name in os.listdir(ROOT)
             if name in ("Makefile", "common") or re.match(r"[0-9][0-9]_", name)}
    catch2 = next((f"{folder}/catch2" for folder in ("/usr/include", "/usr/local/include") if os.path.isdir(f"{folder}/catch2")), None)
    if not catch2:
        raise CantTry("Catch2 is not here: ./setup installs it.")
    if os.path.exists(os.path.join(catch2, "catch_test_macros.hpp")) and not any(
            os.path.exists(f"{folder}/libCatch2.a") for folder in ("/usr/lib/aarch64-linux-gnu", f"{LIBC}/lib")):
        raise CantTry("Catch2 3 is a library, and here it is this machine's alone: Debian's catch2:arm64 has the other.")
    links["include/catch2"] = catch2
    # Lines of the program are asked of addr2line, and this machine's may not know aarch64.
    links["bin/addr2line"] = find("it comes with the cross compiler.", "aarch64-linux-gnu-addr2line")
    for name, target in links.items():
        link = os.path.join(SHADOW, name)
        if os.path.lexists(link):
            os.unlink(link)
        os.symlink(target, link)


def main(steps):
    if platform.machine() in ("aarch64", "arm64"):
        raise CantTry("This machine is one: make test.")
    find("Debian's g++-aarch64-linux-gnu has it.", GXX)
    qemu = find("Debian's qemu-user has it.", "qemu-aarch64", "qemu-aarch64-static")
    tests = [f"build/emu/{landing}.test" for landing in landings(steps)]
    if not steps:
        tests += ["build/emu/common/tests/kernels.test", "build/emu-fast/common/tests/kernels.test"]
    lay_shadow()
    environment = {**os.environ, "PATH": os.path.join(SHADOW, "bin") + ":" + os.environ["PATH"], "FLASH_TIME_LIMIT": "3600"}
    # A make of its own: what this one was told of back ends and tiles doesn't reach it.
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "TILE", "WATCH"):
        environment.pop(name, None)
    built = subprocess.run(["make", "BACKEND=emu", f"CXX={GXX} -isystem {SHADOW}/include", *tests], cwd=SHADOW, env=environment)
    if built.returncode:
        return 1
    programs = []
    for test in tests:
        programs.append(test.replace(".test", ".qemu"))
        path = os.path.join(SHADOW, programs[-1])
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\nexec {qemu} -L {LIBC} {test} \"$@\"\n")
        os.chmod(path, 0o755)
    return subprocess.run([sys.executable, "common/tests/run_tests.py", *programs], cwd=SHADOW, env=environment).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except CantTry as reason:
        sys.exit(print(f"make test-aarch64: {reason}", file=sys.stderr) or CANT_TRY)
    except KeyboardInterrupt:
        sys.exit(130)
