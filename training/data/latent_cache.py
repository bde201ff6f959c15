"""The settings that latents depend on, and their location, by which a trainer finds those of its VAE."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

from nextscene.common.errors import UsageError
from nextscene.common.hashing import path_sha256
from nextscene.common.storage import Storage, split_query
from nextscene.shards.format.layout import CARD, LATENTS
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.loading.clip_transform import ClipTransform

_VERSION = 1
_VAE_DIGITS = 16
_ENCODING = re.compile(rf"at most (\d+) frames, videos (\d+)×(\d+), VAE ([0-9a-f]{{{_VAE_DIGITS}}})")
"""A LatentEncoding as text, as the README of a set of latents has it."""


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
        width, height = self.size
        return f"at most {self.max_frames} frames, videos {width}×{height}, VAE {self.vae[:_VAE_DIGITS]}"


def latents_folder(data: str) -> str:
    """Return the folder in a dataset that contains its latents, one folder for each encoding."""
    place, query = split_query(data)
    return f"{place.rstrip('/')}/{LATENTS}{query}"


@cache
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Return the SHA-256 of a file, computed again only if its size or time of modification has changed."""
    return path_sha256(path)


class FoundLatents(NamedTuple):
    """The outcome of a search: the location of the latents, or None, and why those that are there do not fit.

    `reason` is "" if there are none.
    """

    location: str | None
    reason: str = ""


def find_latents(data: str, vae: Path, max_frames: int, size: tuple[int, int], at: str = "") -> FoundLatents:
    """Find the latents of a dataset that cover exactly its present shards: at the location `at`, or below the dataset.

    Raise UsageError if the folder `vae` does not contain a VAE. Raise also DamagedRecord and StorageFault.
    """
    if not at and not Storage.at(data).is_folder(LATENTS):
        return FoundLatents(None)
    encoding = LatentEncoding.for_vae(vae, max_frames, size)
    location = at or encoding.location(data)
    try:
        made, wanted = Manifest.read(Storage.at(location)), Manifest.read(Storage.at(data))
    except FileNotFoundError:
        return FoundLatents(None, "there are none" if at else _nearest_difference(data, encoding))
    if made.fingerprint != encoding.fingerprint:
        return FoundLatents(None, ", ".join(_differences(Storage.at(location), encoding)))
    if _shards(made) != _shards(wanted):
        return FoundLatents(None, "they are not those of all its present shards; nextscene encode completes them")
    return FoundLatents(location)


def _nearest_difference(data: str, encoding: LatentEncoding) -> str:
    """Return how the latents below a dataset differ from those with `encoding`: of several, the most similar ones."""
    folder = Storage.at(latents_folder(data))
    sets = [folder.subfolder(name.rstrip("/")) for name in sorted(folder.names("")) if name.endswith("/")]
    found = sorted((_differences(one, encoding) for one in sets), key=len)
    return ", ".join(found[0]) if found else ""


def _differences(made: Storage, encoding: LatentEncoding) -> list[str]:
    """Return what latents have other than `encoding`, by their README, which tells all of it."""
    try:
        found = _ENCODING.search(made.read(CARD).decode("utf-8", "replace"))
    except FileNotFoundError:
        found = None
    if found is None:
        return [f"{made.display_uri} does not say what they were made with"]
    frames, width, height, vae = found.groups()
    wanted_width, wanted_height = map(str, encoding.size)
    pairs = {
        "they were made by the VAE {}, not by {}": (vae, encoding.vae[:_VAE_DIGITS]),
        "their videos are {}, not {}": (f"{width}×{height}", f"{wanted_width}×{wanted_height}"),
        "they have at most {} frames, not {}": (frames, str(encoding.max_frames)),
    }
    return [text.format(*pair) for text, pair in pairs.items() if pair[0] != pair[1]]


def _shards(manifest: Manifest) -> list[tuple[str, int]]:
    """Return the path of each shard, which names it and its revision, and its number of samples."""
    return [(shard.path, shard.count) for shard in manifest.shards]
