"""Latents in shards: the numbers that were put in, damage told, batches of them."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nextscene.common.errors import DamagedRecord
from nextscene.common.storage import Storage
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.seal import check_sealed
from nextscene.shards.format.tar import DamagedShard, MemberGroup
from nextscene.shards.loading.dataset import ClipDataset
from nextscene.shards.loading.latent_dataset import LATENTS, Latent, LatentDataset, LatentRecord, LatentSample
from nextscene.shards.loading.loader import Loader
from nextscene.shards.loading.reader import DatasetNotFound
from tests.shards.clips import clip_dataset
from tests.shards.latents import CHANNELS, latent_dataset, latent_of, latent_sample, sample_of, seal_latents
from tests.shards.samples import keys, publish_dataset, texts

LENGTHS = [9, 17, 9, 17, 1, 9, 17, 1, 9, 9, 17, 9, 1, 9, 17, 9]
NAME = ShardName("train", 3)
WHOLE = latent_sample(7, frames=17)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return latent_dataset(tmp_path_factory.mktemp("latents"), LENGTHS)


@pytest.fixture(scope="module")
def latents(out: Storage) -> LatentDataset:
    return LatentDataset(out.uri)


@st.composite
def samples(draw: st.DrawFn) -> LatentSample:
    shape = draw(st.tuples(st.integers(2, 4), *[st.integers(1, 3)] * 3))
    finite = st.floats(allow_nan=False, allow_infinity=False, width=16)
    latent: Latent = draw(arrays.arrays(np.float16, shape, elements=finite))
    record = LatentRecord(
        draw(keys),
        draw(texts),
        draw(texts),
        *draw(st.tuples(*[st.integers(1, 2**16)] * 3)),
        draw(st.floats(allow_nan=False, allow_infinity=False)),
        shape[0] - 1,
        shape[1],
        shape[3],
        shape[2],
        "",
    )
    return sample_of(record, latent)


@settings(max_examples=25)
@given(samples())
def test_what_was_sealed_comes_back_to_the_bit(sample: LatentSample) -> None:
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage.at(folder)
        receipt = seal_latents(storage, NAME, [sample])
        check_sealed(storage, receipt, LATENTS)
        publish_dataset(storage, [receipt])
        latents = LatentDataset(folder)
        item = latents[0]
    record = sample.record
    assert item.pop("latent").tobytes() == sample.latent.tobytes()
    assert item == {"text": record.text, "caption": record.caption, "fps": record.fps, "key": record.clip_id}
    assert latents.shapes.tolist() == [[record.latent_frames, record.latent_width, record.latent_height]]


def test_a_latent_is_stored_as_little_endian_float16_in_the_order_c_f_h_w() -> None:
    raw = WHOLE.members["latent"]
    assert len(raw) == 2 * (CHANNELS + 1) * 3 * 2 * 3
    channel, frame, row, column = 4, 2, 1, 2
    at = ((channel * 3 + frame) * 2 + row) * 3 + column
    assert int.from_bytes(raw[2 * at : 2 * at + 2], "little") == WHOLE.latent[channel, frame, row, column].view("u2")


def test_each_latent_is_there_with_its_words(latents: LatentDataset) -> None:
    assert len(latents) == len(LENGTHS)
    for number, frames in enumerate(LENGTHS):
        item = latents[number]
        shape = (CHANNELS + 1, (frames - 1) // 8 + 1, 2, 3)
        assert np.array_equal(item["latent"], latent_of(number, shape)) and item["latent"].dtype == np.float16
        assert (item["text"], item["caption"]) == (f"scene {number}", f"caption {number}")
        assert (item["fps"], item["key"]) == (16.0, f"{number:024x}")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_gives_batches_of_latents(latents: LatentDataset, workers: int) -> None:
    for batch in islice(Loader(latents, micro_batch=2, workers=workers), 20):
        assert batch.video.dtype == torch.float16
        for latent, draw, key in zip(batch.video.numpy(), batch.refs, batch.keys, strict=True):
            assert np.array_equal(latent, latent_of(draw.number, latent.shape))
            assert key == f"{draw.number:024x}"
        assert batch.text == [f"scene {draw.number}" for draw in batch.refs]
        assert batch.caption == [f"caption {draw.number}" for draw in batch.refs]
        assert (batch.fps, batch.source, batch.bad) == ([16.0] * 2, [0] * 2, [])


def test_latents_are_drawn_in_the_order_of_their_clips(latents: LatentDataset, tmp_path: Path) -> None:
    """So it makes no difference to what is learned, and when, which of the two is read."""
    clips = ClipDataset(clip_dataset(tmp_path, LENGTHS).uri)
    from_clips, from_latents = (islice(Loader(one, micro_batch=2, seed=3), 24) for one in (clips, latents))
    assert [batch.refs for batch in from_latents] == [batch.refs for batch in from_clips]


# ---- damage --------------------------------------------------------------------------------------------------------


def group(sample: LatentSample = WHOLE, key: str = WHOLE.record.clip_id, **changes: Any) -> MemberGroup:
    """Its members, the record's fields changed."""
    record = json.dumps({**json.loads(sample.record.to_bytes()), **changes}).encode()
    return MemberGroup(0, key, {"json": record, "latent": sample.members["latent"]})


FIELDS = {field.name: str(field.type) for field in fields(LatentRecord)}


