"""The schema of a sample's record: every field, of its type, and nothing else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene.common.strict_json import parse_json
from nextscene.shards.format.sample import CLIP_TYPES, CLIPS, Record, Sample
from nextscene.shards.format.tar import DamagedShard, MemberGroup
from tests.hostile_text import floats, integers, texts
from tests.shards.samples import records, sample

pytestmark = pytest.mark.slow

RECORD = sample(1).record
FIELDS = {field.name: str(field.type) for field in fields(Record)}


def changed(**values: Any) -> bytes:
    return json.dumps({**json.loads(RECORD.to_bytes()), **values}).encode()


@given(records)
def test_a_record_comes_back_as_it_was_written(record: Record) -> None:
    assert Record.from_bytes(record.to_bytes()) == record


@given(records)
def test_a_record_is_flat_json_of_every_field_in_one_order_and_without_spaces(record: Record) -> None:
    data = record.to_bytes()
    value = json.loads(data.decode("utf-8"))
    assert list(value) == sorted(FIELDS)
    assert {name: type(content).__name__ for name, content in value.items()} == FIELDS
    assert data == json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


@pytest.mark.parametrize("field", sorted(FIELDS))
@pytest.mark.parametrize("value", [None, [], {}, True, "7", 7, 7.0])
def test_a_field_of_another_type_is_refused_by_name(field: str, value: object) -> None:
    if type(value).__name__ == FIELDS[field]:
        assert getattr(Record.from_bytes(changed(**{field: value})), field) == value
        return
    with pytest.raises(ValueError, match=f"'{field}' should be {FIELDS[field]}"):
        Record.from_bytes(changed(**{field: value}))


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_a_missing_field_is_refused_by_name(field: str) -> None:
    value = json.loads(RECORD.to_bytes())
    del value[field]
    with pytest.raises(ValueError, match=field):
        Record.from_bytes(json.dumps(value).encode())


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown field 'director'"):
        Record.from_bytes(changed(director="me"))


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"7", b'"text"', b"{", b"{}", b"\xff", b"not json"])
def test_what_is_not_a_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Record.from_bytes(data)


@pytest.mark.parametrize(
    "key", ["", "a" * 15, "a" * 33, "A" * 24, "a" * 23 + ".", "ä" * 24, "a" * 24 + "\n", "../" * 8]
)
def test_a_key_is_16_to_32_small_letters_and_digits(key: str) -> None:
    Sample("a" * 16, b"", b"", b"")
    Sample("0" * 32, b"", b"", b"")
    with pytest.raises(ValueError, match="key"):
        Sample(key, b"", b"", b"")


def test_the_members_stand_in_one_order_in_every_version() -> None:
    assert {version: kind.members for version, kind in CLIP_TYPES.items()} == {
        2: ("json", "mp4", "txt"),
        3: ("json", "mp4", "jpg", "txt"),
    }


@pytest.mark.parametrize("members", [["json", "mp4", "jpg", "txt"], ["json", "txt"], ["mp4", "txt"], ["json", "mp4"]])
def test_a_clip_has_a_record_a_text_and_one_of_video_and_image(members: list[str]) -> None:
    with pytest.raises(DamagedShard, match=f"has {', '.join(members)}; a clip has json, mp4 or jpg, txt"):
        Sample.of(MemberGroup(0, RECORD.clip_id, dict.fromkeys(members, b"")), "shard")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(number: str) -> None:
    data = RECORD.to_bytes().replace(b'"start":0.0', f'"start":{number}'.encode())
    assert data != RECORD.to_bytes()
    with pytest.raises(ValueError, match=r"start|is not JSON"):
        Record.from_bytes(data)


hostile_records = st.builds(
    replace,
    records,
    source=texts,
    caption=texts,
    scene_description=texts,
    provenance=texts,
    judge_model=texts,
    start=floats,
    end=floats,
    source_width=integers,
)


@given(hostile_records)
def test_what_is_written_can_be_read_and_what_could_not_is_not_written(record: Record) -> None:
    try:
        data = record.to_bytes()
    except ValueError:
        return
    assert Record.from_bytes(data) == record


@pytest.mark.parametrize("change", [{"caption": "\ud83d"}, {"end": float("inf")}, {"start": float("nan")}])
def test_a_record_that_nobody_could_read_is_not_written(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        replace(RECORD, **change).to_bytes()


def test_only_utf_8_is_read() -> None:
    for data in (RECORD.to_bytes().decode().encode("utf-16"), RECORD.to_bytes().replace(b"film", b"\xed\xa0\xbd")):
        with pytest.raises(ValueError):
            parse_json(data)


def test_json_that_is_nested_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        Record.from_bytes(b"[" * 100_000)


def group(record: Record, text: bytes = b"text") -> MemberGroup:
    return MemberGroup(0, record.clip_id, {"json": record.to_bytes(), "mp4": b"video", "txt": text})


def test_a_text_that_is_none_damages_its_sample() -> None:
    with pytest.raises(DamagedShard, match=f"shard: sample '{RECORD.clip_id}': .*utf-8"):
        Sample.of(group(RECORD, b"\xff"), "shard")


@pytest.mark.parametrize("change", [{"frames": -1}, {"frames": 0}, {"width": 2**40}, {"height": 0}])
def test_a_shape_that_no_video_has_damages_its_sample(change: dict[str, int]) -> None:
    record = replace(RECORD, mp4_sha256=hashlib.sha256(b"video").hexdigest())
    assert CLIPS.validate(group(record), "shard") == (record.frames, record.width, record.height)
    with pytest.raises(DamagedShard, match="no video has"):
        CLIPS.validate(group(replace(record, **change)), "shard")  # type: ignore[arg-type]
