"""A hundred thousand clips: exact counts, a page that a browser can carry, and the memory of one ledger file."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from nextscene.common.storage import Storage
from nextscene.curation.config import CUT_VERSION, BuildConfig
from nextscene.curation.ledger import Row, write_ledger
from nextscene.curation.outcome import OUTCOMES
from nextscene.curation.plan_writer import write_plan
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.report import make
from nextscene.curation.report.filmstrips import FRAMES, Filmstrip
from nextscene.curation.sources import Source
from nextscene.shards.format.layout import UnitName
from tests.curation.report.pages import HOSTILE, Page, report, row
from tests.support import make_video

pytestmark = pytest.mark.slow

CLIPS = 100_000
CONFIG = BuildConfig(judge="none", test=0.0, unit_size=512, units_per_shard=16)
MOST_BYTES = 20_000_000
WORST = "<&\"'" * 2500


def made_up(number: int, lots: random.Random) -> Row:
    outcome = lots.choices(OUTCOMES, (900, 60, 20, 10, 7, 1, 2))[0]
    reason = "" if outcome == "kept" else lots.choice(["one", "two", "three"])
    return row(number, outcome, reason, caption=HOSTILE[number % len(HOSTILE)][:300], frames=81, source_width=1280)


def made(folder: Path, clips: int) -> tuple[Path, Counter[tuple[str, str]]]:
    """An OUT with a ledger of unit files, and its counts."""
    make_video(folder / "film.mp4", 0.25)
    lines = (f"film.mp4,{number}.000,{number + 1}.000,a" for number in range(clips))
    (folder / "clips.csv").write_text("\n".join(["video,start,end,caption", *lines]))
    out = Storage.at(folder / "out")
    write_plan(out, Source.at(str(folder / "clips.csv")), CONFIG)
    RecordedConfig(CONFIG.identity_settings("ffmpeg"), "", "", {}, CUT_VERSION).publish(out)
    lots, counts = random.Random(0), Counter[tuple[str, str]]()
    for begin in range(0, clips, CONFIG.unit_size):
        rows = [made_up(number, lots) for number in range(begin, min(begin + CONFIG.unit_size, clips))]
        counts.update((each.outcome, each.reason) for each in rows)
        write_ledger(out, UnitName("train", begin // CONFIG.unit_size).ledger, rows)
    return folder / "out", counts


PEAK = """
import sys
from pathlib import Path
from tests.curation.report.pages import report
from tests.curation.report.test_size import CONFIG
report(Path(sys.argv[1]), CONFIG)
print(*(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


def peak(out: Path) -> int:
    """Kilobytes of a process that makes the page."""
    return int(subprocess.run([sys.executable, "-c", PEAK, str(out)], stdout=subprocess.PIPE, check=True).stdout)


def test_counts_are_exact_clips_are_sampled_and_memory_is_one_ledger_file(tmp_path: Path) -> None:
    folders = tmp_path / "big", tmp_path / "small"
    for folder in folders:
        folder.mkdir()
    (out, counts), (small, _) = made(folders[0], CLIPS), made(folders[1], CLIPS // 4)
    page = report(out, CONFIG)
    assert page.outcomes() == counts
    assert sum(page.outcomes().values()) == CLIPS
    assert page.text("#shown").startswith("Showing 240 of 100,000 clips: a sample")
    cards = page.nodes(".card")
    assert len(cards) == 240
    assert {(card.attributes["data-outcome"], card.attributes["data-reason"] or "") for card in cards} == set(counts)
    assert len(page.html.encode()) < MOST_BYTES
    assert peak(out) - peak(small) < 64_000  # the other rows as objects are more than twice that


def test_the_worst_that_240_cards_can_hold_is_below_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = '[{"scene": "S", "reason": "S"}, {"scene": "S", "reason": "S"}, {"scene": "S", "reason": "S"}]'
    texts = dict.fromkeys(("detail", "caption", "scene_description", "verdict_reason", "source"), WORST)
    turned_down = attempts.replace("S", "&" * 10_000)
    rows = [row(number, verdict="Pass", turned_down=turned_down, **texts) for number in range(240)]
    strip = Filmstrip((bytes(8 << 10),) * FRAMES)
    cards = [make.make_card(each, strip, 16) for each in rows]
    facts = make.PageFacts(CONFIG, "f" * 64, 240, make.Counts(), None)
    facts.counts.add(rows)
    page = Page(make.render(facts, cards))
    assert len(page.nodes(".card")) == 240
    assert len(page.html.encode()) < MOST_BYTES
