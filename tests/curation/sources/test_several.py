"""Several sources in one dataset."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nextscene.common.config_loader import SettingsError
from nextscene.common.errors import UsageError
from nextscene.curation.sources.several import SourceFile, join_locations, source_at
from tests.fakes.without_ray import build, command, without_ray
from tests.support import SMALL, assert_conserved, build_inline, ledger, make_video, write_csv


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `a`, a tar-free folder `b` with a file of the same name, and a manifest of two spans."""
    folder = tmp_path_factory.mktemp("sources")
    for place, size in (("a/x.mp4", "96x64"), ("a/y.mp4", "96x64"), ("b/x.mp4", "128x96"), ("m/z.mp4", "96x64")):
        make_video(folder / place, 0.5, size)
        (folder / place).with_suffix(".txt").write_text(f"caption of {place}")
    rows = [
        {"video": "z.mp4", "start": start, "end": end, "caption": "z", "n": start}
        for start, end in ((0, 0.2), (0.2, 0.5))
    ]
    write_csv(folder / "m" / "clips.csv", rows)
    return folder


def places(folder: Path, *names: str) -> str:
    return join_locations(str(folder / name) for name in names)


TINY = replace(
    SMALL, rules=replace(SMALL.rules, min_width=64, min_height=48), encode=replace(SMALL.encode, width=64, height=48)
)


def test_the_clips_of_all_are_built_and_each_names_its_source(sources: Path, tmp_path: Path) -> None:
    build_inline(places(sources, "a", "b", "m/clips.csv"), tmp_path / "out", TINY)
    rows = ledger(tmp_path / "out", TINY)
    assert [(row.source, row.outcome, row.caption) for row in rows] == [
        ("x.mp4", "kept", "caption of a/x.mp4"),
        ("y.mp4", "kept", "caption of a/y.mp4"),
        ("b:x.mp4", "kept", "caption of b/x.mp4"),
        ("clips:z.mp4", "kept", "z"),
        ("clips:z.mp4", "kept", "z"),
    ]
    assert [row.source_width for row in rows] == [96, 96, 128, 96, 96]
    assert_conserved(tmp_path / "out", TINY)


def test_adding_a_source_changes_no_clip_of_those_before_it(sources: Path) -> None:
    one, two, three = (
        [clip.clip_id for clip in source_at(places(sources, *names)).clips()]
        for names in (["a"], ["a", "b"], ["a", "b", "m/clips.csv"])
    )
    assert two[: len(one)] == one and three[: len(two)] == two and len({*three}) == 5


def test_a_dataset_of_several_is_continued_by_its_name_alone(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    shutil.copytree(sources, tmp_path / "in")
    flags = ["--judge", "none", "--rules.min-width", "64", "--rules.min-height", "48"]
    flags += ["--encode.width", "64", "--encode.height", "48", "--test", "0"]
    out, given = tmp_path / "out", ["--source", tmp_path / "in" / "a", "--source", tmp_path / "in" / "b"]
    build(*given, "--out", out, *flags, "--stop-after", "1")
    assert "3 in shards" in build("--out", out)
    assert "the source is as it was planned" in build("--out", out)
    assert "is another source: 1 clip gone (b:x.mp4)" in command(*given[:2], "--out", out).stderr
    (tmp_path / "in" / "b" / "x.mp4").rename(tmp_path / "in" / "b" / "new.mp4")
    said = build("--out", out)
    assert "1 clip new (b:new.mp4), 1 clip gone (b:x.mp4)" in said
    shutil.move(tmp_path / "in" / "b", tmp_path / "in" / "moved")
    assert "is not there" in build("--out", out)


def test_a_file_sets_each_source_apart(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)
    file = tmp_path / "sources.toml"
    file.write_text(
        f"""
        [[source]]
        path = "{sources / "a"}"
        limit = 1
        [[source]]
        path = "{sources / "b"}"
        name = "bees"
        [[source]]
        path = "{sources / "m" / "clips.csv"}"
        where = "n > 0"
        """
    )
    flags = ["--judge", "none", "--rules.min-width", "64", "--rules.min-height", "48", "--test", "0"]
    assert "3 in shards" in build("--sources", file, "--out", tmp_path / "out", *flags)
    assert [row.source for row in ledger(tmp_path / "out")] == ["x.mp4", "bees:x.mp4", "clips:z.mp4"]
    assert "Nothing to do" in build("--out", tmp_path / "out")
    both = command("--sources", file, "--source", sources / "a", "--out", tmp_path / "o2")
    assert both.exit_code == 2 and "--sources names all sources; leave --source out" in both.stderr
    file.write_text(file.read_text().replace("limit = 1", "limit = 2"))
    assert "holds another plan: source_settings is" in command("--sources", file, "--out", tmp_path / "out").stderr


def test_a_limit_and_a_predicate_hold_for_all(sources: Path) -> None:
    whole = source_at(places(sources, "a", "b", "m/clips.csv"))
    few = replace(whole, selection=replace(whole.selection, limit=4))
    assert [clip.name for clip in few.clips()] == ["x.mp4", "y.mp4", "b:x.mp4", "clips:z.mp4"]
    drawn = replace(whole, selection=replace(whole.selection, limit=2, sample_seed=5))
    assert {clip.name for clip in drawn.clips()} <= {clip.name for clip in whole.clips()}
    assert len(list(drawn.clips())) == 2


@pytest.mark.parametrize(
    ("toml", "why"),
    [
        ("", "give each source as a table [[source]] with its path"),
        ("[[source]]\nname = 'a'", "give each source as a table [[source]] with its path"),
        ("[[source]]\npath = 'a'\nlimt = 3", "no setting 'limt'; is 'limit' meant?"),
        ("[[source]]\npath = 'a'\nlimit = -1", "limit must not be below 0"),
        ("[[source]]\npath = 'a'\nsample_seed = 1", "give limit too"),
        ("[[source]]\npath = 'a'\nwhere = 'a >'", "a >"),
        ("[source]\npath = 'a'", "source"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(toml: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "sources.toml").write_text(toml)
    with pytest.raises(UsageError) as error:
        SourceFile.read(tmp_path / "sources.toml")
    assert why in str(error.value)


def test_two_sources_of_one_name_are_refused(sources: Path, tmp_path: Path) -> None:
    shutil.copytree(sources / "a", tmp_path / "a")
    with pytest.raises(UsageError, match="two sources are called 'a'; give them names of their own"):
        source_at(join_locations([str(sources / "a"), str(tmp_path / "a")]))


def test_settings_read_back_without_paths(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("[[source]]\npath = 'a'\nlimit = 3\n[[source]]\npath = 'b'\nname = 'c'\n")
    found = SourceFile.read(tmp_path / "s.toml")
    assert found.locations == join_locations(["a", "b"]) and "path" not in json.loads(found.text)["source"][0]
    again = SourceFile.of_text(found.text)
    assert [one.limit for one in again.source] == [3, 0] and again.source[1].name == "c"
    with pytest.raises(SettingsError):
        SourceFile.of_text('{"source": [{"limt": 3}]}')
