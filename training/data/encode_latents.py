"""Encoding of a dataset into latents: a second set of shards parallel to its own, each made once.

A latent is the posterior of the VAE, so that training still draws a new sample from it each time.

Tested in tests/training/data/test_latent_cache.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo

from nextscene.common.errors import DamagedRecord, UsageError
from nextscene.common.prefetch import prefetch_map
from nextscene.common.storage import Storage
from nextscene.shards.format import folder_mark
from nextscene.shards.format.dataset_hints import explain_missing_dataset
from nextscene.shards.format.index import publish_indexes
from nextscene.shards.format.layout import CARD, MANIFEST, PARTS, SHARDS, ShardName, owns
from nextscene.shards.format.manifest import Manifest, ManifestShard, receipts_of
from nextscene.shards.format.receipt import Receipt
from nextscene.shards.format.sample_type import Shape
from nextscene.shards.format.seal import seal
from nextscene.shards.format.tar import group_bytes
from nextscene.shards.loading.dataset import ClipDataset
from nextscene.shards.loading.decode import Pixels
from nextscene.shards.loading.latent_dataset import LATENTS, SCHEMA_VERSION, LatentSample
from nextscene.shards.loading.sample_set import SampleText, decode_sample
from nextscene.training.data.latent_cache import LatentEncoding
from nextscene.training.machine_faults import memory_for
from nextscene.training.model.grid import Ratios
from nextscene.training.model.latents import encode

_CARD = """\
Latents of the clips of a dataset, made by the autoencoder of LTX-Video ({encoding}); they join the clips by key.
`shards.loading.latent_dataset.LatentDataset` reads them. If they are deleted, they can be encoded again.
"""


class LatentEncoder:
    """An encoder of every `world`-th shard, starting with the `rank`-th. A shard that has its receipt is skipped.

    The ranks do not communicate and need not run at the same time.
    """

    def __init__(self, data: str, out: Storage, encoding: LatentEncoding, rank: int = 0, world: int = 1) -> None:
        """Raise UsageError if there is no dataset, if it is empty, or if `out` contains other latents.

        Raise NotOurs if `out` contains something other than latents. Raise also the errors of ClipDataset.
        """
        self._data, self._out, self._encoding = Storage.at(data), out, encoding
        try:
            self._source = Manifest.read(self._data)
        except FileNotFoundError as error:
            raise UsageError(f"{self._data.display_uri} {explain_missing_dataset(self._data)}") from error
        if not self._source.shards:
            raise UsageError(f"the dataset in {self._data.display_uri} has no samples")
        self._clips = {
            split: ClipDataset(data, split, max_frames=encoding.max_frames, size=encoding.size)
            for split in self._source.splits
        }
        self._mine, self._alone = self._source.shards[rank::world], world == 1
        self._check_out()

    @property
    def planned(self) -> int:
        """Number of clips in this rank's shards."""
        return _clips_in(self._mine)

    @property
    def done(self) -> int:
        """Number of those clips whose shards are made."""
        return self.planned - _clips_in(self._left(self._mine))

    def check(self, ratios: Ratios) -> None:
        """Raise UsageError for clips of a length or size that the VAE does not accept."""
        for split, clips in self._clips.items():
            for frames, width, height in np.unique(clips.shapes, axis=0).tolist():
                try:
                    ratios.grid(frames, height, width)
                except ValueError as error:
                    raise UsageError(f"the VAE does not take all clips of {split}: {error}") from error

    def run(self, vae: AutoencoderKLLTXVideo, batch: int) -> Iterator[int]:
        """Encode up to `batch` clips at once, and yield their number each time. A shard's latents are kept in memory.

        Raise DamagedShard for a bad clip or latent, and name it. Raise OutOfMemory if `batch` clips do not fit into
        memory. Raise also DatasetChanged and StorageFault.
        """
        self._out = folder_mark.claim(self._out, folder_mark.LATENTS)
        self._out.write_if_changed(CARD, _CARD.format(encoding=self._encoding).encode())
        if self._out.stat(MANIFEST) is None:
            Manifest(self._encoding.fingerprint, complete=False, shards=(), schema_version=SCHEMA_VERSION).publish(
                self._out
            )
        for shard in self._left(self._mine):
            clips = self._clips[shard.split]
            batches = [*_batches_of_one_shape(clips, shard, batch)]
            read = prefetch_map(partial(decode_sample, clips), chain.from_iterable(batches))
            samples: dict[int, LatentSample] = {}
            for numbers in batches:
                samples.update(zip(numbers, _encode_batch(vae, islice(read, len(numbers))), strict=True))
                yield len(numbers)
            self._seal(shard.name, [samples[number] for number in sorted(samples)])

    def finish(self) -> Manifest | None:
        """Publish the manifest, clean up and return the manifest; return None if a shard of any rank is not made.

        Raise DamagedRecord for a shard that was made from other clips than the dataset has now.
        """
        if self._left(self._source.shards):
            return None
        manifest = Manifest.of(self._receipts(), self._encoding.fingerprint, self._source.complete, SCHEMA_VERSION)
        publish_indexes(self._out, manifest)
        manifest.publish(self._out)
        self._clear_up()
        return manifest

    def _check_out(self) -> None:
        folder_mark.check(self._out, folder_mark.LATENTS)
        try:
            fingerprint = Manifest.read(self._out).fingerprint
        except FileNotFoundError:
            return
        if fingerprint != self._encoding.fingerprint:
            raise UsageError(f"{self._out.display_uri} holds other data than these latents; choose another place")

    def _left(self, shards: Sequence[ManifestShard]) -> list[ManifestShard]:
        """Return the shards that are not made. An empty receipt does not count."""
        entries = self._out.stats([shard.name.receipt for shard in shards])
        return [shard for shard, receipt in zip(shards, entries, strict=True) if not (receipt and receipt.size)]

    def _seal(self, name: ShardName, samples: Sequence[LatentSample]) -> None:
        keys = [sample.record.clip_id for sample in samples]
        with self._out.atomic_writer(name.part) as file:
            for key, sample in zip(keys, samples, strict=True):
                file.write(group_bytes(key, sample.members))
        seal(self._out, name, [name.part], keys, LATENTS).publish(self._out)
        self._out.delete(name.part)

    def _receipts(self) -> Iterator[Receipt]:
        shards = self._source.shards
        made = prefetch_map(partial(Receipt.read, self._out), [shard.name for shard in shards])
        for ours, theirs in zip(made, receipts_of(self._data, shards), strict=True):
            if ours.clip_ids != theirs.clip_ids:
                raise DamagedRecord(
                    f"{ours.name} in {self._out.display_uri} was made of other clips than it has in"
                    f" {self._data.display_uri}; delete {ours.name.receipt}, and it is made anew"
                )
            yield ours

    def _clear_up(self) -> None:
        """Delete the latents of shards that a retry has replaced, and the leftovers of killed runs."""
        names = {shard.name for shard in self._source.shards}
        for entry in self._out.files(SHARDS, recursive=True):
            name = ShardName.of(entry.path)
            if name is not None and name not in names and entry.path in name.files:
                self._out.delete(entry.path)
        for entry in self._out.files(PARTS, recursive=True):
            if owns(entry.path):
                self._out.delete(entry.path)
        for folder in ("",) if self._alone else (SHARDS, PARTS):  # another rank may be publishing the same manifest
            self._out.remove_drafts(owns, folder)
            self._out.abort_uploads(owns, folder)


