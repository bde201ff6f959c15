"""What the latents of a dataset depend on, and where they lie: so that a trainer finds those that fit its VAE."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from nextscene.common.hashing import path_sha256
from nextscene.shards.loading.clip_transform import ClipTransform
from nextscene.shards.format.layout import LATENTS
from nextscene.shards.format.manifest import Manifest
from nextscene.common.storage import Storage, split_query
from nextscene.common.errors import UsageError

_VERSION = 1


@dataclass(frozen=True)
class LatentEncoding:
    """The VAE, by the checksum of its configuration and weights, and how clips are delivered to it."""

    vae: str
    max_frames: int
    size: tuple[int, int]

    @staticmethod
    def for_vae(vae: Path, max_frames: int, size: tuple[int, int]) -> LatentEncoding:
        """`vae` is its folder, `size` a width and a height. Raises UsageError for what cannot be."""
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
        known = {"version": _VERSION, "vae": self.vae, "max_frames": self.max_frames, "size": self.size}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def location(self, data: str) -> str:
        """Where the latents of a dataset lie, unless somebody wanted them elsewhere."""
        place, query = split_query(latents_folder(data))
        return f"{place}/{self.fingerprint[:16]}{query}"

    def __str__(self) -> str:
        return f"at most {self.max_frames} frames, videos {self.size[0]}×{self.size[1]}, VAE {self.vae[:16]}"


def latents_folder(data: str) -> str:
    """The folder in a dataset where the sets of its latents lie."""
    place, query = split_query(data)
    return f"{place.rstrip('/')}/{LATENTS}{query}"


@cache
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Of a file, which is the same as long as its size and time are."""
    return path_sha256(path)


def find_latents(data: str, vae: Path, max_frames: int, size: tuple[int, int]) -> str | None:
    """Where the latents of a dataset lie, if there are such of every shard that its manifest has now.

    Raises UsageError where `vae` is no VAE's folder; DamagedRecord; StorageFault.
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
    """Which there are, by name and revision, and how many samples each has."""
    return [(shard.path, shard.count) for shard in manifest.shards]
