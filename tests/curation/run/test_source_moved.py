"""A source that was copied, moved, or is gone: what is common to all clips is no clip's fault."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from nextscene.common.errors import RunStopped, UsageError
from nextscene.common.storage import Storage, StorageFault
from nextscene.curation.ledger import SCHEMA, read_ledger, write_ledger
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.run.locations import open_source_and_out
from nextscene.curation.run.prepare import prepare
from nextscene.curation.sources import Source
from nextscene.pipelines.build_nsp import main
from nextscene.shards.format.layout import PLAN, UNIT_LEDGERS
from tests.command import SMALL_FLAGS
from tests.fakes.loopback import CLAUDE, judge_budget
from tests.support import SMALL, build_inline, ledger, make_video, problems, write_csv

pytestmark = pytest.mark.slow

COUNT = 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six videos with captions."""
    source = tmp_path / "in"
    for number in range(COUNT):
        make_video(source / f"{number}.mp4", 0.25, "832x480", "16", "-metadata", f"title={number}")
        (source / f"{number}.txt").write_text(f"word{number} thing{number}")
    return source


def planned(source: Path, out: Path) -> RecordedConfig:
    return prepare(Storage.at(out), Source.at(str(source)), SMALL)


def ends(source: Path, out: Path) -> list[str]:
    build_inline(source, out, SMALL)
    return [f"{row.outcome} {row.reason}".strip() for row in ledger(out)]


def again(source: Path) -> None:
    """Copied: other times, the same bytes."""
    for file in source.rglob("*.mp4"):
        os.utime(file, ns=(1, 10**18))


def test_a_source_that_was_copied_again_is_accepted_and_counted(folder: Path, tmp_path: Path) -> None:
    calm, out = tmp_path / "calm", tmp_path / "out"
    build_inline(folder, calm, SMALL)
    planned(folder, out)
    again(folder)
    summary = build_inline(folder, out, SMALL)
    assert (summary.count("kept"), summary.retimed) == (COUNT, COUNT)
    assert [row.remark for row in ledger(out)] == ["retimed"] * COUNT
    assert not problems(out, SMALL)
    for tar in calm.rglob("*.tar"):
        assert (out / tar.relative_to(calm)).read_bytes() == tar.read_bytes()


def test_what_was_copied_again_is_counted_whatever_its_end(folder: Path, tmp_path: Path) -> None:
    """But not where its file is not looked at, or is another."""
    make_video(folder / "1.mp4", 0.25, "64x48")
    (folder / "2.mp4").write_bytes(b"no video")
    (folder / "3.txt").write_bytes(b"\xff")
    planned(folder, tmp_path / "out")
    again(folder)
    (folder / "4.mp4").unlink()
    summary = build_inline(folder, tmp_path / "out", SMALL)
    assert [(row.outcome, row.reason, row.remark) for row in ledger(tmp_path / "out")] == [
        ("kept", "", "retimed"),
        ("rejected", "too_small", "retimed"),
        ("rejected", "unreadable", "retimed"),
        ("failed", "bad_caption", ""),
        ("failed", "source_changed", ""),
        ("kept", "", "retimed"),
    ]
    assert summary.retimed == 4
    given = ["--source", str(folder), "--out", str(tmp_path / "out"), *SMALL_FLAGS]
    for command in (given, ["--out", str(tmp_path / "out"), "--status"]):
        told = CliRunner(env={"COLUMNS": "200"}).invoke(main, command)
        assert "\nretimed   4 clips of files with another time than planned" in told.stdout


def test_spans_with_a_flaw_are_not_counted_beside_those_that_are_read(tmp_path: Path) -> None:
    make_video(tmp_path / "in" / "a.mp4", 0.5, "832x480")
    rows = [
        {"video": "a.mp4", "start": "0", "end": "0.25", "caption": "a caption"},
        {"video": "a.mp4", "start": "-1", "end": "0.5", "caption": "another"},
    ]
    source = write_csv(tmp_path / "in" / "clips.csv", rows)
    planned(source, tmp_path / "out")
    again(tmp_path / "in")
    build_inline(source, tmp_path / "out", SMALL)
    assert [(row.outcome, row.remark) for row in ledger(tmp_path / "out")] == [("kept", "retimed"), ("failed", "")]