@pytest.mark.parametrize("field", sorted(FIELDS))
@pytest.mark.parametrize("value", [None, [], True, "7", 7, 7.0])
def test_a_field_of_another_type_is_told(field: str, value: object) -> None:
    if type(value).__name__ != FIELDS[field]:
        with pytest.raises(DamagedShard, match=f"train/nsp-000003: sample '{7:024x}': '{field}' should be"):
            LATENTS.validate(group(**{field: value}), str(NAME))


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (b"", "Expecting value"),
        (b"[]", "not a JSON object"),
        (b"{}", "'clip_id' should be str"),
        (b"\xff", "codec can't decode"),
        (b"[" * 10**5, "nested too deeply"),
        (group(director="me").contents["json"], "unknown field 'director'"),
        (group(text="\ud800").contents["json"], "surrogates not allowed"),
        (group(fps=1.0).contents["json"].replace(b"1.0", b"1e999"), "'fps' is not finite"),
        (group(fps=1.0).contents["json"].replace(b"1.0", b"NaN"), "NaN is not JSON"),
    ],
)
def test_a_record_that_is_none_is_told(record: bytes, told: str) -> None:
    with pytest.raises(DamagedShard, match=f"train/nsp-000003: sample '{7:024x}': .*{told}"):
        LatentSample.of(
            MemberGroup(0, WHOLE.record.clip_id, {"json": record, "latent": WHOLE.members["latent"]}), str(NAME)
        )


@pytest.mark.parametrize(
    "lie",
    [
        {"channels": CHANNELS + 1},
        {"channels": 0},
        {"channels": -CHANNELS - 2, "latent_frames": -3},
        {"latent_frames": 0},
        {"latent_width": 2**62},
        {"latent_width": -3, "latent_height": -2},
    ],
)
def test_a_shape_that_its_bytes_do_not_have_is_told(lie: dict[str, int]) -> None:
    with pytest.raises(DamagedShard, match=r"sample .*: its latent has 180 bytes, not those of the shape"):
        LatentSample.of(group(**lie), str(NAME))


def test_another_sample_s_record_is_told() -> None:
    with pytest.raises(DamagedShard, match=f"sample '{8:024x}': its record is that of '{7:024x}'"):
        LatentSample.of(group(key=f"{8:024x}"), str(NAME))


@pytest.mark.parametrize(
    ("damaged", "told"),
    [
        (group(latent_sha256="0" * 64), "is not the one its record names"),
        (group(frames=0), "no latent of a video"),
        (group(width=2**17), "no latent of a video"),
    ],
)
def test_what_is_only_seen_by_looking_closely_is_told_before_it_is_sealed(damaged: MemberGroup, told: str) -> None:
    LatentSample.of(damaged, str(NAME))
    with pytest.raises(DamagedShard, match=f"sample '{7:024x}': .*{told}"):
        LATENTS.validate(damaged, str(NAME))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_not_sealed(tmp_path: Path, number: float) -> None:
    latent = WHOLE.latent.copy()
    latent[1, 2, 0, 1] = number
    with pytest.raises(DamagedShard, match=f"sample '{7:024x}': its latent holds numbers that are not finite"):
        seal_latents(Storage.at(tmp_path), NAME, [latent_sample(1), sample_of(WHOLE.record, latent)])
    assert list(tmp_path.rglob("*.tar")) == []


@given(st.data())
def test_hostile_bytes_are_damage_and_nothing_else(data: st.DataObject) -> None:
    member = data.draw(st.sampled_from(["json", "latent"]))
    contents = dict(group().contents)
    at = data.draw(st.integers(0, len(contents[member]) - 1))
    contents[member] = contents[member][:at] + data.draw(st.binary(max_size=9)) + contents[member][at + 1 :]
    try:
        sample = LatentSample.of(MemberGroup(0, WHOLE.record.clip_id, contents), str(NAME))
    except DamagedShard as damage:
        assert str(damage).startswith(f"{NAME}: sample '{7:024x}': ")
    else:
        assert sample.latent.shape == sample.record.shape


@pytest.mark.parametrize("workers", [0, 1])
def test_a_flipped_bit_is_told_by_the_loader(tmp_path: Path, workers: int) -> None:
    storage = latent_dataset(tmp_path, [9, 9, 9])
    name = ShardName("train", 0)
    tar = bytearray(storage.read(name.tar))
    tar[tar.index(f"{1:024x}.latent".encode()) + 512] ^= 1
    storage.write(name.tar, bytes(tar))
    loader = Loader(LatentDataset(storage.uri), micro_batch=1, workers=workers, max_bad_clips=1)
    batches = list(islice(loader, 9))
    assert {key for batch in batches for key in batch.keys} == {f"{0:024x}", f"{2:024x}"}
    assert {line for batch in batches for line in batch.bad} == {
        f"train/nsp-000000: sample '{1:024x}': its contents are not those that were sealed, by their checksum"
    }


def test_a_shape_that_is_not_the_index_s_is_told(latents: LatentDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    other = latents.shapes.copy()
    other[0] = [2, 2, 3]
    monkeypatch.setattr(latents, "shapes", other)
    with pytest.raises(DamagedShard, match=r"sample '0+': its shape is \(5, 2, 2, 3\), its index says \(5, 2, 3, 2\)"):
        latents[0]


def test_latents_of_two_numbers_of_channels_are_no_set(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    record = replace(latent_sample(2).record, channels=CHANNELS + 1)
    samples = [latent_sample(1), sample_of(record, latent_of(2, record.shape))]
    publish_dataset(storage, [seal_latents(storage, NAME, samples)])
    with pytest.raises(DamagedRecord, match="sizes are not those of their shapes"):
        LatentDataset(storage.uri)


def test_clips_are_no_latents(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match="holds samples of json, mp4, jpg, txt, not latents"):
        LatentDataset(clip_dataset(tmp_path, [1]).uri)
