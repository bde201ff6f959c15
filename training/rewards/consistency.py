"""The paper's reward: a captioner describes the video without knowing the scene, and a judge compares the two.

The prompt is template 10.1 of the supplement. Pass is 1 and Fail is 0, and of several verdicts on a candidate the mean
counts; without an answer there is no reward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from datetime import timedelta
from decimal import Decimal

import torch
import torch.distributed as dist

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage, StorageFault
from nextscene.judge.api.api_key import check_key
from nextscene.judge.base import Question
from nextscene.judge.errors import JudgeStopped, JudgeUsageError
from nextscene.judge.key_check import check_key_accepted
from nextscene.judge.spending.prices import Prices
from nextscene.shards.format.layout import MARK
from nextscene.training.config import RewardConfig
from nextscene.training.distributed.process_group import World
from nextscene.training.errors import StopRequested, TrainingPaused, TrainingStopped
from nextscene.training.job import TrainingJob
from nextscene.training.rewards.asking import JudgeThread, RewardResult, to_verdicts
from nextscene.training.rewards.base import Candidate, RewardContext, RewardVerdict
from nextscene.training.rewards.frames import Pictures, jpeg_frames, sampled_images

Captioner = Callable[[Sequence[Pictures]], list[str]]
"""Pictures of some videos → a caption of each, in one line."""

_MODEL_SETTING = "reward.judge.model"
_LOOK_EVERY_SECONDS = 0.5
_TIMEOUT = timedelta(days=1)  # the judge retries by itself, and the API limits its rate
_SceneQuestion = tuple[Question, str]
"""A question about a video, and the scene that the video was generated for."""
_Failure = UsageError | TrainingPaused


class CausalConsistency:
    """The reward `causal_consistency`. Only the leading rank calls the API; the others send it their questions."""

    name = "causal_consistency"

    def __init__(
        self,
        config: RewardConfig,
        files: Storage,
        prices: Prices,
        budget: Decimal | None,
        world: World,
        captioner: Captioner | None = None,
        captioned_together: int = 1,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Store answers in `files`, in calls/, and spend at most `budget` US dollars on them in all runs together.

        Without a `captioner` in this process the judge writes the captions. With one, so many candidates are captioned
        together, and asked about then. Once `stopping` returns True on a rank, no rank waits for verdicts any longer.
        Raise UsageError, on all ranks alike, without a price or an API key, and TrainingStopped if the stored answers
        cannot be used.
        """
        self._settings, self._world, self._captioner = config.judge, world, captioner
        self._captioned_together, self._stopping = captioned_together, stopping
        self._uncaptioned: list[tuple[str, str, Pictures]] = []  # clip, scene
        self._group = dist.new_group(backend="gloo", timeout=_TIMEOUT)
        self._broker: _RequestBroker | None = None
        mistake, stop = "", ""
        if world.is_leader:
            try:
                price = prices.for_model(config.judge.model, _MODEL_SETTING)
                judge = JudgeThread(config.judge, price, files, budget)
                self._broker = _RequestBroker(judge, world.size, config.verdicts)
            except JudgeUsageError as error:
                mistake = str(error)
            except (JudgeStopped, StorageFault) as error:
                stop = str(error)
        mistake, stop = world.from_leader((mistake, stop))
        if mistake:
            raise UsageError(mistake)
        if stop:
            raise TrainingStopped(stop)

    @staticmethod
    def check(job: TrainingJob, world: World) -> None:
        """Raise UsageError, on all ranks alike, without a price of the judge's model or a key that the API accepts."""
        mistake = ""
        try:
            job.prices.for_model(job.recipe.reward.judge.model, _MODEL_SETTING)
            if world.is_leader:
                check_key(instead=", or train with `reward.kind` retrieval")
                check_key_accepted(Storage.at(job.folder), job.recipe.reward.judge.model)
        except JudgeUsageError as error:
            mistake = str(error)
        if mistake := world.from_leader(mistake):
            raise UsageError(mistake)

    @classmethod
    def build(cls, context: RewardContext) -> CausalConsistency:
        """Return the reward, with the captioner that the recipe names. Its answers are in the folder of the stage."""
        job, world = context.job, context.world
        config, captioner = job.recipe.reward, None
        if config.captioner == "qwen":
            from nextscene.training.rewards.captioner import QwenCaptioner

            captioner = QwenCaptioner(job.pretrained.qwen, world.device, context.language)
        run = Storage.at(job.run)
        if run.stat(MARK):  # the training command has claimed the folder
            run = run.with_anchor(MARK)
        files, together = run.subfolder(job.recipe.name), job.recipe.policy.group_size
        return cls(config, files, job.prices, job.budget, world, captioner, together, context.stopping)

    def ask(self, candidates: Sequence[Candidate]) -> None:
        """Send the candidates to the leading rank. If they cannot be judged, `verdicts` raises the reason.

        Candidates that are captioned in this process are sent when a group of them is complete.
        """
        settings = self._settings
        if not self._captioner:
            self._send([self._question(candidate) for candidate in candidates])
            return
        for one in candidates:  # only some pictures are kept, not the video
            pictures = list(sampled_images(one.video, one.fps, settings.frames, settings.frame_height))
            self._uncaptioned.append((one.clip_id, one.scene, pictures))
        if len(self._uncaptioned) >= self._captioned_together:
            self._send_captioned()

    def _send_captioned(self) -> None:
        waiting, self._uncaptioned = self._uncaptioned, []
        if waiting and self._captioner:
            captions = self._captioner([pictures for *_, pictures in waiting])
            asked = zip(waiting, captions, strict=True)
            self._send([(Question(clip_id, caption), scene) for (clip_id, scene, _), caption in asked])

    def _send(self, mine: list[_SceneQuestion]) -> None:
        questions: list[list[_SceneQuestion]] = [[] for _ in range(self._world.size)]
        dist.gather_object(mine, questions if self._broker else None, group=self._group)
        if self._broker:
            self._broker.submit(questions)

    def verdicts(self) -> list[RewardVerdict]:
        """Wait, and return the verdicts of this rank. If candidates share an answer, the first of them has its cost.

        Raise UsageError or TrainingPaused, on all ranks alike, after an error that ended the asking, and StopRequested
        if a rank is to stop before all answers are there.
        """
        self._send_captioned()
        self._wait()
        box: list[list[RewardVerdict] | _Failure] = [[]]
        dist.scatter_object_list(box, self._broker.results() if self._broker else None, group=self._group)
        if isinstance(box[0], Exception):
            raise box[0]
        return box[0]

    def _wait(self) -> None:
        """Wait until all answers are there. The ranks tell each other regularly whether to wait on."""
        while True:
            waiting = self._broker is not None and not self._broker.wait(_LOOK_EVERY_SECONDS)
            said = torch.tensor([waiting, self._stopping()], dtype=torch.int32)
            dist.all_reduce(said, dist.ReduceOp.MAX, group=self._group)
            if not said[0]:
                return
            if said[1]:
                raise StopRequested

    def close(self) -> None:
        """Stop asking, and store the answers of calls in flight."""
        if self._broker:
            self._broker.judge.close()

    def _question(self, candidate: Candidate) -> _SceneQuestion:
        settings = self._settings
        pictures = jpeg_frames(candidate.video, candidate.fps, settings.frames, settings.frame_height)
        return Question(candidate.clip_id, "", frames=pictures), candidate.scene


