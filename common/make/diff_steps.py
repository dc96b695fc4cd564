"""diff_steps.py OLD.cu NEW.cu: what changed between two kernel files, comments and blank lines aside."""
import re
import signal
import subprocess
import sys
import tempfile

TOKEN = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|//[^\n]*|/\*.*?\*/', re.DOTALL)


def without_comments(path):
    with open(path, encoding="utf-8") as file:
        text = TOKEN.sub(lambda m: m.group() if m.group()[0] in "\"'" else " ", file.read())
    return "".join(line.rstrip() + "\n" for line in text.split("\n") if line.strip())


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: make diff 4, or make diff 2 4")
    old, new = sys.argv[1:]
    with tempfile.NamedTemporaryFile("w") as a, tempfile.NamedTemporaryFile("w") as b:
        for path, file in ((old, a), (new, b)):
            try:
                file.write(without_comments(path))
            except OSError as error:
                sys.exit(f"{path}: {error.strerror}")
            file.flush()
        command = ["diff", "-d", "-U3", "--label", old, "--label", new, a.name, b.name]
        if sys.stdout.isatty():
            command.insert(1, "--color=always")
        print(subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout, end="")
        plain = subprocess.run(["diff", "-d", a.name, b.name], stdout=subprocess.PIPE, text=True).stdout
    lines = plain.split("\n")
    gone, come = (sum(line.startswith(mark) for line in lines) for mark in "<>")
    print(f"\n{gone} lines went, {come} came, comments aside ({old} -> {new}).")


signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `make diff 4 | head` ends quietly
main()
