"""What of a source no clip is made of is counted: by the source, in the plan, and wherever a run gives an account."""

from __future__ import annotations

import io
import json
import os
import random
import string
import tarfile
import tempfile
from collections import Counter
from pathlib import Path, PurePosixPath

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.common.storage import Storage
from nextscene.curation.plan import Plan
from nextscene.curation.sources import Clip, SkippedFiles, Source
from nextscene.curation.sources.caption_files import is_text
from nextscene.curation.sources.clip import MEDIA_SUFFIXES
from nextscene.curation.sources.skipped_files import MAX_KINDS
from nextscene.pipelines.build_nsp import main
from nextscene.shards.format.layout import PLAN
from tests.curation.planning import plan_of
from tests.curation.report.pages import report
from tests.fakes.loopback import CLAUDE_FLAGS
from tests.support import SMALL, build_inline, make_video, write_csv

pytestmark = pytest.mark.slow


def read(location: Path) -> tuple[list[Clip], dict[str, int]]:
    passed = SkippedFiles()
    found = list(Source.at(str(location)).clips(passed))
    return found, passed.counts


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def tar(path: Path, *names: str) -> Path:
    """Members of one byte each, which is a number of its own; `b -> a` is a hard link, `b => a` a symbolic one."""
    with tarfile.open(path, "w") as file:
        for number, name in enumerate(names):
            link, arrow, target = name.replace("=>", "->").partition(" -> ")
            info = tarfile.TarInfo(link)
            if arrow:
                info.type, info.linkname = (tarfile.SYMTYPE if "=>" in name else tarfile.LNKTYPE), target
                file.addfile(info)
            else:
                info.size = 1
                file.addfile(info, io.BytesIO(bytes([65 + number])))
    return path


# ---- folders ---------------------------------------------------------------------------------------------------


def test_a_folder_counts_all_that_is_no_clip_and_no_caption_of_one(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a.mp4",
        "a.txt",
        "b/a.GIF",
        "b/b.gif",
        "b/c.gif.txt",
        "notes",
        "c.tar.gz",
        "d.mp4",
        "d.txt",
        "d.caption",
        "orphan.txt",
        ".hidden.mp4",
        ".git/config",
        ".git/HEAD",
        "b/.c/a.mp4",
        "clips.csv",
        "x.mp4.part",
        "a. b",
    )
    found, counts = read(tmp_path)
    assert [clip.name for clip in found] == ["a.mp4", "d.mp4"]
    assert counts == {
        "hidden": 3,
        ".gif": 2,
        ".txt": 2,
        ".caption": 1,
        ".csv": 1,
        ".gz": 1,
        ".part": 1,
        "other suffixes": 1,
        "without a suffix": 1,
    }


stems = st.text(st.sampled_from("aA0 .é"), min_size=1, max_size=3).filter(lambda name: name.strip(".") != "")
suffixes = st.sampled_from(["", ".mp4", ".mkv", ".txt", ".TXT", ".caption", ".mp4.txt", ".gif"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.builds(str.__add__, stems, suffixes), max_size=12, unique=True))
def test_every_file_of_a_folder_is_a_clip_a_caption_or_counted(names: list[str]) -> None:
    """And the captions are those that a search in all names gives, whatever order the names stand in."""
    names = [name for name in names if name.strip(".")]
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            Path(folder, name).write_text(f"of {name}")
        found, counts = read(Path(folder))
    visible = [name for name in names if not name.startswith(".")]
    media = [name for name in visible if PurePosixPath(name).suffix.lower() in MEDIA_SUFFIXES]
    assert [clip.name for clip in found] == sorted(media, key=str.encode)
    used = {clip.name: beside(clip.name, visible) for clip in found}
    assert {clip.name: clip.caption for clip in found} == {name: text and f"of {text}" for name, text in used.items()}
    others = set(visible) - set(media) - set(used.values())
    assert sum(counts.values()) == len(others) + len(names) - len(visible)


def beside(video: str, names: list[str]) -> str:
    """The caption's name by a search in all names."""
    for stem in (video.rpartition(".")[0], video):
        for suffix in (".txt", ".caption"):
            alike = [name for name in names if name.rpartition(".")[0] == stem and name.lower().endswith(suffix)]
            alike = [name for name in alike if is_text(name)]
            if alike:
                return stem + suffix if stem + suffix in alike else min(alike)
    return ""


def test_few_kinds_are_told_apart_however_many_there_are() -> None:
    passed = SkippedFiles()
    chance = random.Random(0)
    for _ in range(20_000):
        passed.add("a." + "".join(chance.choices(string.ascii_lowercase + string.digits, k=3)))
    for _ in range(10):
        passed.add("a.a very long end of a name that is a sentence")
        passed.add("a.\x1b[31m")
    assert len(passed.counts) == MAX_KINDS + 1
    assert sum(passed.counts.values()) == 20_020


