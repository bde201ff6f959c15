"""Puts hostile files between healthy ones, and makes a dataset of them all.

Exits with 1 where one of them takes more than 1 GiB while its headers are read, ends without a reason, or changes a
neighbor.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from nextscene.curation.config import RunLimits
from tests.hostile.containers import VIDEOS, sparse
from tests.hostile.pictures import IMAGES
from tests.hostile.running import CONFIG, Taken, build, samples, write
from tests.support import make_video

MOST_MIB = 1024
FILES = {**VIDEOS, **sparse(), **IMAGES}
_NEIGHBORS = 4


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("words", nargs="*", help="parts of the names of files; all without any")
    parser.add_argument("--header-seconds", type=float, default=RunLimits().header_seconds)
    given = parser.parse_args()
    words = given.words
    config = replace(CONFIG, limits=RunLimits(header_seconds=given.header_seconds))
    files = {name: make for name, make in FILES.items() if not words or any(word in name for word in words)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        hostile = dict(zip(files, write(folder, files), strict=True))
        neighbors = [make_video(folder / f"neighbor {place}.mp4", 0.25) for place in range(_NEIGHBORS)]
        taken = build(between(list(hostile.values()), neighbors), folder / "out", config)
        build(neighbors, folder / "alone")
        changed = samples(folder / "alone").items() - samples(folder / "out").items()
    print(f"{'file':45}{'s':>7}{'MiB':>7}{'in all':>8}  end")
    for name, path in hostile.items():
        one = taken[path.name]
        print(f"{name:45}{one.seconds:7.1f}{one.screening:7.0f}{one.memory:8.0f}  {one.end}")
    bad = [name for name, path in hostile.items() if is_bad(taken[path.name])]
    print(f"{len(hostile)} files; bad: {', '.join(bad) or 'none'}; neighbors changed: {len(changed)}")
    return int(bool(bad or changed))


def between(hostile: list[Path], neighbors: list[Path]) -> list[Path]:
    """One neighbor before all, the others spread over the hostile."""
    step = -(-len(hostile) // len(neighbors))
    return [path for place, one in enumerate(neighbors) for path in (one, *hostile[place * step : (place + 1) * step])]


def is_bad(one: Taken) -> bool:
    return one.screening > MOST_MIB or one.end.startswith(("quarantined", "failed unexpected"))


if __name__ == "__main__":
    sys.exit(main())
