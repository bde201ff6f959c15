"""Rows joined with files: what is found, what is not, what is there twice, and the order of originals."""

from __future__ import annotations

import json
import random
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nextscene.common.config_loader import from_tree
from nextscene.common.errors import UsageError
from nextscene.common.predicate import Predicate
from nextscene.common.storage import Storage
from nextscene.curation.sources.clip import Clip
from nextscene.curation.sources.mapping.clip_spool import SeenIds, sorted_by_group
from nextscene.curation.sources.mapping.clips import LayoutSource
from nextscene.curation.sources.mapping.layout import Layout
from nextscene.curation.sources.mapping.member_index import join_key
from nextscene.curation.sources.skipped_files import SkippedFiles


def write_rows(folder: Path, rows: list[Any], name: str = "rows.jsonl") -> None:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / name).write_text("\n".join(lines) + "\n")


def source(folder: Path, members: list[str], **more: Any) -> LayoutSource:
    tree = {"members": {"files": members}, "table": {"files": ["rows.jsonl", "other*.jsonl"]}, **more}
    return LayoutSource(Storage.at(folder), from_tree(Layout, tree, "test"))


def ends(given: LayoutSource, skipped: SkippedFiles | None = None) -> dict[str, str]:
    """Return name → flaw of each clip, or the place of its file."""
    return {clip.name: clip.flaw or clip.location for clip in given.clips(skipped or SkippedFiles())}


@pytest.mark.parametrize(
    ("by", "name", "key"),
    [
        ("name", "./a//b.mp4", "a/b.mp4"),
        ("basename", "a/b.mp4", "b.mp4"),
        ("stem", "a/b.mp4", "b"),
        ("stem", "a/b.v2", "b.v2"),
        ("stem", "a/b", "b"),
        ("stem", "a/b.c.MP4", "b.c"),
    ],
)
def test_a_key_is_the_part_of_a_name_that_the_join_is_by(by: Any, name: str, key: str) -> None:
    assert join_key(name, by) == key


def test_files_of_the_same_name_are_ambiguous_unless_they_are_equal(tmp_path: Path) -> None:
    for number, (a, b) in enumerate([(b"one", b"same"), (b"two", b"same")]):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w", zipfile.ZIP_DEFLATED if number else 0) as archive:
            archive.writestr(f"{number}/a.mp4", a * 99)
            archive.writestr(f"{number}/b.mp4", b * 99)
            archive.writestr(f"{number}/notes.txt", "passed over")
    write_rows(tmp_path, [{"video": name, "caption": "words"} for name in ("a.mp4", "b.mp4", "c.mp4")])
    skipped = SkippedFiles()
    found = ends(source(tmp_path, ["*.zip"], join={"by": "basename"}), skipped)
    assert found == {"a.mp4": "ambiguous_file", "b.mp4": "0.zip", "c.mp4": "absent"}
    assert skipped.counts == {".txt": 2}
    assert ends(source(tmp_path, ["*.zip"]))["a.mp4"] == "absent"


def test_a_file_that_two_patterns_match_is_one(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "a.mp4").write_bytes(b"x")
    (tmp_path / "v" / "lost.mp4").write_bytes(b"x")
    write_rows(tmp_path, [{"video": "v/a.mp4"}])
    skipped = SkippedFiles()
    assert ends(source(tmp_path, ["v/*", "**/a.mp4"]), skipped) == {"v/a.mp4": "v/a.mp4"}
    assert skipped.counts == {"that no row names": 1}


def test_one_bad_item_is_one_clip_that_ends_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    rows: list[Any] = [{"video": "a.mp4", "caption": "words"}, "{broken", {"video": ["a.mp4"]}, {"video": None}]
    rows += [{"video": "../a.mp4"}, {"video": "a.mp4", "caption": 7}, {"video": "a.mp4", "caption": "again"}]
    write_rows(tmp_path, rows)
    clips = list(source(tmp_path, ["*.mp4", "*.zip"]).clips(SkippedFiles()))
    assert [clip.flaw for clip in clips] == [
        "archive_incomplete",
        "",
        *["bad_row"] * 3,
        "absent",
        "bad_row",
        "duplicate_row",
    ]
    assert len({clip.clip_id for clip in clips}) == len(clips)
    assert all("\n" not in clip.flaw_detail and len(clip.flaw_detail) < 500 for clip in clips)