# ---- tars ------------------------------------------------------------------------------------------------------


def test_each_dotted_video_of_a_tar_is_a_clip_and_ids_of_others_stay(tmp_path: Path) -> None:
    names = [
        "in/clip.mp4",
        "in/clip.txt",
        "in/Movie.2019.1080p.mp4",
        "in/Movie.2019.1080p.txt",
        "in/Movie.2020.720p.MP4",
        "in/Movie.2020.720p.json",
        "in/Movie.mp4",
    ]
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as file:
        for name in names:
            data = b'{"caption": "of 2020"}' if name.endswith("json") else f"of {name}".encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    found, counts = read(path)
    assert {clip.name: clip.caption for clip in found} == {
        "a.tar/in/clip.mp4": "of in/clip.txt",
        "a.tar/in/Movie.2019.1080p.mp4": "of in/Movie.2019.1080p.txt",
        "a.tar/in/Movie.2020.720p.mp4": "of 2020",
        "a.tar/in/Movie.mp4": "",
    }
    assert counts == {}
    # As versions that knew no dotted names made it.
    assert found[0].clip_id == Clip("", "a.tar/in/clip.mp4", "").clip_id
    assert len({clip.offset for clip in found}) == 4


def test_dotted_videos_of_one_beginning_may_stand_apart(tmp_path: Path) -> None:
    found, _ = read(tar(tmp_path / "a.tar", "Movie.1.mp4", "b.mp4", "Movie.2.mp4"))
    assert [clip.name for clip in found] == ["a.tar/Movie.1.mp4", "a.tar/b.mp4", "a.tar/Movie.2.mp4"]


@pytest.mark.parametrize(
    ("names", "clips"),
    [
        (["a.mp4", "a.thumb.jpg", "a.left.png"], ["a.mp4"]),
        (["a.v1.mp4", "a.v1.jpg"], ["a.v1.mp4"]),
        (["a.left.jpg", "a.right.jpg"], ["a.left.jpg", "a.right.jpg"]),
        (["a.jpg", "a.mask.png"], ["a.jpg"]),
    ],
)
def test_a_dotted_image_is_a_clip_only_where_nothing_else_is(
    tmp_path: Path, names: list[str], clips: list[str]
) -> None:
    """Beside a video or an image of the plain name it is a part of that sample, as ever."""
    found, counts = read(tar(tmp_path / "x.tar", *names))
    assert [clip.name for clip in found] == [f"x.tar/{name}" for name in clips]
    assert sum(counts.values()) == len(names) - len(clips)


def test_a_tar_counts_what_it_passes_over(tmp_path: Path) -> None:
    names = ["a.mp4", "a.txt", "a.json", "a.cls", "a.seg.png", "b.gif", "._a.mp4", "README", "c.mp4 => a.mp4"]
    found, counts = read(tar(tmp_path / "x.tar", *names))
    assert [clip.name for clip in found] == ["x.tar/a.mp4"]
    assert counts == {
        ".cls": 1,
        ".gif": 1,
        ".json": 1,
        ".png": 1,
        "hidden": 1,
        "links and devices": 1,
        "without a suffix": 1,
    }


def test_a_hard_link_in_a_tar_is_the_file_it_leads_to(tmp_path: Path) -> None:
    """Also of a caption. One that leads nowhere, or onward, is counted."""
    names = [
        "in/a.mp4",
        "in/a.txt",
        "in/b.mp4 -> in/a.mp4",
        "in/b.txt -> ./in/a.txt",
        "c.mp4 -> gone.mp4",
        "d.mp4 -> in/e.mp4",
        "in/e.mp4",
    ]
    found, counts = read(tar(tmp_path / "x.tar", *names))
    a, b, e = found
    assert [clip.name for clip in found] == ["x.tar/in/a.mp4", "x.tar/in/b.mp4", "x.tar/in/e.mp4"]
    assert (b.offset, b.length, b.caption) == (a.offset, a.length, a.caption) == (a.offset, 1, "B")
    assert e.offset > a.offset and counts == {"links and devices": 2}


