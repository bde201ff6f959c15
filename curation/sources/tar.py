"""WebDataset tars as input: members that share a name up to the first dot are one clip."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import PurePosixPath
from typing import BinaryIO, cast

from curation.errors import UsageMistake
from curation.sources.clip import MAX_CAPTION_BYTES, MEDIA_SUFFIXES, Clip
from shards.storage import Storage

_MAX_READ_BYTES = 4 << 20


@dataclass(frozen=True)
class _Member:
    key: str
    suffix: str
    offset: int
    size: int
    text: bytes


def clips_of_tar(root: Storage, path: str) -> Iterator[Clip]:
    """A clip for each video or image in the tar, in the tar's order. The caption is `.txt`, else `caption` of `.json`.

    Reads headers and captions only. Raises UsageMistake for a tar that is compressed, damaged or ungrouped.
    """
    seen_video = False
    keys: set[str] = set()
    for key, grouped in groupby(_members(root, path), key=lambda member: member.key):
        if key in keys:
            raise UsageMistake(f"{root.shown}/{path}: the members of sample {key!r} stand apart; write them together")
        keys.add(key)
        group = list(grouped)
        members = {member.suffix: member for member in group}
        videos = [member for member in group if f".{member.suffix}" in MEDIA_SUFFIXES]
        if len(videos) > 1:
            names = " and ".join(f"{key}.{video.suffix}" for video in videos[:2])
            raise UsageMistake(f"{root.shown}/{path}: sample {key!r} holds {names}; one video a sample can be used")
        for video in videos:
            seen_video = True
            name = f"{path}/{key}.{video.suffix}"
            clip = Clip(name=name, identity=name, location=path, offset=video.offset, length=video.size)
            yield replace(clip, caption=_caption(members, f"{root.shown}/{path}: {key}"))
    if not seen_video:
        raise UsageMistake(f"{root.shown}/{path}: no sample with a video or an image")


def _members(root: Storage, path: str) -> Iterator[_Member]:
    try:
        with root.open(path) as file, tarfile.open(fileobj=cast(BinaryIO, _Modest(file)), mode="r:") as tar:
            for info in tar:
                # tarfile remembers each member it has passed; a long tar would fill the memory.
                tar.members = []  # type: ignore[attr-defined]
                folder, _, base = info.name.rpartition("/")
                key, dot, suffix = base.partition(".")
                if not info.isreg() or not key or not dot:
                    continue
                suffix = suffix.lower()
                wanted = suffix in ("txt", "json") and info.size <= MAX_CAPTION_BYTES
                text = tar.extractfile(info).read() if wanted else b""  # type: ignore[union-attr]
                name = str(PurePosixPath(folder) / key)
                try:
                    name.encode()
                except UnicodeEncodeError as error:
                    raise UsageMistake(f"{root.shown}/{path}: the member name {name!a} is not UTF-8") from error
                yield _Member(name, suffix, info.offset_data, info.size, text)
            # tarfile takes a header that it cannot read for the end.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise UsageMistake(
                    f"{root.shown}/{path}: not a whole, uncompressed tar: no header at byte {tar.offset}"
                )
    except tarfile.ReadError as error:
        raise UsageMistake(f"{root.shown}/{path}: not a whole, uncompressed tar: {error}") from error


def _caption(members: dict[str, _Member], where: str) -> str:
    try:
        if "txt" in members:
            return members["txt"].text.decode("utf-8").strip()
        if "json" in members:
            value = json.loads(members["json"].text)
            caption = str(value.get("caption") or "").strip() if isinstance(value, dict) else ""
            return caption.encode().decode()  # JSON can spell half characters
    except (ValueError, RecursionError) as error:
        raise UsageMistake(f"{where}: the caption cannot be read: {error}") from error
    return ""


class _Modest:
    """A file that refuses to read much at once: a header may claim any size for its extension."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > _MAX_READ_BYTES:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        return self._file.read(size)
