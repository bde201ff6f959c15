"""Files beside the shards that other readers expect, made from manifest and receipts. This package never reads them.

Tested in tests/shards/exports/test_exports.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from nextscene.common.storage import Storage
from nextscene.shards.exports import croissant, energon, huggingface, wids
from nextscene.shards.exports.dataset_facts import DatasetFacts
from nextscene.shards.format.checksums import Checksums
from nextscene.shards.format.manifest import Manifest, receipts_of

__all__ = ["DatasetFacts", "paths", "publish", "wrong"]

_READERS = (wids, croissant, huggingface)


def publish(out: Storage, manifest: Manifest, about: DatasetFacts) -> Checksums:
    """Write the dataset card, croissant.json, an index for wids and Energon's folder, for what `manifest` lists.

    The same shards give the same files. Return the SHA-256 of each file, except of an Energon index that was up to
    date. Raise DamagedRecord for a wrong receipt, StorageFault.
    """
    sums = energon.publish(out, manifest, receipts_of(out, manifest.shards))
    for reader in _READERS:
        for path, data in reader.files(manifest, about):
            out.write_if_changed(path, data)
            sums[path] = hashlib.sha256(data).hexdigest()
    wids.delete_old_indexes(out, manifest)
    return sums


def paths(manifest: Manifest, about: DatasetFacts) -> set[str]:
    """Return the paths that `publish` writes."""
    files = chain(energon.files(manifest), *(reader.files(manifest, about) for reader in _READERS))
    return {energon.INDEX, *(path for path, _ in files)}


def wrong(out: Storage, manifest: Manifest, about: DatasetFacts) -> Iterator[str]:
    """Yield the path of each file that names other shards, samples or counts than `publish` would.

    Its wording may be that of another version, and the title that of another folder.
    """
    for path, data in energon.files(manifest):
        if _differs(out, path, data, bytes):
            yield path
    for reader in _READERS:
        for path, data in reader.files(manifest, about):
            if _differs(out, path, data, reader.facts):
                yield path
    if out.stat(energon.INDEX) and not energon.index_fits(out, receipts_of(out, manifest.shards)):
        yield energon.INDEX


def _differs(out: Storage, path: str, data: bytes, facts: Callable[[bytes], Any]) -> bool:
    try:
        return bool(facts(out.read(path)) != facts(data))
    except FileNotFoundError:
        return False
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return True
