"""Samples of every shape, and a sealed shard of some of them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from hypothesis import strategies as st

from nextscene.common.storage import Storage
from nextscene.shards.format.index import publish_indexes
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.format.receipt import Receipt
from nextscene.shards.format.sample import CLIPS, MEDIA, Record, Sample
from nextscene.shards.format.seal import seal

NAME = ShardName("train", 7)

keys = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=16, max_size=32)
# What can stand in a manifest in UTF-8: any text but lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]))
counts = st.integers(-1, 2**40)
sides = st.integers(1, 2**16)
numbers = st.floats(allow_nan=False, allow_infinity=False)
records = st.builds(
    Record,
    clip_id=keys,
    source=texts,
    start=numbers,
    end=numbers,
    caption=texts,
    scene_description=texts,
    verdict=texts,
    rounds=counts,
    judge=texts,
    judge_model=texts,
    prompt_sha256=texts,
    frames=sides,
    fps=numbers,
    width=sides,
    height=sides,
    mp4_sha256=texts,
    source_width=counts,
    source_height=counts,
    provenance=texts,
)


def sample_of(record: Record, media: bytes, text: str, suffix: str = "mp4") -> Sample:
    true = replace(record, mp4_sha256=hashlib.sha256(media).hexdigest())
    return Sample(record.clip_id, true.to_bytes(), media, text.encode(), suffix)


samples = st.builds(sample_of, records, st.binary(max_size=2000), texts, st.sampled_from(MEDIA))
some_samples = st.lists(samples, min_size=1, max_size=4, unique_by=lambda sample: sample.key)


def sample(number: int, mp4_bytes: int = 700) -> Sample:
    """A plain sample, another one for each number."""
    record = Record(
        clip_id=f"{number:024x}",
        source="film.mp4",
        start=0.0,
        end=1.5,
        caption=f"caption {number}",
        scene_description="",
        verdict="",
        rounds=0,
        judge="none",
        judge_model="",
        prompt_sha256="",
        frames=24,
        fps=16.0,
        width=832,
        height=480,
        mp4_sha256="",
        source_width=854,
        source_height=480,
        provenance="",
    )
    return sample_of(record, bytes((number + i) % 256 for i in range(mp4_bytes)), f"caption {number}")


def seal_samples(folder: Path, contents: list[Sample], name: ShardName = NAME) -> tuple[Storage, Receipt]:
    """A shard of two parts, sealed and with its receipt published, as a run would leave it."""
    out = Storage.at(folder)
    half = len(contents) // 2
    for part, members in (("parts/a.part", contents[:half]), ("parts/b.part", contents[half:])):
        out.write(part, b"".join(map(Sample.to_bytes, members)))
    receipt = seal(out, name, ["parts/a.part", "parts/b.part"], [member.key for member in contents], CLIPS)
    receipt.publish(out)
    return out, receipt


def seal_dataset(folder: Path, shards: dict[ShardName, list[Sample]]) -> Storage:
    """A dataset of these shards as a run leaves it: receipts, indexes, manifest."""
    receipts = [seal_samples(folder, contents, name)[1] for name, contents in shards.items()]
    return publish_dataset(Storage.at(folder), receipts)


def publish_dataset(out: Storage, receipts: list[Receipt]) -> Storage:
    manifest = Manifest.of(receipts, "f" * 64, complete=True)
    publish_indexes(out, manifest)
    manifest.publish(out)
    return out
