"""Generation of the videos of a model that are missing in a folder.

Tested in tests/pipelines/test_generate.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nextscene.evaluation.progress import VideoProgress
from nextscene.evaluation.seeds import video_seed
from nextscene.evaluation.video_folder import Record, VideoFolder

if TYPE_CHECKING:
    from nextscene.training.generation.base import Generator
    from nextscene.training.generation.open_generator import GeneratorSpec


def video_record(spec: GeneratorSpec, file: str, scene: str, seed: int) -> Record:
    """Return the record of a video that is to be made: all settings that determine it."""
    return {"file": file, "scene": scene, "seed": seed, "model": spec.name, **asdict(spec.sampling)}


def plan_videos(
    spec: GeneratorSpec, scenes: Sequence[str], samples: int, seed: int, name_file: Callable[[int, int], str]
) -> list[Record]:
    """Return the records of `samples` videos of each scene. `name_file` gets the numbers of scene and sample."""
    return [
        video_record(spec, name_file(number, sample), scene, video_seed(seed, scene, sample))
        for number, scene in enumerate(scenes)
        for sample in range(samples)
    ]


def make_missing(
    folder: VideoFolder, spec: GeneratorSpec, records: Sequence[Record], batch: int, progress: VideoProgress
) -> int:
    """Make the videos that the folder lacks, `batch` at a time, and return their number.

    The next batch is generated while the last one is encoded. The model is opened only if a video is missing. Raise
    UsageError if another file has the name of a video, and the errors of `VideoFolder.put`.
    """
    missing = [record for record in records if not folder.holds(record)]
    if not missing:
        return 0
    folder.check(missing)
    generator = open_generator(spec)
    folder.claim(missing)
    progress.begin(len(records), len(records) - len(missing))
    try:
        with ThreadPoolExecutor(1) as writer:
            writing: Future[None] | None = None
            for at in range(0, len(missing), batch):
                some = missing[at : at + batch]
                videos = generate(generator, some)
                if writing:
                    writing.result()
                writing = writer.submit(folder.put, some, videos)
                progress.advance(len(some))
                progress.tick()
            if writing:
                writing.result()
    finally:
        progress.end()
    return len(missing)


def open_generator(spec: GeneratorSpec) -> Generator:
    """Open the model on the device of this process, with the progress bars of the libraries disabled."""
    from nextscene.training.distributed.process_group import local_device
    from nextscene.training.model.quiet_libraries import silence_libraries

    silence_libraries()
    return spec.open(local_device())


def generate(generator: Generator, records: Sequence[Record]) -> Any:
    """Return the videos of these records, uint8 [B, F, H, W, RGB], as a NumPy array."""
    return generator.videos([one["scene"] for one in records], [one["seed"] for one in records]).numpy()
