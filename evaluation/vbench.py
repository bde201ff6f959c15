"""Folders of videos for VBench, which judges them itself.

Tested in tests/pipelines/test_generate.py.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nextscene.common.errors import UsageError
from nextscene.common.run_lock import hold_lock
from nextscene.common.storage import Storage
from nextscene.evaluation.progress import NewProgress, Silent
from nextscene.evaluation.video_folder import VIDEOS, VideoFolder
from nextscene.evaluation.videos import make_missing, plan_videos
from nextscene.shards.format.folder_mark import EVALUATION, claimed
from nextscene.training.generation.open_generator import GeneratorSpec

_MAX_NAME_BYTES = 220
"""Limit for the name of a video, which leaves room for the name of its temporary file."""


class UnusablePrompt(UsageError):
    """A prompt that cannot be used as a file name."""


@dataclass(frozen=True)
class VBenchFolder:
    """The folder of a model: its `videos`, of which `made` are new."""

    name: str
    folder: Path
    videos: int
    made: int


def fill_folders(
    models: Mapping[str, GeneratorSpec],
    prompts: Sequence[str],
    out: str | Path,
    *,
    samples: int = 5,
    seed: int = 0,
    batch: int = 1,
    progress: NewProgress = Silent,
) -> Iterator[VBenchFolder]:
    """Make the videos of each model and yield its folder: `out`/NAME/videos/{prompt}-{sample}.mp4, and nothing else.

    Raise UnusablePrompt if a prompt cannot be used as a file name.
    """
    for text in prompts:
        if "/" in text or not text.isprintable() or len(f"{text}-{samples - 1}.mp4".encode()) > _MAX_NAME_BYTES:
            raise UnusablePrompt(f"no file can be named {text[:80]!r}…: it is too long, or has what no name has")
    with claimed(Storage.at(out), EVALUATION) as place, hold_lock(place, uuid.uuid4().hex) as heartbeat:
        for name, spec in models.items():
            records = plan_videos(spec, prompts, samples, seed, lambda number, one: f"{prompts[number]}-{one}.mp4")
            folder = VideoFolder(heartbeat.out.subfolder(name), VIDEOS)
            made = make_missing(folder, spec, records, batch, progress(f"generating {name}"))
            yield VBenchFolder(name, folder.videos, len(records), made)
