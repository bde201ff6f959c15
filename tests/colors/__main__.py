"""Runs all cases, or those whose group or file holds a word, and prints a table; exits with 1 where one is missed."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.colors.cases import Case
from tests.colors.images import all_images
from tests.colors.running import Result, results
from tests.colors.videos import all_videos


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.colors", description=__doc__)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--keep", type=Path, help="a folder to leave the files in")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.keep or Path(scratch)
        jobs = [(folder / str(i), asked.words, i, asked.workers) for i in range(asked.workers)]
        with ProcessPoolExecutor(asked.workers) as pool:
            found = [result for share in pool.map(_share, *zip(*jobs, strict=True)) for result in share]
    for result in sorted(found, key=lambda r: (r["group"], r["file"])):
        print(result["line"])
    print(dict(Counter(result["verdict"] for result in found)))
    return int(any(result["verdict"] == "MISS" for result in found))


def _share(folder: Path, words: list[str], number: int, of: int) -> list[dict[str, str]]:
    cases = chosen(words)[number::of]
    folder.mkdir(parents=True, exist_ok=True)
    return [_plain(result) for result in results(cases, folder)]


def chosen(words: list[str]) -> list[Case]:
    """The cases whose group and file hold any of the words; all without words."""
    everything = [*all_videos(), *all_images()]
    return [case for case in everything if not words or any(w in f"{case.group} {case.file}" for w in words)]


def _plain(result: Result) -> dict[str, str]:
    return {"group": result.case.group, "file": result.case.file, "verdict": result.verdict, "line": str(result)}


if __name__ == "__main__":
    sys.exit(main())
