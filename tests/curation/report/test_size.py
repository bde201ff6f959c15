"""A hundred thousand clips: exact counts, a page that a browser can carry, and the memory of one ledger file."""

from __future__ import annotations

import random
import resource
from collections import Counter
from pathlib import Path

import pytest

from curation.config import Config
from curation.ledger import Row, write_ledger
from curation.outcome import OUTCOMES
from curation.plan import write_plan
from curation.report import make
from curation.report.strips import FRAMES, Strip
from curation.setup import Recorded
from curation.sources import Source
from shards.layout import UnitName
from shards.storage import Storage
from tests.curation.report.pages import HOSTILE, Page, report, row
from tests.support import make_video

pytestmark = pytest.mark.slow

CLIPS = 100_000
CONFIG = Config(judge="none", test=0.0, unit_size=512, units_per_shard=16)
MOST_BYTES = 20_000_000
WORST = "<&\"'" * 2500


def made_up(number: int, lots: random.Random) -> Row:
    outcome = lots.choices(OUTCOMES, (900, 60, 20, 10, 9, 1))[0]
    reason = "" if outcome == "kept" else lots.choice(["one", "two", "three"])
    return row(number, outcome, reason, caption=HOSTILE[number % len(HOSTILE)][:300], frames=81, source_width=1280)


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counter[tuple[str, str]]]:
    """An OUT with a ledger of unit files, and its counts."""
    folder = tmp_path_factory.mktemp("big")
    make_video(folder / "film.mp4", 0.25)
    lines = (f"film.mp4,{number}.000,{number + 1}.000,a" for number in range(CLIPS))
    (folder / "clips.csv").write_text("\n".join(["video,start,end,caption", *lines]))
    out = Storage.at(folder / "out")
    write_plan(out, Source.at(str(folder / "clips.csv")), CONFIG)
    Recorded(CONFIG.determining("ffmpeg"), "", "", {}).publish(out)
    lots, counts = random.Random(0), Counter[tuple[str, str]]()
    for begin in range(0, CLIPS, CONFIG.unit_size):
        rows = [made_up(number, lots) for number in range(begin, min(begin + CONFIG.unit_size, CLIPS))]
        counts.update((each.outcome, each.reason) for each in rows)
        write_ledger(out, UnitName("train", begin // CONFIG.unit_size).ledger, rows)
    return folder / "out", counts


def test_the_counts_are_exact_and_the_clips_a_sample(big: tuple[Path, Counter[tuple[str, str]]]) -> None:
    out, counts = big
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    page = report(out, CONFIG)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert page.endings() == counts
    assert sum(page.endings().values()) == CLIPS
    assert page.text("#shown").startswith("Showing 240 of 100,000 clips: a sample")
    cards = page.nodes(".card")
    assert len(cards) == 240
    assert {(card.attributes["data-outcome"], card.attributes["data-reason"] or "") for card in cards} == set(counts)
    assert len(page.html.encode()) < MOST_BYTES
    assert grown < 64_000  # kilobytes; all rows as objects are three times that


def test_the_worst_that_240_cards_can_hold_is_below_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = '[{"scene": "S", "reason": "S"}, {"scene": "S", "reason": "S"}, {"scene": "S", "reason": "S"}]'
    texts = dict.fromkeys(("detail", "caption", "scene_description", "verdict_reason", "source"), WORST)
    turned_down = attempts.replace("S", "&" * 10_000)
    rows = [row(number, verdict="Pass", turned_down=turned_down, **texts) for number in range(240)]
    strip = Strip((bytes(8 << 10),) * FRAMES)
    cards = [make.card(each, strip, 16) for each in rows]
    facts = make.Facts(CONFIG, "f" * 64, 240, make.Counts(), None)
    facts.counts.add(rows)
    page = Page(make.render(facts, cards))
    assert len(page.nodes(".card")) == 240
    assert len(page.html.encode()) < MOST_BYTES