class _RequestBroker:
    """The questions of all ranks, collected on the leading rank."""

    def __init__(self, judge: JudgeThread, ranks: int, verdicts: int) -> None:
        self.judge, self._verdicts = judge, verdicts
        self._in_flight: list[list[Future[RewardResult]]] = [[] for _ in range(ranks)]
        self._failure: _Failure | None = None

    def submit(self, questions: Sequence[Sequence[_SceneQuestion]]) -> None:
        """Submit the questions of each rank, [ranks]."""
        if self._failure:
            return
        try:
            for in_flight, own in zip(self._in_flight, questions, strict=True):
                for question, scene in own:
                    in_flight.append(self.judge.submit(question, scene, self._verdicts))
        except (JudgeStopped, StorageFault) as error:
            self._failure = TrainingPaused(str(error))

    def wait(self, seconds: float) -> bool:
        """Wait up to so many seconds, and return whether all answers are there, or can never be."""
        futures = [future for in_flight in self._in_flight for future in in_flight]
        return self._failure is not None or not wait(futures, seconds).not_done

    def results(self) -> list[list[RewardVerdict] | _Failure]:
        """Wait for all answers. Return the verdicts of each rank, [ranks], or the one error that ends the asking."""
        try:
            results = [] if self._failure else self._collected()
        except JudgeUsageError as error:
            self._failure = UsageError(str(error))
        except (JudgeStopped, StorageFault) as error:
            self._failure = TrainingPaused(str(error))
        if self._failure:
            return [self._failure] * len(self._in_flight)
        return results

    def _collected(self) -> list[list[RewardVerdict] | _Failure]:
        found = iter(to_verdicts(future.result() for in_flight in self._in_flight for future in in_flight))
        results: list[list[RewardVerdict] | _Failure] = [
            [next(found) for _ in in_flight] for in_flight in self._in_flight
        ]
        self.judge.flush()
        self._in_flight = [[] for _ in self._in_flight]
        return results