def test_hard_links_as_tar_itself_makes_them(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.mp4")
    os.link(tmp_path / "in" / "a.mp4", tmp_path / "in" / "b.mp4")
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        file.add(tmp_path / "in", "in")
    found, counts = read(tmp_path / "x.tar")
    assert sorted(clip.name for clip in found) == ["x.tar/in/a.mp4", "x.tar/in/b.mp4"]
    assert len({(clip.offset, clip.length) for clip in found}) == 1 and counts == {}


# ---- the account -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("passed")
    make_video(folder / "in" / "a.mp4", 0.2)
    (folder / "in" / "a.txt").write_text("it")
    touch(folder / "in", "b.gif", "c.gif", "more/.DS_Store")
    tar(folder / "in" / "x.tar", "a.mp4", "a.cls", "b.gif")
    build_inline(folder / "in", folder / "out", SMALL)
    return folder / "in", folder / "out"


COUNTS = {".gif": 3, ".cls": 1, "hidden": 1}
LINE = "passed over in the source: 3 .gif, 1 .cls, 1 hidden"


def test_the_counts_are_in_the_plan_the_summary_the_page_and_on_the_terminal(built: tuple[Path, Path]) -> None:
    source, out = built
    assert Plan(Storage.at(out), SMALL).passed_over == COUNTS
    assert json.loads((out / "summary.json").read_text())["passed_over"] == COUNTS
    assert (
        report(out, SMALL, source).text("#passed-over")
        == f"Files of the source that gave no clip: {LINE.partition(': ')[2]}."
    )
    said = CliRunner().invoke(main, ["--out", str(out), "--status"])
    assert (said.exit_code, LINE in said.stdout) == (0, True)
    again = ["--source", str(source), "--out", str(out), "--judge", "none", "--test", "0"]
    said = CliRunner().invoke(main, [*again, "--unit-size", "2", "--units-per-shard", "2"])
    assert "Nothing to do" in said.stdout and LINE in said.stdout


def test_an_estimate_counts_too(built: tuple[Path, Path], tmp_path: Path) -> None:
    given = ["--source", str(built[0]), "--out", str(tmp_path / "out"), *CLAUDE_FLAGS, "--estimate"]
    said = CliRunner().invoke(main, given)
    assert said.exit_code == 0 and LINE in said.stdout
    assert not (tmp_path / "out").exists()


def test_a_plan_of_an_older_version_opens_and_says_that_nothing_was_counted(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    """It lacks the columns and the notes."""
    new = ("flaw", "flaw_detail")
    table = pq.read_table(built[1] / PLAN).drop_columns(list(new))
    notes = pq.read_metadata(built[1] / PLAN).metadata
    kept = {key: value for key, value in notes.items() if key in (b"nextscene.shards", b"nextscene.uncaptioned")}
    with pq.ParquetWriter(tmp_path / PLAN, table.schema.remove_metadata()) as writer:
        writer.write_table(table.replace_schema_metadata(None))
        writer.add_key_value_metadata(kept)
    old, today = Plan(Storage.at(tmp_path), SMALL), Plan(Storage.at(built[1]), SMALL)
    assert (old.passed_over, old.skipped, old.uncaptioned) == (None, 0, today.uncaptioned)
    units = [[unit for shard, _ in plan.shards() for unit in plan.units(shard)] for plan in (old, today)]
    assert units[0] == units[1]
    (tmp_path / "config.toml").write_bytes((built[1] / "config.toml").read_bytes())
    said = CliRunner().invoke(main, ["--out", str(tmp_path), "--status"])
    assert (said.exit_code, "not counted" in said.stdout) == (0, True)
    assert "not counted" in report(tmp_path, SMALL).text("#passed-over")


def test_where_nothing_was_passed_over_no_line_says_so_and_the_page_does(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    build_inline(write_csv(tmp_path / "clips.csv", [{"video": "a.mp4", "caption": "x"}]), tmp_path / "out", SMALL)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["passed_over"] == {}
    said = CliRunner().invoke(main, ["--out", str(tmp_path / "out"), "--status"])
    assert "passed over" not in said.stdout
    assert report(tmp_path / "out", SMALL).text("#passed-over") == "Files of the source that gave no clip: nothing."


def test_the_counts_are_part_of_a_plan_that_is_the_same_for_the_same(tmp_path: Path) -> None:
    clips = [Clip("a.mp4", "a.mp4", "a.mp4", caption="x", size=1)]
    others = ["a.gif", "b.doc", "c.gif"]
    for name in ("one", "two"):
        plan = plan_of(clips, tmp_path / name, SMALL, others=others)
        assert plan.passed_over == dict(Counter({".gif": 2, ".doc": 1}))
    assert (tmp_path / "one" / PLAN).read_bytes() == (tmp_path / "two" / PLAN).read_bytes()


def test_a_pipe_that_is_named_as_a_tar_is_counted_and_never_opened(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    os.mkfifo(tmp_path / "p.tar")
    clips, counts = read(tmp_path)
    assert ([clip.name for clip in clips], counts) == (["a.mp4"], {"links and devices": 1})
