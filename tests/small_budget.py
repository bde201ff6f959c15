"""Check of what a small budget buys: `python -m tests.small_budget`. It exits with 1 if that is too little.

The command builds 155 clips with $0.15, and 2,000 with a tenth of what `--estimate` expects. It asks a loopback API
whose answers are about as long as the estimate expects, and which passes 70 % of the scenes. At least 75 % of the money
must be spent on clips that are decided, and at least 8 % of the 2,000 clips must be decided. It takes some minutes.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.judge.spending.answer_segments import read_answers
from tests.command import Place, place
from tests.fakes.claude_api import AnswerRules, ClaudeApi, Limits
from tests.support import ledger, make_video, write_csv

LEAST_SHARE = 0.75
LEAST_DECIDED = 0.08
SPAN_SECONDS = 0.25
SPANS = 80
_STOPPED = 3
_WAIT_SECONDS = 1800.0


def main() -> int:
    rules = AnswerRules(pass_rate=0.7, scene_words=15, thinking_tokens=40, chars_per_token=3)
    print(f"{'clips':>6}{'budget':>9}{'spent':>9}{'decided':>9}{'of the clips':>14}{'of the money':>14}")
    with (
        tempfile.TemporaryDirectory() as folder,
        place() as here,
        ClaudeApi(rules=rules, limits=Limits(latency=0.1)) as api,
    ):
        small = build(here, api, source(Path(folder, "small"), 155), "0.15")
        large_source = source(Path(folder, "large"), 2000)
        large = build(here, api, large_source, str(expected_usd(here, api, large_source) / 10))
    return int(min(small[1], large[1]) < LEAST_SHARE or large[0] < LEAST_DECIDED)


def source(folder: Path, clips: int) -> Path:
    """Write a manifest of `clips` clips: the same spans of one video repeatedly, each with another caption and id."""
    make_video(folder / "film.mp4", SPANS * SPAN_SECONDS, "854x480", "16", "-g", "16")
    rows = [
        {
            "video": "film.mp4",
            "id": f"clip {number}",
            "start": f"{number % SPANS * SPAN_SECONDS:.2f}",
            "end": f"{(number % SPANS + 1) * SPAN_SECONDS:.2f}",
            "caption": f"Rider number {number} crosses a wooden bridge in the rain while a dog runs beside the horse,"
            " and both look at the river below.",
        }
        for number in range(clips)
    ]
    return write_csv(folder / "clips.csv", rows)


def expected_usd(here: Place, api: ClaudeApi, manifest: Path) -> Decimal:
    """Return the cost that `--estimate` expects for single calls, in US dollars."""
    ended = here.build(*flags(manifest), "--estimate", env=api.env)
    found = re.search(r"^one by one +\$[\d,.]+ +\$([\d,.]+)", ended.stdout, re.MULTILINE)
    assert found, ended.stdout + ended.stderr
    return Decimal(found[1].replace(",", ""))


def build(here: Place, api: ClaudeApi, manifest: Path, budget: str) -> tuple[float, float]:
    """Build until the budget ends it. Return the share of clips that are decided, and their share of the money."""
    with here.start_build(*flags(manifest), "--budget-usd", budget, env=api.env) as command:
        ended = command.wait(_WAIT_SECONDS)
    assert ended.code == _STOPPED, f"{ended.code}: {ended.stderr}"
    out = out_of(manifest)
    decided = {row.clip_id for row in ledger(out, BuildConfig(judge="claude"))}
    answers = list(read_answers(Storage.at(out)))
    spent = sum((answer.usd for answer in answers), Decimal(0))
    theirs = sum((answer.usd for answer in answers if answer.clip_id in decided), Decimal(0))
    clips = len(manifest.read_text().splitlines()) - 1
    shares = len(decided) / clips, float(theirs / spent)
    print(f"{clips:>6,}{'$' + budget:>9}{f'${spent:.4f}':>9}{len(decided):>9,}{shares[0]:>14.1%}{shares[1]:>14.1%}")
    return shares


def flags(manifest: Path) -> Sequence[str]:
    return ("--source", str(manifest), "--out", str(out_of(manifest)), "--judge", "claude", "--workers", "2")


def out_of(manifest: Path) -> Path:
    return manifest.parent / "out"


if __name__ == "__main__":
    sys.exit(main())
