"""with_options.py NAME=OPTIONS COMMAND...: runs the command with the options behind it, split into words as a shell would
split them (LADDER="--out 'my file.json'"), but nothing in them is run or expanded."""
import os
import shlex
import sys

name, _, options = sys.argv[1].partition("=")
try:
    words = shlex.split(options)
except ValueError as error:
    sys.exit(f"{name}={options}: {str(error).lower()}.")
os.execvp(sys.argv[2], [*sys.argv[2:], *words])
