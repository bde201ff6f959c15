"""Listings of archives, saved one by one while a source is planned: a planning that was stopped continues after them.

A listing is a gzip file of JSON lines below `planning` in the storage of the plan. Its name is a hash of the archive's
place, and of size and time of each of its pieces, so that an archive that was fetched anew is listed anew.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from nextscene.common.joined_storage import pieces_of
from nextscene.common.prefetch import prefetch_map
from nextscene.common.storage import Storage
from nextscene.curation.sources.clip import locate

FOLDER = "planning"
_AT_ONCE = 8

Listing = Callable[[str], Iterator[Any]]
"""A function of an archive's location that yields what is in it, as values that JSON has."""


class ArchiveIndex:
    """The saved listings in a storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def listings(
        self, root: Storage, locations: Sequence[str], kind: str, read: Listing
    ) -> Iterator[tuple[str, Iterator[Any]]]:
        """Yield each archive with its listing, in order. Those that are not saved are read, several at once.

        `kind` distinguishes listings of different contents. Raise the errors of `read`; what was listed is saved.
        """

        def save(location: str) -> str:
            path = _path(root, location, kind)
            if self._storage.stat(path) is None:
                self._write(path, read(location))
            return path

        for location, path in zip(locations, prefetch_map(save, locations, _AT_ONCE), strict=True):
            yield location, self._read(path)

    def clear(self) -> None:
        """Delete all listings, and what killed writers left of some, once the plan is there."""
        for entry in self._storage.files(FOLDER):
            self._storage.delete(entry.path)
        self._storage.remove_drafts(_is_listing, FOLDER)
        self._storage.abort_uploads(_is_listing, FOLDER)
        if folder := self._storage.local_path(FOLDER):
            with suppress(OSError):  # it is not there
                folder.rmdir()

    def _write(self, path: str, values: Iterator[Any]) -> None:
        with self._storage.atomic_writer(path) as file, gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed:
            for value in values:
                packed.write(json.dumps(value).encode() + b"\n")

    def _read(self, path: str) -> Iterator[Any]:
        with self._storage.open(path) as file, gzip.GzipFile(fileobj=file) as lines:
            yield from map(json.loads, lines)


def _is_listing(path: str) -> bool:
    return path.startswith(f"{FOLDER}/")


def _path(root: Storage, location: str, kind: str) -> str:
    places = [locate(root, piece) for piece in pieces_of(location)]
    entries = [storage.stat(path) for storage, path in places]
    stamp = [kind, root.display_uri, location, [entry and (entry.size, entry.mtime_ns) for entry in entries]]
    return f"{FOLDER}/{hashlib.sha256(json.dumps(stamp).encode()).hexdigest()[:32]}.jsonl.gz"
