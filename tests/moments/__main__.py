"""The whole campaign: `python -m tests.moments --help`. Ends with 1 if a clip is wrong."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.moments.campaign import MOVED, NO_CLIP, RIGHT, WRONG, Verdict, judge
from tests.moments.files import Maker, Video
from tests.moments.matrix import ordinary, special

KINDS = (RIGHT, MOVED, NO_CLIP, WRONG)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.moments", description=__doc__)
    parser.add_argument("--only", default="", help="only videos whose names hold this text")
    parser.add_argument("--keep", type=Path, help="a folder in which the videos stay for the next time")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    chosen = parser.parse_args()
    videos = [video for video in (*ordinary(), *special()) if chosen.only in video.name]
    with tempfile.TemporaryDirectory() as scratch:
        verdicts = []
        for verdict in _judged(videos, chosen.keep or Path(scratch) / "videos", Path(scratch), chosen.jobs):
            verdicts.append(verdict)
            if verdict.kind == WRONG:
                print(f"WRONG {verdict.video.name} {verdict.span}: {verdict.detail}", flush=True)
    _print_table(verdicts)
    return 1 if not verdicts or any(verdict.kind == WRONG for verdict in verdicts) else 0


def _judged(videos: Sequence[Video], folder: Path, scratch: Path, jobs: int) -> Iterator[Verdict]:
    """One run of the product for all the videos of a stream."""
    by_stream = defaultdict(list)
    for video in videos:
        by_stream[video.stream.name, video.stream.rate, video.stream.frames].append(video)
    begun = time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        runs = [
            pool.submit(judge, Maker(folder), group, scratch / f"run{number}")
            for number, group in enumerate(by_stream.values())
        ]
        for number, run in enumerate(runs, 1):
            yield from run.result()
            print(f"{number} of {len(runs)} runs, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)


def _print_table(verdicts: Sequence[Verdict]) -> None:
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for verdict in verdicts:
        video = verdict.video
        counts[video.container.name, f"{video.stream.name} {video.special}"][verdict.kind] += 1
    print(f"\n{'container':<12}{'stream':<32}" + "".join(f"{kind:>20}" for kind in KINDS))
    for (container, stream), count in sorted(counts.items()):
        print(f"{container:<12}{stream:<32}" + "".join(f"{count[kind] or '·':>20}" for kind in KINDS))
    total = Counter(verdict.kind for verdict in verdicts)
    print(f"{'all':<12}{'':<32}" + "".join(f"{total[kind]:>20}" for kind in KINDS))


if __name__ == "__main__":
    sys.exit(main())
