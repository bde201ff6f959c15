"""Prints what wids finds by the indexes of a dataset: {split: [[key, {member: sha256}], …]}, by number."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from digests import digest
from wids import ShardListDataset


def told(sample: dict[str, Any]) -> tuple[str, dict[str, str]]:
    members = {name[1:]: digest(file.read()) for name, file in sample.items() if name.startswith(".")}
    return sample["__key__"], members


found = {}
for index in Path(sys.argv[1]).glob("wids-*.json"):
    samples = ShardListDataset(str(index), transformations=[])
    # From the last to the first: each is found by its number, not by reading on.
    backwards = [told(samples[number]) for number in reversed(range(len(samples)))]
    found[index.stem.removeprefix("wids-")] = backwards[::-1]
print(json.dumps(found))
