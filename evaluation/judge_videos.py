"""Judging of the videos of a folder: a question about each, and a record of its verdict.

Tested in tests/evaluation/test_run.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nextscene.evaluation.video_judge import VideoJudge
from nextscene.shards.loading.decode import DamagedVideo, decode
from nextscene.training.errors import TrainingStopped
from nextscene.training.rewards.asking import RewardResult, to_verdicts

Record = Mapping[str, Any]
Item = dict[str, Any]

_AT_ONCE = 256
_LOOK_SECONDS = 0.5
_VERDICTS = {1.0: "Pass", 0.0: "Fail", None: ""}


def judge_folder(
    asking: VideoJudge, folder: Path, records: Sequence[Record], tick: Callable[[int], None]
) -> list[Item]:
    """Ask the judge about each video, and return an item for each, in order: its scene, file, caption and verdict.

    A record names `file` and `scene`, the video's `frames`, `width`, `height` and `fps`, and how it was made. `tick` is
    called with 1 for each video that is judged, and with 0 every half second while waiting.

    Raise JudgeUsageError, JudgeStopped or StorageFault; TrainingStopped if a video cannot be decoded.
    """
    under_way: deque[Future[RewardResult]] = deque()
    judged: list[RewardResult] = []

    def take() -> None:
        while not wait([under_way[0]], _LOOK_SECONDS).done:
            tick(0)
        judged.append(under_way.popleft().result())
        tick(1)

    for record in records:
        video = _pixels(folder, record)
        under_way.append(asking.submit(record["file"], video, record["fps"], record["scene"]))
        if len(under_way) == _AT_ONCE:
            take()
    while under_way:
        take()
    asking.flush()
    return list(_items(records, judged))


def reward_of(item: Mapping[str, Any]) -> float | None:
    """Return 1 for Pass, 0 for Fail, and None if the verdict is missing."""
    return {"Pass": 1.0, "Fail": 0.0}.get(item["verdict"])


def _pixels(folder: Path, record: Record) -> torch.Tensor:
    """Return the video as uint8 [F, H, W, RGB], decoded from the file, so that a second run sees the same frames.

    Raise TrainingStopped if it cannot be decoded.
    """
    file, size = folder / record["file"], (record["width"], record["height"])
    pixels = np.empty((record["frames"], *reversed(size), 3), np.uint8)
    try:
        decode(file.read_bytes(), size, pixels)
    except DamagedVideo as error:
        raise TrainingStopped(f"{file}: {error}; delete it, so that it is made anew") from error
    return torch.from_numpy(pixels)


def _items(records: Sequence[Record], judged: Sequence[RewardResult]) -> Iterator[Item]:
    for record, one, verdict in zip(records, judged, to_verdicts(judged), strict=True):
        yield {
            **{name: record[name] for name in ("scene", "seed", "file", "model")},
            "caption": one.caption,
            "verdict": _VERDICTS[one.reward],
            "reason": one.reason,
            "judge_model": one.model,
            "prompts": {call.task: call.prompt_sha256 for call in one.calls},
            "usd": str(verdict.usd),
        }