def test_a_clip_that_a_mistake_of_ours_ends_is_counted_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(folder, tmp_path / "out")
    again(folder)

    def broken(*_: object) -> None:
        raise KeyError("a mistake")

    monkeypatch.setattr("nextscene.curation.stages.unit.conditioning_text", broken)
    summary = build_inline(folder, tmp_path / "out", SMALL)
    assert (summary.count("failed"), summary.retimed) == (COUNT, COUNT)


def test_one_file_that_was_written_anew_fails_alone(folder: Path, tmp_path: Path) -> None:
    planned(folder, tmp_path / "out")
    again(folder)
    file = folder / "3.mp4"
    size = file.stat().st_size
    file.write_bytes((folder / "2.mp4").read_bytes()[:size].ljust(size, b"\0"))
    (folder / "5.mp4").unlink()
    changed = "failed source_changed"
    assert ends(folder, tmp_path / "out") == ["kept", "kept", "kept", changed, "kept", changed]


def deleted(source: Path) -> None:
    for file in source.rglob("*.mp4"):
        file.unlink()


def replaced(source: Path) -> None:
    for file in source.rglob("*.mp4"):
        file.write_bytes(b"x" * (file.stat().st_size + 1))


def of_other_contents(source: Path) -> None:
    for file in source.rglob("*.mp4"):
        file.write_bytes(b"x" * file.stat().st_size)
        os.utime(file, ns=(1, 10**18))


def test_swapped_files_of_equal_size_and_time_are_detected_by_contents(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for number in range(COUNT):
        make_video(source / f"{number}.mp4", 0.25, "832x480", "16", "-metadata", f"title={number}")
        (source / f"{number}.txt").write_text(f"word{number} thing{number}")
    largest = max(file.stat().st_size for file in source.glob("*.mp4"))
    for file in source.glob("*.mp4"):
        with file.open("ab") as padded:
            padded.write(b"\0" * (largest - file.stat().st_size))
    again(source)
    planned(source, out)
    contents = [(source / f"{number}.mp4").read_bytes() for number in (1, 2)]
    for number, content in zip((2, 1), contents, strict=True):
        (source / f"{number}.mp4").write_bytes(content)
    again(source)
    good, bad = "kept", "failed source_changed"
    assert ends(source, out) == [good, bad, bad, good, good, good]


@pytest.mark.parametrize("happens", [deleted, replaced, of_other_contents])
def test_a_source_that_is_gone_as_a_whole_stops_the_run_and_fails_no_clip(
    happens: Callable[[Path], None], folder: Path, tmp_path: Path
) -> None:
    planned(folder, tmp_path / "out")
    shutil.copytree(folder, tmp_path / "kept")
    happens(folder)
    with pytest.raises(StorageFault, match=r"is not the one that was planned: .* is the right disk mounted"):
        build_inline(folder, tmp_path / "out", SMALL)
    assert ledger(tmp_path / "out") == []
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "kept", folder)
    assert ends(folder, tmp_path / "out") == ["kept"] * COUNT


@pytest.fixture
def single(tmp_path: Path) -> dict[str, Path]:
    """The same video as a file of its own, as the only one of a table, and as that of a tar."""
    video = make_video(tmp_path / "in" / "a.mp4", 0.5, "832x480")
    video.with_suffix(".txt").write_text("a caption")
    rows = [{"video": "a.mp4", "start": start, "end": start + 0.25, "caption": "a caption"} for start in (0, 0.25)]
    with tarfile.open(tmp_path / "in" / "a.tar", "w") as tar:
        tar.add(video, "a.mp4")
        tar.add(video.with_suffix(".txt"), "a.txt")
    return {"video": video, "table": write_csv(tmp_path / "in" / "clips.csv", rows), "tar": tmp_path / "in" / "a.tar"}


def written_anew(file: Path) -> None:
    file.write_bytes(b"another")


