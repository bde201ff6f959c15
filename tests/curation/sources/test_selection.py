"""A part of a source: by a predicate, the first clips, or clips drawn by lot."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene.common.errors import UsageError
from nextscene.common.predicate import Predicate
from nextscene.curation.sources import Clip, Source
from nextscene.curation.sources.selection import Selection, columns_of, matching
from tests.support import write_csv

CLIPS = [Clip(f"{number}.mp4", f"{number}.mp4", f"{number}.mp4") for number in range(50)]


def names(clips: list[Clip], selection: Selection) -> list[str]:
    return [clip.name for clip in selection.limited(lambda: iter(clips))]


@given(st.integers(0, 60), st.integers(-1, 5), st.randoms(use_true_random=False))
def test_a_draw_takes_as_many_in_source_order(limit: int, seed: int, lots: random.Random) -> None:
    selection = Selection(limit=limit, sample_seed=seed if limit else -1)
    taken = names(CLIPS, selection)
    assert len(taken) == min(limit or len(CLIPS), len(CLIPS))
    assert taken == [clip.name for clip in CLIPS if clip.name in {*taken}]
    if selection.reads_twice:
        mixed = lots.sample(CLIPS, len(CLIPS))
        assert {*names(mixed, selection)} == {*taken}
    else:
        assert taken == [clip.name for clip in CLIPS[: limit or None]]


def test_clips_stay_drawn_when_the_limit_grows_and_others_come_in() -> None:
    few, more = ({*names(CLIPS, Selection(limit=limit, sample_seed=3))} for limit in (10, 20))
    assert few < more
    new = [Clip(f"new-{number}", f"new-{number}", "x") for number in range(50)]
    kept = {*names([*CLIPS, *new], Selection(limit=20, sample_seed=3))} - {clip.name for clip in new}
    assert kept <= more
    assert {*names(CLIPS, Selection(limit=10, sample_seed=4))} != few


def test_a_predicate_reads_own_columns_and_those_of_the_source(tmp_path: Path) -> None:
    rows = [
        {"video": "a.mp4", "start": "1", "end": "2.5", "caption": "a dog", "score": "5.5"},
        {"video": "b.mp4", "start": "", "end": "", "caption": "", "score": "7"},
        {"video": "c.mp4", "start": "", "end": "", "caption": "c", "score": ""},
    ]
    clips = list(Source.at(str(write_csv(tmp_path / "clips.csv", rows))).clips())
    for text, found in {
        "score >= 5.5": "ab",
        "score > 5.5": "b",
        "caption is null": "b",
        "end - 1 > 0": None,
        "end > 2 and start = 1": "a",
        "not (score > 6)": "ac",
        "video like '%.mp4' and score is null": "c",
    }.items():
        if found is None:
            with pytest.raises(UsageError):
                Predicate.parse(text)
            continue
        taken = matching(iter(clips), Predicate.parse(text), "here")
        assert "".join(clip.name[0] for clip in taken) == found, text
    assert columns_of(clips[0])["score"] == "5.5"


def test_a_column_that_no_clip_has_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="no clip has a column 'captoin', which `where` names; is 'caption' meant"):
        list(matching(iter(CLIPS), Predicate.parse("captoin is null"), "here"))


def test_a_row_that_cannot_be_read_is_never_left_out() -> None:
    bad = Clip("row 3", "row 3", "", flaw="bad_row")
    assert list(matching(iter([*CLIPS, bad]), Predicate.parse("video = 'x'"), "here")) == [bad]
