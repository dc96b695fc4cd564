"""What the scripts' command lines share: numbers, programs, and one sentence in the place of a traceback."""
import argparse
import re
import sys

from files import shown
from measure import MeasureError


def numbers(least, most):
    """The type of an option like 1024,4096: a list, sorted."""

    def parse(text):
        values = [int(n) for n in text.split(",")]
        if not all(least <= n <= most for n in values):
            raise argparse.ArgumentTypeError(f"{text}: from {least} to {most}")
        return sorted(set(values))

    parse.__name__ = "number"
    return parse


def positive(text):
    return numbers(1, 2**31 - 1)(text)[0]


positive.__name__ = "number"


def check_programs(words):
    """make names the programs; any other word is a mistake in the options."""
    for word in words:
        if not re.search(r"[^/]+_[^/]+/[^/]+\.run$", word):
            raise MeasureError(f"'{word}' is not an option; --help lists them.")


def run_main(main):
    """Ends the program with main's status. What a person can mend, and a Ctrl-C, is one sentence."""
    try:
        sys.exit(main(sys.argv[1:]))
    except MeasureError as error:
        sentence, status = error, 2
    except OSError as error:
        sentence, status = f"{shown(error.filename)}: {error.strerror}" if error.filename else error, 2
    except KeyboardInterrupt:
        sentence, status = "Stopped.", 130
    print(sentence, file=sys.stderr)
    sys.exit(status)
