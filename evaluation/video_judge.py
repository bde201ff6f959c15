"""Judges of generated videos: Claude, as in the paper, and the verifier of the sample world, which reads pixels.

Tested in tests/evaluation/test_video_judge.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Protocol

from torch import Tensor

from nextscene.common.storage import Storage
from nextscene.judge.base import Question
from nextscene.judge.call_progress import CallProgress
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.run_ownership import RunOwnershipCheck
from nextscene.judge.spending.prices import Price, Prices
from nextscene.samples.shapes.check import check_clip
from nextscene.training.rewards.asking import JudgeThread, RewardResult
from nextscene.training.rewards.frames import jpeg_frames


@dataclass(frozen=True)
class VideoJudgeTerms:
    """All that a judge is opened with: settings and price of Claude, the budget, and the folder of the answers.

    `run` is the id of the run that holds the folder's lock. A `price` of None is taken from the table of prices.
    """

    claude: ClaudeConfig
    price: Price | None
    folder: Storage
    budget: Decimal | None
    run: str


class VideoJudge(Protocol):
    """A judge that says if videos follow from scenes. `settings` tell of it in `summary.json`."""

    settings: Mapping[str, Any]

    def submit(self, file: str, video: Tensor, fps: float, scene: str) -> Future[RewardResult]:
        """Ask about a video, uint8 [F, H, W, RGB], which `file` names. The future raises the errors of the judge."""
        ...

    def flush(self) -> None:
        """Wait until every answer so far is stored."""
        ...

    def report(self) -> CallProgress:
        """Return the progress of the calls so far."""
        ...

    def close(self) -> None:
        """Stop asking. It never raises or hangs."""
        ...


class ClaudeVideoJudge:
    """Claude captions each video without knowing the scene, and then says if the caption follows from the scene."""

    def __init__(self, terms: VideoJudgeTerms) -> None:
        """Raise the errors of JudgeThread, and JudgeUsageError for a model without a price."""
        price = terms.price or Prices.load().for_model(terms.claude.model, "judge.model")
        owned = RunOwnershipCheck(terms.folder, terms.run).check
        self._thread = JudgeThread(terms.claude, price, terms.folder, terms.budget, check_ownership=owned)
        self._claude = terms.claude
        # Each video is asked about once.
        self.settings: Mapping[str, Any] = {
            name: value for name, value in asdict(self._thread.settings).items() if name != "rounds"
        }

    def submit(self, file: str, video: Tensor, fps: float, scene: str) -> Future[RewardResult]:
        """Ask about a video. The future raises JudgeUsageError, JudgeStopped or StorageFault."""
        pictures = jpeg_frames(video, fps, self._claude.frames, self._claude.frame_height)
        return self._thread.submit(Question(file, "", frames=pictures), scene)

    def flush(self) -> None:
        """Wait until every answer so far is stored. Raise StorageFault if one cannot be stored."""
        self._thread.flush()

    def report(self) -> CallProgress:
        """Return the progress of the calls so far."""
        return self._thread.report()

    def close(self) -> None:
        """Stop asking, and store the answers of calls in flight."""
        self._thread.close()


class ShapesVideoJudge:
    """The verifier of the sample world of moving shapes. It makes no calls, and costs nothing."""

    def __init__(self, terms: VideoJudgeTerms) -> None:
        self.settings: Mapping[str, Any] = {"model": "shapes"}
        self._answers = 0

    def submit(self, file: str, video: Tensor, fps: float, scene: str) -> Future[RewardResult]:
        """Judge a video at once. There is no verdict if the scene is none of the world's."""
        answer: Future[RewardResult] = Future()
        try:
            check = check_clip(video.numpy(), scene)
            answer.set_result(RewardResult(float(check.passed), check.reason, check.caption, "shapes", ()))
        except ValueError as error:
            answer.set_result(RewardResult(None, str(error), "", "shapes", ()))
        self._answers += 1
        return answer

    def flush(self) -> None:
        """Do nothing: nothing is stored but the items."""

    def report(self) -> CallProgress:
        """Return the number of answers."""
        return CallProgress(self._answers, Decimal(0), Decimal(0), 0, 0, "")

    def close(self) -> None:
        """Do nothing: no call is in flight."""


VIDEO_JUDGES: dict[str, Callable[[VideoJudgeTerms], VideoJudge]] = {
    "claude": ClaudeVideoJudge,
    "shapes": ShapesVideoJudge,
}
"""Name of each judge of videos → how it is opened. A new one is an entry here."""
