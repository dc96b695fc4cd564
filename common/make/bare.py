"""bare.py: lays a bare Debian or Ubuntu in a folder, puts this checkout there as a tarball would bring it, and runs the
README's commands in it. Needs root, debootstrap and a mirror. From the environment:
  SUITE=bookworm     the system: a name of Debian or Ubuntu (trixie, sid, jammy, noble)
  TESTS=1            ./setup && make test as well: minutes
  MIRROR=URL         where packages come from; else what this machine's apt uses
  KEYRING=FILE       whose signatures to trust, where this machine lacks the other system's
  KEEP=1             the folder stays, to look into
Status 0 if every command worked, 1 if one didn't, 77 if it can't be tried here."""
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CANT_TRY = 77
UBUNTU = ("jammy", "noble")
NOT_IN_A_TARBALL = {".git", "build", "run", "work", "bench.csv", ".peers"}  # .git, and what git ignores
FIRST = "./setup && make step 2 && ./run"
TESTS = "./setup && make test"


class CantTry(Exception):
    """A sentence."""


def output_of(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout


def system_here():
    """What /etc/os-release says of this machine: {"ID": "debian", ...}"""
    with contextlib.suppress(OSError), open("/etc/os-release", encoding="utf-8") as file:
        return dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', file.read(), re.M))
    return {}


def mirror_for(suite):
    system = "ubuntu" if suite in UBUNTU else "debian"
    here = system_here()
    if os.environ.get("MIRROR"):
        return os.environ["MIRROR"]
    if here.get("ID") == system:
        targets = output_of("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
        sources = dict(reversed([(release, uri) for uri, release, component in map(str.split, targets.splitlines()) if component == "main"]))
        for release in (here.get("VERSION_CODENAME"), "sid", "unstable", "testing", "stable"):
            if release in sources:
                return sources[release]
    raise CantTry(f"No mirror of {system.capitalize()} is among this machine's apt sources: MIRROR=... names one.")


def look_for_what_is_needed():
    if os.geteuid() != 0:
        raise CantTry("A bare system needs root to be laid.")
    for program, package in (("debootstrap", "debootstrap"), ("unshare", "util-linux")):
        if not shutil.which(program):
            raise CantTry(f"{program} is not here (Debian's package {package}).")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        raise CantTry("Nothing can be mounted here, as in many containers: a bare system needs its own /proc.")


def run_apart(script):
    """A shell script whose mounts and processes are its own: they end with it, whatever ends it. -> status"""
    unshare = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "--pid", "--kill-child", "sh", "-ec", script],
                               stdin=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    try:
        return unshare.wait()
    finally:
        unshare.kill()
        unshare.wait()


def lay(suite, mirror, folder):
    """The smallest system that apt-get can add to; its apt is set up as this machine's is."""
    # Some versions of debootstrap don't know the newest Ubuntu by name; all use the same script.
    ubuntu = suite in UBUNTU
    options = ["--variant=minbase", "--force-check-gpg", *(["--components=main,universe"] if ubuntu else []),
               *(["--include=ca-certificates"] if mirror.startswith("https:") else []),
               *([f"--keyring={os.environ['KEYRING']}"] if os.environ.get("KEYRING") else [])]
    log = folder + ".log"
    try:
        words = shlex.join(["debootstrap", *options, suite, folder, mirror, *(["/usr/share/debootstrap/scripts/gutsy"] if ubuntu else [])])
        if run_apart(f"{words} >{shlex.quote(log)} 2>&1"):
            with open(log, encoding="utf-8", errors="replace") as file:
                said = [line for line in file.read().splitlines() if not line.startswith("I: ")]
            raise CantTry(f"debootstrap could not lay {suite} from {mirror}: {' '.join(said[-1:])}")
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(log)
    apt = os.path.join(folder, "etc/apt")
    if ubuntu:  # no Ubuntu is without its updates
        with open(os.path.join(apt, "sources.list"), "a", encoding="utf-8") as file:
            file.write(f"deb {mirror} {suite}-updates main universe\n")
    # Proxies, and what apt takes for a mirror that is not too old.
    settings = re.findall(r"^Acquire::(?:https?|Check-|Retries|Force).*$", output_of("apt-config", "dump"), re.M)
    with open(os.path.join(apt, "apt.conf.d/90here"), "w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in settings)


def put_checkout(folder):
    """What a tarball of the repository has in it: no .git, nothing built."""
    def wanted(member):
        path = member.name.split("/")
        return None if path[0] in NOT_IN_A_TARBALL or path[-1] == "__pycache__" else member
    checkout = os.path.join(folder, "root/flash_ladder")
    tar_file = os.path.join(folder, "flash_ladder.tar")
    os.makedirs(checkout)
    with tarfile.open(tar_file, "w") as tar:
        for name in sorted(os.listdir(ROOT)):
            tar.add(os.path.join(ROOT, name), name, filter=wanted)
    subprocess.run(["tar", "-xf", tar_file, "-C", checkout], check=True)
    os.unlink(tar_file)


def run_there(folder, command):
    clean = shlex.join(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
                        *(f"{name}={value}" for name, value in os.environ.items() if name.lower().endswith("_proxy"))])
    there = shlex.join(["chroot", folder, "sh", "-c", f"cd /root/flash_ladder && {command}"])
    print(f"$ {command}", flush=True)
    begin = time.monotonic()
    status = run_apart(f"mount -t proc proc {shlex.quote(folder)}/proc; exec {clean} {there}")
    print(f"({'worked' if status == 0 else f'ended with status {status}'}, {time.monotonic() - begin:.0f} s)", flush=True)
    return status == 0


def remove(folder):
    with open("/proc/self/mounts", encoding="utf-8") as file:
        if any(line.split()[1].startswith(folder + "/") for line in file):
            raise CantTry(f"Something is mounted below {folder}: it stays as it is.")
    for _ in range(50):  # processes that were just stopped may still write
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(0.1)
    raise CantTry(f"{folder} could not be removed.")


def main():
    suite = os.environ.get("SUITE") or "bookworm"
    if not re.fullmatch("[a-z]+", suite):
        raise CantTry(f"SUITE is a name like bookworm, trixie, sid, jammy, noble, not '{suite}'.")
    look_for_what_is_needed()
    mirror = mirror_for(suite)
    folder = tempfile.mkdtemp(prefix="flash_bare_", dir=os.environ.get("TMPDIR", "/var/tmp"))
    try:
        begin = time.monotonic()
        lay(suite, mirror, folder)
        with open(os.path.join(folder, "etc/os-release"), encoding="utf-8") as file:
            system = re.search('^PRETTY_NAME="(.*)"', file.read(), re.M)[1]
        print(f"A bare {system} ({suite}), laid in {time.monotonic() - begin:.0f} s", flush=True)
        put_checkout(folder)
        good = [run_there(folder, command) for command in (FIRST, *([TESTS] if os.environ.get("TESTS") else []))]
        return 0 if all(good) else 1
    finally:
        if os.environ.get("KEEP"):
            print(f"It stays in {folder}.")
        else:
            remove(folder)


def stopped(signum, _):
    raise KeyboardInterrupt


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stopped)
    try:
        sys.exit(main())
    except CantTry as reason:
        sys.exit(print(f"make test-bare: {reason}", file=sys.stderr) or CANT_TRY)
    except KeyboardInterrupt:
        sys.exit(print("Stopped.", file=sys.stderr) or 130)
