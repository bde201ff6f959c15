"""Damages files of all codecs, and leaves others healthy; exits with 1 where one of them ends as the other should."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.damage.damaging import kinds
from tests.damage.footage import FILES, encode
from tests.damage.healthy import false_alarms
from tests.damage.images import IMAGES, damaged_images
from tests.damage.oracle import told
from tests.damage.running import SPANS, through_the_product, verdict

BAD = ("MISSED", "FROZEN", "told", "UNEXPECTED", "ALARM")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.damage", description=__doc__)
    parser.add_argument("words", nargs="*", help="parts of the names of files; all without any; 'healthy' for those")
    parser.add_argument("--keep", type=Path, help="a new folder to leave the files in")
    asked = parser.parse_args()
    names = [n for n in (*FILES, *IMAGES, "healthy") if not asked.words or any(w in n for w in asked.words)]
    with tempfile.TemporaryDirectory() as scratch, ProcessPoolExecutor(2) as pool:
        folders = [(asked.keep or Path(scratch)) / name for name in names]
        lines = []
        for share in pool.map(_lines, names, folders):
            lines += share
            for word, name, text in share:
                print(f"{word:13}{name:50}{text}", flush=True)
    _table(lines)
    return int(any(word in BAD for word, _, _ in lines))


def _lines(name: str, folder: Path) -> list[tuple[str, str, str]]:
    folder.mkdir(parents=True)
    if name == "healthy":
        return false_alarms(folder)
    return damaged_images(name, folder) if name in IMAGES else damaged_videos(name, folder)


def damaged_videos(name: str, folder: Path, only: tuple[str, ...] = ()) -> list[tuple[str, str, str]]:
    """(word, file and damage and span, evidence) of one file by every kind of damage, or `only` some."""
    whole = encode(folder / name, FILES[name])
    healthy = told(whole)
    suffix, damages = whole.suffix, {kind: do for kind, do in kinds(name).items() if not only or kind in only}
    files = {} if only else {"undamaged": whole}
    for number, (kind, damage) in enumerate(damages.items()):
        files[kind] = folder / f"{number:02}{suffix}"
        files[kind].write_bytes(damage(whole.read_bytes()))
    asked = [(path.name, span) for path in files.values() for span in SPANS]
    ended = through_the_product(asked, folder)
    lines = []
    for kind, path in files.items():
        found = told(path)
        for span in SPANS:
            got = verdict(ended[path.name, span], span, healthy, found, kind.startswith("head cut"))
            word = "ALARM" if kind == "undamaged" and got.word != "right" else got.word
            lines.append((word, f"{name} {kind} [{span[0]:g}–{span[1] or ''}]", got.said))
    return lines


def _table(lines: list[tuple[str, str, str]]) -> None:
    words = ["found", "right", "undetectable", "told", "MISSED", "FROZEN", "UNEXPECTED", "ALARM"]
    print(f"\n{'':16}" + "".join(f"{word:>13}" for word in words))
    for name in dict.fromkeys(what.split(" ")[0] for _, what, _ in lines):
        counts = Counter(word for word, what, _ in lines if what.split(" ")[0] == name)
        print(f"{name:16}" + "".join(f"{counts[word]:13}" for word in words))


if __name__ == "__main__":
    sys.exit(main())
