"""Prints what mlcroissant finds in a dataset: issues, the table of fields, and {split: {key: {member: sha256}}}."""

from __future__ import annotations

import json
import sys
from collections import defaultdict

from digests import digest
from mlcroissant import Dataset
from PIL.ImageFile import ImageFile


def contents(value: bytes | ImageFile) -> bytes:
    """The bytes of a member, also of an image, which the reader has opened already."""
    if isinstance(value, bytes):
        return value
    value.fp.seek(0)
    data: bytes = value.fp.read()
    return data


dataset = Dataset(f"{sys.argv[1]}/croissant.json")
samples: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
for record_set in dataset.metadata.record_sets:
    split, _, member = record_set.uuid.partition("-")
    if split == "json":
        continue
    for record in dataset.records(record_set.uuid):
        key = record[f"{record_set.uuid}/key"].decode()
        samples[split][key][member] = digest(contents(record[f"{record_set.uuid}/{member}"]))
table = {record["json-fields/name"]: record["json-fields/type"] for record in dataset.records("json-fields")}
issues = dataset.metadata.ctx.issues
print(
    json.dumps({"errors": list(issues.errors), "warnings": list(issues.warnings), "samples": samples, "table": table})
)
