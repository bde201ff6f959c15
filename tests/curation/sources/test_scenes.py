"""Scenes of a source: read where they are wanted, provenance or nothing where they are not."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nextscene.common.errors import UsageError
from nextscene.common.text import MAX_TEXT_BYTES
from nextscene.curation.sources import Clip, Source
from nextscene.curation.sources.columns import likely_column
from tests.support import write_csv

SCENE = "A kettle begins to hum."


def clips(location: Path, scenes: bool = True) -> list[Clip]:
    return list(Source.at(str(location)).clips(scenes=scenes))


def read(row: bytes | dict[str, Any], folder: Path, scenes: bool = True) -> Clip:
    """Return the clip of one row: the bytes of the cell in a CSV, or the values of a line of JSON."""
    if isinstance(row, bytes):
        path = folder / "clips.csv"
        path.write_bytes(b'video,caption,scene\na.mp4,it hums,"' + row + b'"\n')
    else:
        path = folder / "clips.jsonl"
        path.write_text(json.dumps({"video": "a.mp4", "caption": "it hums", **row}) + "\n")
    (clip,) = clips(path, scenes)
    return clip


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_csv_jsonl_and_parquet_give_the_same_scenes(tmp_path: Path) -> None:
    rows = [
        {"video": "a.mp4", "caption": "it hums", "scene": f" {SCENE}\n", "by": "Ada"},
        {"video": "b.mp4", "caption": "it boils", "scene": None, "by": "Ada"},
    ]
    write_csv(tmp_path / "clips.csv", rows)
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "clips.parquet")
    found = [clips(tmp_path / f"clips.{suffix}") for suffix in ("csv", "jsonl", "parquet")]
    assert found[0] == found[1] == found[2]
    assert [(clip.scene, clip.provenance, clip.flaw) for clip in found[0]] == [
        (SCENE, '{"by": "Ada"}', ""),
        ("", '{"by": "Ada"}', ""),
    ]


def test_where_scenes_are_not_read_they_are_provenance_whatever_they_are(tmp_path: Path) -> None:
    assert read(SCENE.encode(), tmp_path, scenes=False).provenance == f'{{"scene": "{SCENE}"}}'
    clip = read({"scene": [1, {"a": None}]}, tmp_path, scenes=False)
    assert (clip.scene, clip.flaw, clip.provenance) == ("", "", '{"scene": [1, {"a": null}]}')


@pytest.mark.parametrize("cell", [b"", b" \t\r\n", "\u200b\ufeff\u2800".encode(), b"\x07\x1b"])
def test_a_cell_that_shows_nothing_is_no_scene(cell: bytes, tmp_path: Path) -> None:
    clip = read(cell, tmp_path)
    assert (clip.scene, clip.flaw, clip.caption) == ("", "", "it hums")


@pytest.mark.parametrize("values", [{}, {"scene": None}, {"scene": ""}])
def test_a_row_without_a_scene_has_none(values: dict[str, Any], tmp_path: Path) -> None:
    assert read(values, tmp_path).scene == ""


def test_nan_in_parquet_is_no_scene(tmp_path: Path) -> None:
    columns = {"video": ["a.mp4"], "caption": ["it hums"], "scene": pa.array([float("nan")])}
    pq.write_table(pa.table(columns), tmp_path / "clips.parquet")
    assert [clip.scene for clip in clips(tmp_path / "clips.parquet")] == [""]


@pytest.mark.parametrize(
    ("cell", "flaw", "said"),
    [
        ("Häschen".encode("latin-1"), "bad_scene", "its scene cannot be used: byte 0xE4"),
        (b"a\0b", "bad_scene", "its scene cannot be used: it holds a zero byte"),
        (b"x" * (MAX_TEXT_BYTES + 1), "scene_too_long", "its scene has 1,048,577 bytes"),
    ],
)
def test_a_scene_that_cannot_be_used_ends_its_clip(cell: bytes, flaw: str, said: str, tmp_path: Path) -> None:
    clip = read(cell, tmp_path)
    assert (clip.scene, clip.flaw, clip.caption) == ("", flaw, "it hums")
    assert said in clip.flaw_detail and "into another output folder" in clip.flaw_detail


def test_a_scene_as_long_as_a_caption_may_be_is_one(tmp_path: Path) -> None:
    assert len(read(b"x" * MAX_TEXT_BYTES, tmp_path).scene) == MAX_TEXT_BYTES


def test_control_characters_inside_a_scene_stay(tmp_path: Path) -> None:
    assert read(b"a\x1b[31m\tb\r\nc", tmp_path).scene == "a\x1b[31m\tb\r\nc"


def test_a_bad_caption_comes_before_a_bad_scene_and_a_bad_name_before_both(tmp_path: Path) -> None:
    both = {"caption": "a\0b", "scene": "c\0d"}
    assert read(both, tmp_path).flaw == "bad_caption"
    assert read({**both, "video": "a\0.mp4"}, tmp_path).flaw == "bad_name"


@pytest.mark.parametrize(
    ("value", "said"), [(3, "is a number (3)"), (["a"], "is a list"), ({"a": 1}, "is an object"), (True, "is true")]
)
def test_a_value_of_another_type_is_an_error_that_names_the_row(value: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 1: scene ") as error:
        read({"scene": value}, tmp_path)
    assert said in str(error.value) and "text" in str(error.value)


LIKELY = [
    *["Scene", "scenes", "SCENE", "scene_description", "sceneText", "previous_scene", "preceding-scene"],
    *["prior_caption", "scene_before", "before"],
]
UNLIKELY = [
    *["scene_id", "scene_start", "scene_number", "scene_end", "sceneIndex", "seen", "caption", "previous_id"],
    *["before_after_ratio", "previous_clip", "prior_shot"],
]


def test_likely_names_of_a_scene_are_told_and_others_are_not() -> None:
    assert [name for name in LIKELY if not likely_column("scene", [name])] == []
    assert [name for name in UNLIKELY if likely_column("scene", [name])] == []


def test_a_misspelled_column_is_an_error_only_where_scenes_are_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'scene_description' is not known, and there is no `scene`; rename it"):
        read({"scene_description": SCENE}, tmp_path)
    assert read({"scene_description": SCENE, "scene": "x"}, tmp_path).scene == "x"
    assert read({"scene_description": SCENE}, tmp_path, scenes=False).flaw == ""


def test_a_name_for_a_caption_or_a_scene_is_told_with_both(tmp_path: Path) -> None:
    write_csv(tmp_path / "clips.csv", [{"video": "a.mp4", "scene_description": SCENE}])
    with pytest.raises(UsageError, match="rename it to `caption`, or to `scene` if it says what happened before"):
        clips(tmp_path / "clips.csv")


def test_a_clip_may_have_several_scenes_by_ids_of_its_own(tmp_path: Path) -> None:
    rows = [{"video": "a.mp4", "caption": "it hums", "scene": f"{SCENE} {n}", "id": f"a-{n}"} for n in range(2)]
    found = clips(write_csv(tmp_path / "clips.csv", rows))
    assert len({clip.clip_id for clip in found}) == 2 and len({clip.scene for clip in found}) == 2


# ---- tars and folders -----------------------------------------------------------------------------------------


def test_a_json_in_a_tar_has_the_scene_whichever_file_has_the_caption(tmp_path: Path) -> None:
    one = json.dumps({"caption": "it hums", "scene": SCENE}).encode()
    members = {"a.mp4": b"x", "a.json": one, "b.mp4": b"x", "b.txt": b"it boils", "b.json": one, "c.mp4": b"x"}
    tar = tar_of(tmp_path / "clips.tar", {**members, "c.txt": b"it cools", "d.jpg": b"x", "d.json": one})
    found = [(clip.caption, clip.scene) for clip in clips(tar)]
    assert found == [("it hums", SCENE), ("it boils", SCENE), ("it cools", ""), ("it hums", SCENE)]
    assert [clip.scene for clip in clips(tar, scenes=False)] == [""] * 4
    assert [(clip.caption, clip.scene) for clip in clips(tmp_path)] == found


@pytest.mark.parametrize(
    ("data", "flaw"),
    [
        (b"{", "bad_scene"),
        (b'{"scene": "a\\u0000b"}', "bad_scene"),
        (b'{"scene": "\\ud83d"}', "bad_scene"),
        (b'{"scene": "' + b"x" * (MAX_TEXT_BYTES + 1) + b'"}', "scene_too_long"),
        (b" " * (4 * MAX_TEXT_BYTES) + b"{}", "scene_too_long"),
        (b'["scene"]', ""),
        (b'{"scene": null}', ""),
    ],
)
def test_a_json_without_a_usable_scene_ends_its_clip_alone(data: bytes, flaw: str, tmp_path: Path) -> None:
    (clip,) = clips(tar_of(tmp_path / "clips.tar", {"a.mp4": b"x", "a.txt": b"it hums", "a.json": data}))
    assert (clip.caption, clip.scene, clip.flaw) == ("it hums", "", flaw)


@pytest.mark.parametrize("value", [{"scene": 3}, {"scene_description": SCENE}])
def test_a_json_with_a_number_or_a_likely_name_is_an_error(value: dict[str, Any], tmp_path: Path) -> None:
    members = {"a.mp4": b"x", "a.txt": b"it hums", "a.json": json.dumps(value).encode()}
    tar = tar_of(tmp_path / "clips.tar", members)
    with pytest.raises(UsageError, match=r"clips.tar: a\.json: "):
        clips(tar)
    assert [clip.flaw for clip in clips(tar, scenes=False)] == [""]


def test_files_of_a_folder_have_no_scenes(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "a.txt").write_text("it hums")
    (tmp_path / "a.json").write_text(json.dumps({"scene": SCENE}))
    assert [(clip.caption, clip.scene) for clip in clips(tmp_path)] == [("it hums", "")]
