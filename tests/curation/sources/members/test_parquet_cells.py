"""Cells of a Parquet table are read as Arrow reads the whole table, in bounded memory, and built as loose files are."""

from __future__ import annotations

import random
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.curation.sources import Source
from nextscene.curation.sources.members import DamagedMember, parquet_cells
from nextscene.curation.sources.members.parquet_cells import CellReader, cell_packing
from nextscene.curation.sources.tables import rows_without_cells
from tests.curation.sources.presets.public_sets import Videos
from tests.curation.sources.presets.test_presets import CONFIG
from tests.support import assert_conserved, build_inline, ledger

OBJECT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def written(path: Path, cells: list[bytes | None], **columns: list[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    video = [None if cell is None else {"bytes": cell, "path": None} for cell in cells]
    pq.write_table(pa.table({"video": pa.array(video, OBJECT), **columns}), path, row_group_size=3)
    return path


def test_a_folder_of_tables_is_built_as_its_files_would_be(tmp_path: Path) -> None:
    videos = Videos(tmp_path)
    cells: list[bytes | None] = [videos.good, None, b"", videos.torn, videos.other, videos.good]
    written(tmp_path / "set" / "data" / "train-00000-of-00001.parquet", cells, text=[*"abcdef"])
    images = pa.table({"image": pa.array([b"no image"], pa.binary()), "caption": ["an image"]})
    pq.write_table(images, tmp_path / "set" / "images.parquet")
    build_inline(f"hf-parquet:{tmp_path / 'set'}", tmp_path / "out", CONFIG)
    assert_conserved(tmp_path / "out", CONFIG)
    table = "data/train-00000-of-00001.parquet"
    rows = ledger(tmp_path / "out", CONFIG)
    assert [(row.source, row.outcome, row.reason, row.caption) for row in rows] == [
        (f"{table}/1", "kept", "", "a"),
        (f"{table}/2", "failed", "damaged_member", "b"),
        (f"{table}/3", "failed", "damaged_member", "c"),
        (f"{table}/4", "rejected", "unreadable", "d"),
        (f"{table}/5", "kept", "", "e"),
        (f"{table}/6", "kept", "", "f"),
        ("images.parquet/1", "rejected", "unreadable", "an image"),
    ]
    loose = tmp_path / "loose"
    loose.mkdir()
    for number, data in ((1, videos.good), (5, videos.other), (6, videos.good)):
        (loose / f"{number}.mp4").write_bytes(data)
        (loose / f"{number}.txt").write_text("abcdef"[number - 1])
    build_inline(loose, tmp_path / "out2", CONFIG)
    assert [row.mp4_sha256 for row in rows if row.kept] == [row.mp4_sha256 for row in ledger(tmp_path / "out2", CONFIG)]


@pytest.mark.parametrize("order", ["forward", "backward", "mixed"])
def test_cells_are_those_of_the_whole_table_in_any_order(order: str, tmp_path: Path) -> None:
    draw = random.Random(1)
    cells: list[bytes | None] = [draw.randbytes(draw.choice([1, 20, 5000])) for _ in range(20)]
    path = written(tmp_path / "t.parquet", cells)
    numbers = [*range(20)]
    if order == "mixed":
        draw.shuffle(numbers)
    with path.open("rb") as file:
        reader = CellReader(file, cell_packing("video.bytes"))
        for number in reversed(numbers) if order == "backward" else numbers:
            reader.copy(number, tmp_path / "cell")
            assert (tmp_path / "cell").read_bytes() == cells[number]
        with pytest.raises(DamagedMember, match="no row 21"):
            reader.copy(20, tmp_path / "cell")


def test_reading_forward_reads_each_row_group_once(tmp_path: Path) -> None:
    path = written(tmp_path / "t.parquet", [random.Random(n).randbytes(1 << 20) for n in range(12)])
    read = 0

    class Counted:
        def __init__(self, file: BinaryIO) -> None:
            self.file = file
            self.seek, self.tell, self.close = file.seek, file.tell, file.close
            self.closed = False

        def read(self, size: int = -1) -> bytes:
            nonlocal read
            data = self.file.read(size)
            read += len(data)
            return data

    with path.open("rb") as file:
        reader = CellReader(Counted(file), cell_packing("video.bytes"))  # type: ignore[arg-type]
        for number in range(12):
            reader.copy(number, tmp_path / "cell")
    assert read < 1.2 * path.stat().st_size


def test_a_damaged_table_ends_its_clips_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "t.parquet", [bytes([n]) * 5000 for n in range(9)])
    data = bytearray(path.read_bytes())
    data[20:60] = b"\xff" * 40
    path.write_bytes(data)
    with path.open("rb") as file:
        reader = CellReader(file, cell_packing("video.bytes"))
        with pytest.raises(DamagedMember, match="cannot be read"):
            reader.copy(0, tmp_path / "cell")
        reader.copy(8, tmp_path / "cell")
        assert (tmp_path / "cell").read_bytes() == b"\x08" * 5000


def test_planning_reads_no_cell_and_names_no_bytes(tmp_path: Path) -> None:
    written(tmp_path / "set" / "t.parquet", [b"secret" * 4_000_000], text=["one"])
    [clip] = Source.at(f"hf-parquet:{tmp_path / 'set'}").clips()
    assert (clip.name, clip.caption, clip.offset, clip.packed) == ("t.parquet/1", "one", 0, "parquet:video.bytes")
    pq.write_table(pa.table({"video": pa.array([b"secret"], pa.binary())}), tmp_path / "set" / "t.parquet")
    with pytest.raises(UsageError, match=r"6 bytes.*hf-parquet") as error:
        list(Source.at(str(tmp_path / "set" / "t.parquet")).clips())
    assert "secret" not in str(error.value)


def test_a_table_without_such_cells_is_refused_with_its_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"video": ["a path"], "text": ["one"]}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=r"no column 'video' or 'image' with the bytes.*it has video, text"):
        rows_without_cells(Storage.at(tmp_path), "t.parquet", ["video", "image"])


def test_a_table_of_cells_alone_has_rows_too(tmp_path: Path) -> None:
    pq.write_table(pa.table({"video": pa.array([b"a", b"b"], pa.binary())}), tmp_path / "t.parquet")
    leaf, rows = rows_without_cells(Storage.at(tmp_path), "t.parquet", ["image", "video"])
    assert leaf == "video"
    assert list(rows) == [("row 1", {"key": "t.parquet/1"}), ("row 2", {"key": "t.parquet/2"})]


def test_a_row_group_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_cells, "MAX_GROUP_BYTES", 1000)
    with (
        written(tmp_path / "t.parquet", [b"x" * 2000]).open("rb") as file,
        pytest.raises(DamagedMember, match="smaller"),
    ):
        CellReader(file, cell_packing("video.bytes")).copy(0, tmp_path / "cell")
