"""Prints what Megatron-Energon finds in a dataset: once through, {split: {key: {member: sha256}}}, and by file name."""

from __future__ import annotations

import json
import sys
from typing import Any, ClassVar

from digests import digest
from megatron.energon import (
    Cooker,
    DefaultTaskEncoder,
    Sample,
    WorkerConfig,
    edataclass,
    get_loader,
    get_val_dataset,
    stateless,
)
from megatron.energon.cache.file_store import WebdatasetFileStore
from megatron.energon.epathlib import EPath


@edataclass
class Digested(Sample):
    members: dict[str, str]


@stateless
def cook(sample: dict[str, Any]) -> Digested:
    members = {name: digest(data) for name, data in sample.items() if not name.startswith("__")}
    return Digested(
        __key__=sample["__key__"],
        __restore_key__=sample["__restore_key__"],
        __sources__=sample["__sources__"],
        members=members,
    )


class Encoder(DefaultTaskEncoder):
    decoder = None
    cookers: ClassVar = [Cooker(cook)]

    def batch(self, samples: list[Digested]) -> list[Digested]:
        return samples


def read_through(path: str, split: str) -> dict[str, dict[str, str]]:
    config = WorkerConfig(rank=0, world_size=1, num_workers=0)
    dataset = get_val_dataset(path, split_part=split, worker_config=config, batch_size=1, task_encoder=Encoder())
    samples = [sample for batch in get_loader(dataset) for sample in batch]
    found = {sample.__key__.rpartition("/")[2]: sample.members for sample in samples}
    assert len(found) == len(samples)
    return found


path = sys.argv[1]
through = {split: read_through(path, split) for split in ("train", "test")}
store = WebdatasetFileStore(EPath(path))
by_name = {
    split: {
        key: {member: digest(store[f"{key}.{member}"][0]) for member in members} for key, members in samples.items()
    }
    for split, samples in through.items()
}
print(json.dumps({"through": through, "by name": by_name}))
