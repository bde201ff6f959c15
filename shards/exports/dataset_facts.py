"""The facts of a dataset that its cards state and its shards do not.

Tested in tests/shards/exports/test_exports.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nextscene.shards.format.sample import IMAGES_ARE_JPEGS

_RECORD_FIELDS: Mapping[str, str] = {
    "clip_id": "the key",
    "source": "the source video, relative to the source, or as the manifest of the source writes it",
    "start": "seconds in the source video where the clip begins",
    "end": "seconds in the source video where the span ends",
    "caption": "what the clip shows",
    "scene_description": "what came before it; empty where there is no scene",
    "verdict": "Pass, or empty where no scene was verified",
    "rounds": "how often a scene was described and verified",
    "judge": "the judge, which decides where scenes come from and whether they are verified",
    "judge_model": "the model that gave the verdict, or empty",
    "prompt_sha256": "of the template that asked for the scene, or empty",
    "frames": "frames of the clip",
    "fps": "frames a second of the clip",
    "width": "pixels of the clip",
    "height": "pixels of the clip",
    "mp4_sha256": "of the video file",
    "source_width": "pixels of the source video as displayed",
    "source_height": "pixels of the source video as displayed",
    "provenance": "further columns of the source's manifest as a JSON object, or empty",
}


def record_fields(schema_version: int) -> Mapping[str, str]:
    """Return the meaning of each field of a sample's JSON, in a few words."""
    if schema_version < IMAGES_ARE_JPEGS:
        return _RECORD_FIELDS
    return {**_RECORD_FIELDS, "mp4_sha256": "of the mp4, or of the jpg"}


@dataclass(frozen=True)
class DatasetFacts:
    """The facts that a run knows of a dataset and its shards do not state.

    `outcomes` are (outcome, reason, count) of all planned clips; `method` is one sentence. `machine_written` says
    whether a language model wrote some of the texts.
    """

    title: str
    judge: str
    method: str
    machine_written: bool
    outcomes: tuple[tuple[str, str, int], ...]
