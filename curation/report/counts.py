"""Counts of all committed clips for the page, made one ledger file at a time in constant memory."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from nextscene.common.errors import DamagedRecord
from nextscene.curation.ledger import RETIMED, Row, Tally
from nextscene.curation.outcome import OUTCOMES

MAX_WORDS = 200
"""Longer texts are counted with this length, so that a histogram has few bins."""


@dataclass
class Counts:
    """Exact sums over the ledger. `frames`, `*_words` and `kept_by_*` are of kept clips, `short_sides` of all measured.

    `short_sides` maps (pixels of the shorter side, kept) to clips. `scene_words` and `caption_words` map a number of
    words to clips. `passed_in` maps the round of a Pass, from 1, to clips, including those that failed later.
    """

    tally: Tally = field(default_factory=Tally.empty)
    kept_by_split: Counter[str] = field(default_factory=Counter)
    passed_in: Counter[int] = field(default_factory=Counter)
    frames: Counter[int] = field(default_factory=Counter)
    short_sides: Counter[tuple[int, bool]] = field(default_factory=Counter)
    scene_words: Counter[int] = field(default_factory=Counter)
    caption_words: Counter[int] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    captioned_by: Counter[str] = field(default_factory=Counter)
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    _sources: array[int] = field(default_factory=lambda: array("Q"))
    _last_source: str | None = None

    def add(self, rows: Iterable[Row]) -> None:
        """Count the rows of one ledger file. Raise DamagedRecord if a clip has an unknown outcome."""
        for row in rows:
            if row.outcome not in OUTCOMES:
                raise DamagedRecord(f"the ledger ends clip {row.clip_id} in {row.outcome!r}, which is not an outcome")
            self.tally.add([row])
            self._add(row)

    def _add(self, row: Row) -> None:
        self._note_source(row.source)
        self.input_tokens += row.input_tokens
        self.output_tokens += row.output_tokens
        self.usd += row.usd
        if row.captioned_by:
            self.captioned_by[row.captioned_by] += 1
        if row.verdict:
            self.models[row.judge_model] += 1
        if row.verdict == "Pass":
            self.passed_in[row.rounds] += 1
        if row.source_width > 0 and row.source_height > 0:
            self.short_sides[min(row.source_width, row.source_height), row.kept] += 1
        if row.kept:
            self.kept_by_split[row.split] += 1
            self.frames[row.frames] += 1
            self.caption_words[word_count(row.caption)] += 1
            if row.scene_description:
                self.scene_words[word_count(row.scene_description)] += 1

    def _note_source(self, source: str) -> None:
        # The clips of one video mostly follow each other, so that this takes a few bytes per video.
        if source != self._last_source:
            self._sources.append(int.from_bytes(hashlib.sha256(source.encode()).digest()[:8]))
            self._last_source = source

    @property
    def decided(self) -> int:
        return self.tally.total

    @property
    def kept(self) -> int:
        return self.tally.count("kept")

    @property
    def retimed(self) -> int:
        """Return how many clips have a file with another modification time than planned."""
        return self.tally.remarks[RETIMED]

    @property
    def sources(self) -> int:
        """Return the number of different source videos of the clips."""
        return len(np.unique(np.frombuffer(self._sources, dtype=np.uint64))) if self._sources else 0

    @property
    def kept_frames(self) -> int:
        return sum(frames * clips for frames, clips in self.frames.items())


def word_count(text: str) -> int:
    """Return the number of words, separated by white space, in a text; at most MAX_WORDS."""
    return min(len(text.split()), MAX_WORDS)