@pytest.mark.parametrize(
    ("kind", "happens"),
    [("video", written_anew), ("table", written_anew), ("table", Path.unlink), ("tar", written_anew)],
)
def test_a_changed_source_of_one_file_stops_the_run_with_remedies(
    kind: str, happens: Callable[[Path], None], single: dict[str, Path], tmp_path: Path
) -> None:
    source, out = single[kind], tmp_path / "out"
    planned(source, out)
    happens(single["tar" if kind == "tar" else "video"])
    with pytest.raises(StorageFault, match="is the right disk mounted") as told:
        build_inline(source, out, SMALL)
    assert "put back what was planned; if it was changed on purpose, plan it anew into another `out`" in str(told.value)
    assert ledger(out) == []


def test_a_moved_source_goes_on_and_another_does_not(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = planned(folder, out)
    plan = (out / PLAN).read_bytes()
    moved = tmp_path / "moved"
    folder.rename(moved)
    assert ends(moved, out) == ["kept"] * COUNT
    recorded = RecordedConfig.read(Storage.at(out))
    assert recorded and recorded.source == str(moved) and recorded.fingerprint == before.fingerprint
    assert (out / PLAN).read_bytes() == plan
    other = tmp_path / "other"
    shutil.copytree(moved, other)
    (other / "2.mp4").write_bytes(b"shorter")
    (other / "5.mp4").unlink()
    with pytest.raises(UsageError, match=r"is another source: 1 clip gone \(5.mp4\), 1 clip of another size \(2.mp4\)"):
        planned(other, out)


def test_whether_a_source_has_moved_is_seen_without_reading_its_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(folder, tmp_path / "out")
    folder.rename(tmp_path / "moved")
    monkeypatch.setattr("nextscene.curation.sources.digests", None)
    assert planned(tmp_path / "moved", tmp_path / "out").source == str(tmp_path / "moved")


def test_a_moved_source_without_captions_goes_on_as_it_was_planned(folder: Path, tmp_path: Path) -> None:
    """What was to become of them was said when it was planned, and need not be said again."""
    (folder / "3.txt").unlink()
    out = Storage.at(tmp_path / "out")
    prepare(out, Source.at(str(folder)), CLAUDE, judge_budget(uncaptioned="caption"))
    out.write(f"{UNIT_LEDGERS}/begun", b"")
    folder.rename(tmp_path / "moved")
    recorded = prepare(out, Source.at(str(tmp_path / "moved")), CLAUDE, judge_budget())
    assert recorded.source == str(tmp_path / "moved")


def test_a_source_that_is_not_there_is_the_machines_fault_where_it_was_planned(folder: Path, tmp_path: Path) -> None:
    planned(folder, tmp_path / "out")
    folder.rename(tmp_path / "away")
    with pytest.raises(RunStopped, match=r"is not there, and .* was planned from it; mount its disk"):
        open_source_and_out(str(folder), str(tmp_path / "out"), SMALL)
    with pytest.raises(UsageError, match="no such file or folder"):
        open_source_and_out(str(folder), str(tmp_path / "new"), SMALL)


def test_the_digest_is_of_the_first_and_the_last_mebibyte(tmp_path: Path) -> None:
    mebibyte = 1 << 20
    for size in (0, 5, mebibyte, mebibyte + 3, 2 * mebibyte, 2 * mebibyte + 1, 5 * mebibyte):
        data = hashlib.shake_128(str(size).encode()).digest(size)
        ends_of = data if size <= 2 * mebibyte else data[:mebibyte] + data[-mebibyte:]
        (tmp_path / "a.mp4").write_bytes(data)
        (clip,) = Source.at(str(tmp_path / "a.mp4")).clips()
        assert clip.digest == hashlib.sha256(ends_of).hexdigest()


def test_a_ledger_of_the_version_before_is_read(tmp_path: Path, folder: Path) -> None:
    build_inline(folder, tmp_path / "out", SMALL)
    out, (path,) = Storage.at(tmp_path / "out"), list((tmp_path / "out" / "ledger").rglob("*.parquet"))[:1]
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["remark"]), path)
    rows = read_ledger(out, str(path.relative_to(tmp_path / "out")))
    assert rows and all(row.remark == "" for row in rows)
    assert set(SCHEMA.names) - set(pq.read_schema(path).names) == {"remark"}
    assert write_ledger(out, "again.parquet", rows)
