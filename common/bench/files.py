"""Writes a file whole or not at all: into FILE.part, which takes FILE's place once everything is in it."""
import contextlib
import csv
import os
import sys


def shown(path):
    """As a reader in this folder writes it."""
    near = os.path.relpath(path)
    return path if near.startswith("..") else near


@contextlib.contextmanager
def written_whole(path, keep_part=False):
    """A file to write to. When something goes wrong on the way `path` stays as it was; what was written until then goes,
    or with keep_part stays in FILE.part. Begun before a long work, it finds a path that can't be written to first."""
    if os.path.exists(path) and not os.path.isfile(path):  # a folder; /dev/null, which would become a file
        raise OSError(0, "is not a plain file", path)
    path = os.path.realpath(path)
    part = path + ".part"
    file = open(part, "w", newline="", encoding="utf-8")
    try:
        with file:
            yield file
        os.replace(part, path)
    except BaseException as error:
        if isinstance(error, OSError) and not error.filename:  # a full disk doesn't say where
            error.filename = path
        if keep_part:
            print(f"What was written until then is in {shown(part)}.", file=sys.stderr)
        else:
            os.unlink(part)
        raise


def write_whole(path, text):
    with written_whole(path) as file:
        file.write(text)


def write_csv(path, rows):
    with written_whole(path) as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
