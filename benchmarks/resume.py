"""Claims: a run that resumes over 1,000,000 stored answers can ask within 10 s, in memory that hardly grows with them.

Measured: the seconds until the judge's client is open, with all its records read, and the peak memory (VmHWM) of its
process; with the index that the previous run left, and for the first time, without one. The answers lie in segments of
50, like those of a run of 200 answers per second, which stores four times per second.

Compared with: loading the index with numpy, and reading and decompressing the segments, each alone in a process of its
own; for memory with a tenth of the answers.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from benchmarks.support import WORK, Result, child, show
from nextscene.judge.api.answer import Answer
from nextscene.judge.spending.answer_index import INDEX
from nextscene.judge.spending.answer_segments import CALLS, SEGMENT_SUFFIX
from nextscene.judge.spending.prices import Usage
from nextscene.pipelines.cli.command import Command

ROUNDS = 3
ANSWERS, A_SEGMENT = 1_000_000, 50
_TEXT = "Earlier, a heron stood in the shallow water at dawn, and slowly turned its head towards the {} reeds."


def benchmark(rounds: int | None = None, answers: int = ANSWERS, a_segment: int = A_SEGMENT) -> list[Result]:
    WORK.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("ANTHROPIC_API_KEY", "none-as-nothing-is-asked")
    rounds = rounds or ROUNDS
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        few, many = Path(folder, "few"), Path(folder, "many")
        _store(few, answers // 10, a_segment)
        _store(many, answers, a_segment)
        first = _measure(few, many, rounds, "segments")
        then = _measure(few, many, rounds, "index")
    return [
        *_results(f"with the index of {answers:,} answers", then, answers, "loading it with numpy"),
        *_results(f"the first time over {answers:,} answers", first, answers, "reading and decompressing them"),
    ]


def _measure(few: Path, many: Path, rounds: int, bare: str) -> list[dict[str, Any]]:
    """Run rounds of the start over few and many answers and of the `bare` part; if that is `index`, with the index."""
    found = []
    for _ in range(rounds):
        if bare == "segments":
            for out in (few, many):
                (out / INDEX).unlink(missing_ok=True)
        found.append(
            {"few": child("resume", "judge", str(few)), "many": child("resume", "judge", str(many))}
            | {"bare": child("resume", bare, str(many))}
        )
    return found


def _results(name: str, found: list[dict[str, Any]], answers: int, bare: str) -> list[Result]:
    seconds = [each["many"]["seconds"] for each in found]
    ratios = [each["many"]["seconds"] / each["bare"]["seconds"] for each in found]
    peaks = [each["many"]["peak"] / each["few"]["peak"] for each in found]
    last = {which: found[-1][which]["peak"] for which in ("few", "many")}
    further = (last["many"] - last["few"]) / (answers - answers // 10)
    memory = f"{last['few'] / 1e6:.0f} MB and {last['many'] / 1e6:.0f} MB: {further:.0f} bytes per further answer"
    speed = f"{min(ratios):.1f} to {max(ratios):.1f} times {bare}"
    return [
        Result(f"seconds until a run can ask, {name}", seconds, 10.0, unit=" s", notes=[speed]),
        Result(f"peak memory, over that of a tenth of the answers, {name}", peaks, 1.5, notes=[memory]),
    ]


def _store(out: Path, answers: int, a_segment: int) -> None:
    """Write segments like those of a run, but with a faster compression."""
    folder = out / CALLS / "answers"
    folder.mkdir(parents=True)
    lines = _lines(answers)
    for number in range(0, answers, a_segment):
        data = gzip.compress(b"".join(next(lines) for _ in range(min(a_segment, answers - number))), 1, mtime=0)
        (folder / f"{number:016x}-{hashlib.sha256(data).hexdigest()[:16]}{SEGMENT_SUFFIX}").write_bytes(data)


def _lines(answers: int) -> Iterator[bytes]:
    """Return the line of one answer repeatedly, each with a key and ids of its own."""
    answer = Answer(
        key="<key>",
        status="whole",
        text=_TEXT,
        stop_reason="end_turn",
        category="",
        explanation="",
        model_asked="claude-sonnet-5-5",
        model_served="claude-sonnet-5-5",
        message_id="<message_id>",
        request_id="<request_id>",
        batch_id="",
        usage=Usage(input_tokens=180, output_tokens=25),
        usd=Decimal("0.00061"),
        tries=1,
        clip_id="<clip_id>",
    )
    parts = answer.to_line().decode().replace("%", "%%").replace("{}", "<number>")
    line = re.sub(r"<(\w+)>", r"%(\1)s", parts)
    for number in range(answers):
        digest = hashlib.sha256(b"%d" % number).hexdigest()
        made = {
            "key": digest,
            "message_id": f"msg_{digest[8:32]}",
            "request_id": f"req_{digest[32:56]}",
            "clip_id": digest[40:],
            "number": number,
        }
        yield (line % made).encode()


@click.command(cls=Command, help=__doc__)
@click.option("--rounds", type=click.IntRange(1), default=ROUNDS, show_default=True)
@click.option("--answers", type=click.IntRange(100), default=ANSWERS, show_default=True, help="Stored answers.")
@click.option("--a-segment", type=click.IntRange(1), default=A_SEGMENT, show_default=True, help="Answers in a segment.")
def main(rounds: int, answers: int, a_segment: int) -> None:
    show(benchmark(rounds, answers, a_segment))


if __name__ == "__main__":
    main()
