"""Folders in public forms are built by their presets, or by the maps in docs/sources.md."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.plan import Plan
from nextscene.curation.sources import SkippedFiles, Source
from nextscene.curation.sources.mapping.layout import Layout
from nextscene.curation.sources.presets import likely_presets
from tests.curation.sources.presets.public_forms import MAP_FORMS, PRESET_FORMS, Expected, put, tars_of_finetrainers
from tests.curation.sources.presets.public_sets import Videos
from tests.curation.sources.presets.test_presets import CONFIG
from tests.support import REPOSITORY, assert_conserved, build_inline, ledger

MOST_LINES = 10
MAPS = {
    re.split("[:,]", title)[0]: text
    for title, text in re.findall(
        r"^```toml\n# ([^\n]*)\n(.*?)^```$", (REPOSITORY / "docs" / "sources.md").read_text(), re.DOTALL | re.MULTILINE
    )
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Videos:
    return Videos(tmp_path_factory.mktemp("videos"))


def layout_text(text: str, folder: Path) -> str:
    """Return the setting `map` for a TOML text, as `--map` gives it."""
    file = folder / "map.toml"
    file.write_text(text)
    return Layout.read(file).text


def built(source: str, out: Path, config: BuildConfig) -> list[Expected]:
    """Build, check the account, and return what became of each clip, in the order of names and spans."""
    build_inline(source, out, config)
    assert_conserved(out, config)
    planned = {row["clip_id"]: row for row in Plan(Storage.at(out), config).rows()}
    found = [
        Expected(
            row.source,
            planned[row.clip_id]["caption"],
            row.outcome,
            row.reason,
            planned[row.clip_id]["start_ms"],
            planned[row.clip_id]["end_ms"],
            planned[row.clip_id]["provenance"],
        )
        for row in ledger(out, config)
    ]
    return in_order(found)


def in_order(clips: Sequence[Expected]) -> list[Expected]:
    return sorted(clips, key=lambda clip: (clip.source, clip.start_ms))


@pytest.mark.parametrize("name", PRESET_FORMS)
def test_a_form_is_built_by_its_preset(name: str, videos: Videos, tmp_path: Path) -> None:
    expected = PRESET_FORMS[name](tmp_path / "set", videos)
    assert built(f"{name}:{tmp_path / 'set'}", tmp_path / "out", CONFIG) == in_order(expected)
    assert likely_presets(Storage.at(tmp_path / "set")) == [name]


@pytest.mark.parametrize("name", MAP_FORMS)
def test_a_form_is_built_by_the_map_in_the_documents(name: str, videos: Videos, tmp_path: Path) -> None:
    expected = MAP_FORMS[name](tmp_path / "set", videos)
    text = MAPS[name]
    config = replace(CONFIG, map=layout_text(text, tmp_path))
    assert built(str(tmp_path / "set"), tmp_path / "out", config) == in_order(expected)
    assert len(text.splitlines()) <= MOST_LINES


def test_every_map_in_the_documents_is_tested() -> None:
    assert MAPS.keys() == MAP_FORMS.keys()


def test_members_called_video_are_videos_in_a_tar(videos: Videos, tmp_path: Path) -> None:
    expected = tars_of_finetrainers(tmp_path / "set", videos)
    assert built(str(tmp_path / "set"), tmp_path / "out", CONFIG) == expected


def test_a_thumbnail_beside_a_video_in_a_tar_is_passed_over(videos: Videos, tmp_path: Path) -> None:
    PRESET_FORMS["video2dataset"](tmp_path / "set", videos)
    skipped = SkippedFiles()
    list(Source.at(f"video2dataset:{tmp_path / 'set'}").clips(skipped))
    assert skipped.counts == {".json": 1, ".jpg": 1}


def test_a_likely_preset_is_named_as_a_warning_and_in_errors(
    videos: Videos, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    PRESET_FORMS["finetrainers"](tmp_path / "set", videos)
    put(tmp_path / "set", {"videos/1.txt": b"one"})
    build_inline(tmp_path / "set", tmp_path / "out", CONFIG)
    assert f"finetrainers:{tmp_path / 'set'}" in caplog.text
    put(tmp_path / "other", {"VidGen_1M_video_caption.json": b"[]"})
    with pytest.raises(UsageError, match=r"no videos.*VidGen-1M: name it vidgen:"):
        build_inline(tmp_path / "other", tmp_path / "out2", CONFIG)


@pytest.mark.parametrize(("rule", "caption"), [("keep", "one\n\n two "), ("first", "one"), ("join", "one two")])
def test_captions_of_several_lines_have_a_rule(rule: str, caption: str, videos: Videos, tmp_path: Path) -> None:
    put(tmp_path / "set", {"1.mp4": videos.good, "1.txt": b"\none\n\n two \n"})
    source = replace(Source.at(str(tmp_path / "set")), caption_lines=rule)
    assert [clip.caption for clip in source.clips()] == [caption.strip()]


def test_rows_of_hostile_values_each_end_alone(videos: Videos, tmp_path: Path) -> None:
    put(tmp_path / "set", {"1.mp4": videos.good})
    deep: object = "x"
    for _ in range(400):
        deep = [deep]
    values: list[object] = [
        "..",
        "../../../etc/passwd",
        "/dev/null",
        "foo://x",
        "s3://",
        ".",
        "",
        7,
        None,
        True,
        [1],
        {},
    ]
    values += [deep, "a\0b", "\udcff.mp4", "x" * 20_000, "1.mp4"]
    rows = [{"video": value, "caption": "c", "t": 0} for value in values]
    spans: list[object] = ["nan", -1, 1e300, [], {}, "1:2:3:4", True, "[[[[", "9" * 5000]
    rows += [{"video": "1.mp4", "caption": "c", "t": value} for value in spans]
    (tmp_path / "set" / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = 'table.files = ["*.jsonl"]\nmap.span = ["t"]\nmap.span_unit = "clock"\nmap.keep = ["video"]'
    config = replace(CONFIG, map=layout_text(text, tmp_path))
    clips = built(str(tmp_path / "set"), tmp_path / "out", config)
    assert len(clips) == len(rows)
    assert [clip.source for clip in clips if clip.outcome == "kept"] == ["1.mp4"]
