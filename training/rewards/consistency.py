"""The paper's reward: a video is captioned by one who never sees the scene, and its caption is judged beside the scene.

The template is 10.1 of the supplement: Pass is 1, Fail is 0. Where nobody answers there is no reward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import timedelta
from decimal import Decimal

import torch.distributed as dist
from torch import Tensor

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage, StorageFault
from nextscene.judge.api.api_key import check_key
from nextscene.judge.base import Question
from nextscene.judge.errors import JudgeStopped, JudgeUsageError
from nextscene.judge.spending.prices import Prices
from nextscene.training import recipe
from nextscene.training.distributed.process_group import World
from nextscene.training.errors import TrainingPaused, TrainingStopped
from nextscene.training.rewards.asking import JudgeThread, RewardResult, to_verdicts
from nextscene.training.rewards.base import Candidate, RewardVerdict
from nextscene.training.rewards.frames import jpeg_frames

Captioner = Callable[[Tensor, float], str]
"""From uint8 [F, H, W, RGB] at so many frames a second to what it shows, in one line."""

_FLAG = "--judge-model"
_PATIENCE = timedelta(days=1)  # the judge has patience of its own, and the API limits on how fast it may be asked
_Asked = tuple[Question, str]
"""About a video, and the scene that it was made of."""
_Failure = UsageError | TrainingPaused


def check_terms(settings: recipe.RewardConfig, prices: Prices, world: World) -> None:
    """Before anything large is loaded. Raises UsageError, on all processes alike, without a price or a key."""
    mistake = ""
    try:
        prices.for_model(settings.judge.model, _FLAG)
        if world.is_leader:
            check_key(instead=", or train with --reward.kind retrieval")
    except JudgeUsageError as error:
        mistake = str(error)
    if mistake := world.from_leader(mistake):
        raise UsageError(mistake)


class CausalConsistency:
    """Only the leading process asks, with the key of its environment; the others hand it their questions.

    Answers are kept in `files`, in calls/; `budget`, in US dollars, bounds all that was ever spent on those.
    `captioner` is of this process; without one the judge captions. Raises UsageError or TrainingStopped on all
    processes alike.
    """

    name = "causal_consistency"

    def __init__(
        self,
        settings: recipe.RewardConfig,
        files: Storage,
        prices: Prices,
        budget: Decimal | None,
        world: World,
        captioner: Captioner | None = None,
    ) -> None:
        self._settings, self._world, self._captioner = settings.judge, world, captioner
        self._group = dist.new_group(backend="gloo", timeout=_PATIENCE)
        self._desk: _RequestBroker | None = None
        mistake, stop = "", ""
        if world.is_leader:
            try:
                price = prices.for_model(settings.judge.model, _FLAG)
                self._desk = _RequestBroker(JudgeThread(settings.judge, price, files, budget), world.size)
            except JudgeUsageError as error:
                mistake = str(error)
            except (JudgeStopped, StorageFault) as error:
                stop = str(error)
        mistake, stop = world.from_leader((mistake, stop))
        if mistake:
            raise UsageError(mistake)
        if stop:
            raise TrainingStopped(stop)

    def ask(self, candidates: Sequence[Candidate]) -> None:
        """As in `RewardConfig`. What keeps them from being asked about is told by `verdicts`."""
        mine = [self._asked(candidate) for candidate in candidates]
        everyones: list[list[_Asked]] = [[] for _ in range(self._world.size)]
        dist.gather_object(mine, everyones if self._desk else None, group=self._group)
        if self._desk:
            self._desk.take(everyones)

    def verdicts(self) -> list[RewardVerdict]:
        """As in `RewardConfig`. What was paid for once, for several candidates, is counted with the first of them."""
        box: list[list[RewardVerdict] | _Failure] = [[]]
        dist.scatter_object_list(box, self._desk.hand_out() if self._desk else None, group=self._group)
        if isinstance(box[0], Exception):
            raise box[0]
        return box[0]

    def end(self) -> None:
        """As in `RewardConfig`."""
        if self._desk:
            self._desk.asking.end()

    def _asked(self, candidate: Candidate) -> _Asked:
        video, fps, settings = candidate.video, candidate.fps, self._settings
        if self._captioner:
            return Question(candidate.clip_id, self._captioner(video, fps)), candidate.scene
        pictures = jpeg_frames(video, fps, settings.frames, settings.frame_height)
        return Question(candidate.clip_id, "", frames=pictures), candidate.scene


class _RequestBroker:
    """Where the questions of all processes come together."""

    def __init__(self, asking: JudgeThread, ranks: int) -> None:
        self.asking = asking
        self._under_way: list[list[Future[RewardResult]]] = [[] for _ in range(ranks)]
        self._failure: _Failure | None = None

    def take(self, everyones: Sequence[Sequence[_Asked]]) -> None:
        """[ranks]: asks on behalf of each."""
        if self._failure:
            return
        try:
            for under_way, asked in zip(self._under_way, everyones, strict=True):
                for question, scene in asked:
                    under_way.append(self.asking.submit(question, scene))
        except (JudgeStopped, StorageFault) as error:
            self._failure = TrainingPaused(str(error))

    def hand_out(self) -> list[list[RewardVerdict] | _Failure]:
        """[ranks]: the verdicts of each once all are there, or the one reason why there will be none."""
        try:
            dealt = [] if self._failure else self._collected()
        except JudgeUsageError as error:
            self._failure = UsageError(str(error))
        except (JudgeStopped, StorageFault) as error:
            self._failure = TrainingPaused(str(error))
        if self._failure:
            return [self._failure] * len(self._under_way)
        return dealt

    def _collected(self) -> list[list[RewardVerdict] | _Failure]:
        found = iter(to_verdicts(future.result() for under_way in self._under_way for future in under_way))
        dealt: list[list[RewardVerdict] | _Failure] = [
            [next(found) for _ in under_way] for under_way in self._under_way
        ]
        self.asking.flush()
        self._under_way = [[] for _ in self._under_way]
        return dealt
