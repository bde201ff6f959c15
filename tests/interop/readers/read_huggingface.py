"""Prints what Hugging Face `datasets` finds in a folder, two ways: {way: {split: {key: {member: sha256}}}}."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from datasets import Image, Video, load_dataset
from digests import digest, record_bytes


def digests(samples: Iterable[dict[str, Any]]) -> dict[str, dict[str, str]]:
    return {
        sample["__key__"]: {
            "json": digest(record_bytes(sample["json"])),
            **{member: digest(sample[member]["bytes"]) for member in ("mp4", "jpg") if sample[member]},
            "txt": digest(sample["txt"].encode()),
        }
        for sample in samples
    }


ways = {"loaded": load_dataset(sys.argv[1]), "streamed": load_dataset(sys.argv[1], streaming=True)}
found = {
    way: {
        split: digests(samples.cast_column("mp4", Video(decode=False)).cast_column("jpg", Image(decode=False)))
        for split, samples in splits.items()
    }
    for way, splits in ways.items()
}
print(json.dumps(found))
