"""Sets of latents without an encoder: numbers that tell which latent it is."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from nextscene.common.storage import Storage
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.receipt import Receipt
from nextscene.shards.format.seal import seal
from nextscene.shards.format.tar import group_bytes
from nextscene.shards.loading.latent_dataset import LATENTS, Latent, LatentRecord, LatentSample
from tests.shards.samples import publish_dataset

CHANNELS = 4


def latent_of(number: int, shape: tuple[int, ...]) -> Latent:
    """As many different numbers, most of which no 8 bits hold."""
    return (np.arange(np.prod(shape)) / 8 + number).reshape(shape).astype(np.float16)


def sample_of(record: LatentRecord, latent: Latent) -> LatentSample:
    digest = hashlib.sha256(latent.astype("<f2").tobytes()).hexdigest()
    return LatentSample(replace(record, latent_sha256=digest), latent)


def latent_sample(number: int, frames: int = 9) -> LatentSample:
    """Of a clip of 96×64 pixels, folded by 8 and 32."""
    record = LatentRecord(
        clip_id=f"{number:024x}",
        text=f"scene {number}",
        caption=f"caption {number}",
        frames=frames,
        width=96,
        height=64,
        fps=16.0,
        channels=CHANNELS,
        latent_frames=(frames - 1) // 8 + 1,
        latent_width=3,
        latent_height=2,
        latent_sha256="",
    )
    return sample_of(record, latent_of(number, record.shape))


def seal_latents(out: Storage, name: ShardName, samples: list[LatentSample]) -> Receipt:
    keys = [sample.record.clip_id for sample in samples]
    groups = [group_bytes(key, one.members) for key, one in zip(keys, samples, strict=True)]
    out.write("parts/latents", b"".join(groups))
    receipt = seal(out, name, ["parts/latents"], keys, LATENTS)
    receipt.publish(out)
    return receipt


def latent_dataset(folder: Path, lengths: list[int], per_shard: int = 4) -> Storage:
    """Latents of clips of so many frames each."""
    out = Storage.at(folder)
    samples = [latent_sample(number, frames) for number, frames in enumerate(lengths)]
    runs = [samples[at : at + per_shard] for at in range(0, len(samples), per_shard)]
    return publish_dataset(out, [seal_latents(out, ShardName("train", place), run) for place, run in enumerate(runs)])