def test_a_missing_column_or_table_is_one_error_with_what_is_there(tmp_path: Path) -> None:
    write_rows(tmp_path, [{"vidoe": "a.mp4", "score": 1}])
    with pytest.raises(UsageError, match=r"no column 'video' \(it has vidoe, score\); is 'vidoe' meant\?"):
        ends(source(tmp_path, ["*.mp4"]))
    named = source(tmp_path, ["*.mp4"], map={"video": "{vidoe}"})
    with pytest.raises(UsageError, match="no row has a column"):
        ends(replace(named, wheres=(Predicate.parse("scroe > 1"),)))
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(UsageError, match=r"no table rows\.jsonl or other\*\.jsonl in it; there has nothing"):
        ends(named)
    (tmp_path / "rows.jsonl").write_text("no json\n" * 200)
    with pytest.raises(UsageError, match="its first 100 rows cannot be read; is it a table"):
        ends(named)


def test_without_members_a_row_names_a_file_below_the_source(tmp_path: Path) -> None:
    write_rows(tmp_path, [{"video": "v/a.mp4"}, {"video": "v/b.mp4"}], "other1.jsonl")
    write_rows(tmp_path, [{"video": "v/c.mp4"}], "other2.jsonl")
    assert ends(source(tmp_path, [])) == {f"v/{name}.mp4": f"v/{name}.mp4" for name in "abc"}


def test_predicates_of_layout_and_command_both_count(tmp_path: Path) -> None:
    write_rows(tmp_path, [{"video": f"{number}.mp4", "n": number} for number in range(6)])
    given = replace(source(tmp_path, [], map={"where": "n >= 2"}), wheres=(Predicate.parse("n <= 3"),))
    assert {*ends(given)} == {"2.mp4", "3.mp4"}


def test_clips_of_one_original_are_together_in_order(tmp_path: Path) -> None:
    """Compared with Python's own stable sort."""
    lots = random.Random(4)
    clips = [
        (Clip(f"{n}.mp4", f"{n}", f"{n}.mp4", group=f"g{lots.randrange(9)}", caption="c"), float(lots.randrange(4)))
        for n in range(200)
    ]
    firsts: dict[str, int] = {}
    for number, (clip, _) in enumerate(clips):
        firsts.setdefault(clip.original, number)
    expected = sorted(clips, key=lambda pair: (firsts[pair[0].original], pair[1]))
    assert [*sorted_by_group(clips, tmp_path / "spool")] == [clip for clip, _ in expected]


def test_an_order_that_the_layout_gives_sorts_the_originals(tmp_path: Path) -> None:
    rows = [{"video": f"{film}-{part}.mp4", "film": film, "part": part} for part in (2, 0, 1) for film in "ab"]
    write_rows(tmp_path, rows)
    given = source(tmp_path, [], map={"group": "{film}", "order": "part"})
    assert [*ends(given)] == ["a-0.mp4", "a-1.mp4", "a-2.mp4", "b-0.mp4", "b-1.mp4", "b-2.mp4"]


def test_an_id_is_new_once(tmp_path: Path) -> None:
    seen = SeenIds(tmp_path / "ids")
    ids = [f"{number % 7:024x}" for number in range(20)]
    assert Counter(seen.add(one) for one in ids) == {True: 7, False: 13}


def test_a_third_file_of_other_bytes_makes_a_name_ambiguous(tmp_path: Path) -> None:
    for number, data in enumerate([b"same", b"same", b"other"]):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as archive:
            archive.writestr(f"{number}/a.mp4", data)
    write_rows(tmp_path, [{"video": "a.mp4"}])
    assert ends(source(tmp_path, ["*.zip"], join={"by": "basename"})) == {"a.mp4": "ambiguous_file"}
    for name in ("v/a.mp4", "w/a.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    assert ends(source(tmp_path, ["w/*", "**/*.mp4"], join={"by": "basename"})) == {"a.mp4": "ambiguous_file"}


def test_a_thumbnail_does_not_stand_in_for_a_video(tmp_path: Path) -> None:
    for name in ("x.jpg", "y.mp4", "y.jpg", "z", "z.png"):
        (tmp_path / name).write_bytes(b"x")
    write_rows(tmp_path, [{"video": name} for name in ("x.mp4", "y.mp4", "z", "x.jpg")])
    found = ends(source(tmp_path, ["[xyz]*"], join={"by": "stem"}))
    assert found == {"x.mp4": "absent", "y.mp4": "y.mp4", "z": "z", "x.jpg": "x.jpg"}


def test_rows_that_name_one_file_differently_are_of_one_original(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "a.mp4").write_bytes(b"x")
    rows = [{"video": name, "s": n, "e": n + 1} for n, name in enumerate(("a.mp4", "x/a.mp4", "y//a.mp4"))]
    write_rows(tmp_path, [*rows, {**rows[0], "video": "z/a.mp4"}])
    clips = list(source(tmp_path, ["v/*"], join={"by": "basename"}, map={"span": ["s", "e"]}).clips(SkippedFiles()))
    assert {clip.original for clip in clips} == {"a.mp4"}
    assert [clip.flaw for clip in clips] == ["", "", "", "duplicate_row"]
