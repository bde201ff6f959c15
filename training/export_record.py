"""The description of an export, `nextscene.json` there: the checkpoint that it equals, its summary, data and origin.

Tested in tests/training/test_initial_weights.py.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from nextscene.common.errors import DataError
from nextscene.common.hashing import file_sha256
from nextscene.common.storage import Storage, StorageFault, split_query
from nextscene.shards.format.layout import MANIFEST
from nextscene.shards.format.manifest import Manifest
from nextscene.training.checkpoint_info import CheckpointInfo
from nextscene.training.job import TrainingJob
from nextscene.training.model.hub import hub_id
from nextscene.training.model.model_folders import is_export, read_export_info
from nextscene.training.summary import StageSummary


def export_record(job: TrainingJob, info: CheckpointInfo, summary: StageSummary) -> dict[str, Any]:
    """Return the description of the export of a finished stage.

    Datasets and models are named without their places, which mean nothing elsewhere.
    """
    return {
        **asdict(info),
        "summary": asdict(summary),
        "data": {name: _describe_dataset(place) for name, place in job.data.items()},
        "originals": _originals(job.pretrained.qwen, job.pretrained.ltx),
    }


def _describe_dataset(place: str) -> dict[str, Any]:
    """Return the name of a dataset, the SHA-256 of its manifest, and its samples of each split.

    A dataset that cannot be read any more must not cost a trained model: only its name is returned.
    """
    name = split_query(place)[0].rstrip("/").rpartition("/")[2]
    try:
        out = Storage.at(place)
        manifest = Manifest.read(out)
        counts = {split: sum(shard.count for shard in manifest.of_split(split)) for split in manifest.splits}
        return {"name": name, "sha256": file_sha256(out, MANIFEST), "samples": counts}
    except (OSError, StorageFault, DataError):
        return {"name": name}


def _originals(qwen: Path, ltx: Path) -> dict[str, str]:
    """Return the hub ids, with revisions, of the models that were trained; "" for one from another folder."""
    if is_export(ltx):
        before: dict[str, str] = read_export_info(ltx).get("originals", {})
        return before
    return {"qwen": hub_id(qwen), "ltx": hub_id(ltx)}
