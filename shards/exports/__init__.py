"""What other people's readers want to find beside the shards. Written from manifest and receipts; we never read it."""

from __future__ import annotations

from shards.exports import croissant, energon, huggingface, wids
from shards.exports.about import About
from shards.receipt import Manifest, receipts_of
from shards.storage import Storage

__all__ = ["About", "publish"]


def publish(out: Storage, manifest: Manifest, about: About) -> None:
    """Writes the dataset card, croissant.json, an index for wids and Energon's folder, for what `manifest` lists.

    The same shards give the same files. Raises DamagedRecord for a receipt that does not fit, StorageFault.
    """
    energon.publish(out, manifest, receipts_of(out, manifest.shards))
    for reader in (wids, croissant, huggingface):
        for path, data in reader.files(manifest, about):
            out.keep(path, data)
    wids.tidy(out, manifest)
