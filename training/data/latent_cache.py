"""The settings that latents depend on, and their location, by which a trainer finds those of its VAE."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from nextscene.common.errors import UsageError
from nextscene.common.hashing import path_sha256
from nextscene.common.storage import Storage, split_query
from nextscene.shards.format.layout import LATENTS
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.loading.clip_transform import ClipTransform

_VERSION = 1


@dataclass(frozen=True)
class LatentEncoding:
    """The settings that latents depend on: the VAE and the shape of its clips.

    `vae` is the SHA-256 of its configuration and weights. `max_frames` is the number of frames that clips are cut to,
    `size` the width and height in pixels that videos are scaled to.
    """

    vae: str
    max_frames: int
    size: tuple[int, int]

    @staticmethod
    def for_vae(vae: Path, max_frames: int, size: tuple[int, int]) -> LatentEncoding:
        """Return the encoding by the VAE in the folder `vae`; `size` is a width and a height in pixels.

        Raise UsageError for an invalid length or size, and for a folder that does not contain a VAE.
        """
        try:
            ClipTransform(max_frames, size)
        except ValueError as error:
            raise UsageError(str(error)) from error
        weights = sorted(vae.glob("*.safetensors"))
        if not weights or not (vae / "config.json").is_file():
            raise UsageError(f"{vae} holds no config.json with weights in .safetensors beside it: no VAE")
        stats = [(path, path.stat()) for path in (vae / "config.json", *weights)]
        digests = [_sha256(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
        return LatentEncoding(hashlib.sha256("".join(digests).encode()).hexdigest(), max_frames, size)

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of these settings, which identifies the latents."""
        known = {"version": _VERSION, "vae": self.vae, "max_frames": self.max_frames, "size": self.size}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def location(self, data: str) -> str:
        """Return the default location of the latents of the dataset at `data`."""
        place, query = split_query(latents_folder(data))
        return f"{place}/{self.fingerprint[:16]}{query}"

    def __str__(self) -> str:
        return f"at most {self.max_frames} frames, videos {self.size[0]}×{self.size[1]}, VAE {self.vae[:16]}"


def latents_folder(data: str) -> str:
    """Return the folder in a dataset that contains its latents, one folder for each encoding."""
    place, query = split_query(data)
    return f"{place.rstrip('/')}/{LATENTS}{query}"


@cache
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Return the SHA-256 of a file, computed again only if its size or time of modification has changed."""
    return path_sha256(path)


def find_latents(data: str, vae: Path, max_frames: int, size: tuple[int, int]) -> str | None:
    """Return the location of the latents of a dataset, or None if they do not cover exactly its present shards.

    Raise UsageError if the folder `vae` does not contain a VAE. Raise also DamagedRecord and StorageFault.
    """
    if not Storage.at(data).is_folder(LATENTS):
        return None
    encoding = LatentEncoding.for_vae(vae, max_frames, size)
    location = encoding.location(data)
    try:
        made, wanted = Manifest.read(Storage.at(location)), Manifest.read(Storage.at(data))
    except FileNotFoundError:
        return None
    fits = made.fingerprint == encoding.fingerprint and _shards(made) == _shards(wanted)
    return location if fits else None


def _shards(manifest: Manifest) -> list[tuple[str, int]]:
    """Return the path of each shard, which names it and its revision, and its number of samples."""
    return [(shard.path, shard.count) for shard in manifest.shards]
