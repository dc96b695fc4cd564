"""That an editor understands the kernels where there is no CUDA: clang++ takes every .cu with the flags that clangd finds
in compile_flags.txt, and so every kernel's own header. Files that call CUDA's runtime need its headers, and are left out."""
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDERS = re.compile(r"common|[0-9][0-9]_\w+")


def kernel_files():
    for top in sorted(filter(FOLDERS.fullmatch, os.listdir(ROOT))):
        for folder, _, files in os.walk(os.path.join(ROOT, top)):
            for name in files:
                path = os.path.join(folder, name)
                if name.endswith(".cu"):
                    with open(path, encoding="utf-8") as file:
                        if not re.search(r"\bcuda[A-Z]\w*\(", file.read()):
                            yield os.path.relpath(path, ROOT)


def errors_of(path):
    with open(os.path.join(ROOT, "compile_flags.txt"), encoding="utf-8") as file:
        flags = file.read().split()
    done = subprocess.run(["clang++", "-fsyntax-only", *flags, path], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"{path} with compile_flags.txt:\n{done.stderr}"


def main():
    if not shutil.which("clang++"):
        print("SKIP: no clang++ here, so nothing says whether an editor understands the kernels.")
        return 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        errors = list(pool.map(errors_of, kernel_files()))
    for error in filter(None, errors):
        print(error)
    failed = sum(1 for error in errors if error)
    if os.environ.get("FLASH_TEST_TOTALS"):
        with open(os.environ["FLASH_TEST_TOTALS"], "a") as totals:
            totals.write(f"{len(errors) - failed} {failed}\n")
    print(f"editor_test: {len(errors) - failed} passed, {failed} failed")
    return 1 if failed or not errors else 0


sys.exit(main())