def _clips_in(shards: Iterable[ManifestShard]) -> int:
    return sum(shard.count for shard in shards)


def _batches_of_one_shape(clips: ClipDataset, shard: ManifestShard, batch: int) -> Iterator[list[int]]:
    """Yield the numbers of a shard's clips in batches of one shape, at most `batch` each, always in the same order."""
    index = clips.reader.index
    numbers = np.flatnonzero(index.shard == index.shards.index(shard))
    buckets = np.unique(clips.shapes[numbers], axis=0, return_inverse=True)[1].reshape(-1)
    for bucket in range(int(buckets.max()) + 1):
        own = numbers[buckets == bucket].tolist()
        yield from (own[at : at + batch] for at in range(0, len(own), batch))


def _encode_batch(vae: AutoencoderKLLTXVideo, clips: Iterable[tuple[Pixels, SampleText]]) -> list[LatentSample]:
    """Encode clips of one shape and return their latents.

    Raise OutOfMemory if they do not fit into memory.
    """
    videos, words = zip(*clips, strict=True)
    frames, height, width, _ = videos[0].shape
    with memory_for(lambda: f"{len(videos)} × {frames} frames of {width}×{height} at once", "lower `batch`"):
        posterior = encode(vae, torch.from_numpy(np.stack(videos)))
    latents = torch.cat(posterior, dim=1).half().cpu().numpy()
    delivered = Shape(frames, width, height)
    return [LatentSample.of_clip(said, delivered, latent) for said, latent in zip(words, latents, strict=True)]
