"""A dataset with every kind of ending and of caption, and its page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nextscene.curation.config import BuildConfig
from nextscene.curation.ledger import Row
from tests.curation.report.pages import HOSTILE, Page
from tests.support import make_video, write_csv

MARKERS = ("", "FAIL1", "FAIL2", "FAIL3", "REFUSE-DESCRIBE", "TRUNCATE-ALWAYS", "FAIL1 again", "")


@dataclass(frozen=True)
class Made:
    """A dataset, its rows and its page."""

    source: Path
    out: Path
    config: BuildConfig
    rows: list[Row]
    page: Page

    @property
    def kept(self) -> list[Row]:
        return [row for row in self.rows if row.kept]


def write_source(folder: Path) -> Path:
    """Clips that end in every way that the judge `claude` and the rules have, with captions of every kind."""
    captions = [f"A clip {marker}" for marker in MARKERS] + list(HOSTILE)
    make_video(folder / "film.mp4", len(captions) * 0.25)
    make_video(folder / "low.mp4", 0.25, "854x400")
    spans = [
        {"video": "film.mp4", "start": f"{i * 0.25:.2f}", "end": f"{(i + 1) * 0.25:.2f}", "caption": caption}
        for i, caption in enumerate(captions)
    ]
    others = [{"video": name, "caption": "nothing here"} for name in ("low.mp4", "gone<b>.mp4")]
    return write_csv(folder / "clips.csv", [*spans, *others])
