"""What a run would pay for: every clip that is not decided yet, less the answers that are stored already."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from curation.config import Config
from curation.judging import drawer_of
from curation.plan import Plan
from curation.scenes import decide
from curation.sources import Source
from curation.sources.clip import IMAGE_SUFFIXES
from curation.state import State
from curation.work import remaining
from judge.answer import Answer
from judge.base import Question
from judge.claude import ClaudeJudge
from judge.estimate import Ahead, Assumptions, Bill, Estimator
from judge.prices import Price
from judge.request import Request
from judge.store import read_drawer
from shards.storage import Storage


def estimate(
    source: Source, out: Storage, config: Config, planned: bool, price: Price, cases: Mapping[str, Assumptions]
) -> tuple[int, dict[str, Bill]]:
    """The number of clips still to be decided, and each case's bill for them. Asks nothing and writes nothing."""
    estimators = {case: Estimator(config.claude, price, assumed) for case, assumed in cases.items()}
    bills = dict.fromkeys(cases, Bill())
    count = 0
    for clip in _planned(out, config, price) if planned else _of_source(source, config):
        count += 1
        for case, estimator in estimators.items():
            bills[case] += estimator.bill(clip)
    return count, bills


def _of_source(source: Source, config: Config) -> Iterator[Ahead]:
    for clip in source.clips():
        yield Ahead(clip.caption, _pictures(clip.location, config))


def _planned(out: Storage, config: Config, price: Price) -> Iterator[Ahead]:
    plan = Plan(out, config)
    for shard in remaining(plan, State.read(out, config.units_per_shard)):
        for unit in shard.todo:
            answers = read_drawer(out, drawer_of(unit))
            for clip in unit.clips:
                ahead = Ahead(clip.caption, _pictures(clip.location, config))
                # The frames that a question without a caption is made of would have to be decoded.
                known = answers and clip.caption
                yield _Told(answers).far(ahead, config, price, clip.clip_id) if known else ahead


class _NotTold(Exception):
    """The first question without a stored answer."""


class _Told:
    """Stands in for asking: gives stored answers, and counts how far they go."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self._answers = answers
        self._tasks: list[str] = []

    async def ask(self, request: Request, drawer: str, place: int) -> Answer:
        if request.key not in self._answers:
            raise _NotTold
        self._tasks.append(request.task)
        return self._answers[request.key]

    def has_answer(self, request: Request, drawer: str) -> bool:
        return request.key in self._answers

    def far(self, clip: Ahead, config: Config, price: Price, clip_id: str) -> Ahead:
        """The clip with what is known of it; decided but not cut, it has no round left."""
        try:
            asyncio.run(decide(ClaudeJudge(config.claude, price, self), Question(clip_id, clip.caption)))
        except _NotTold:
            described, verified = self._tasks.count("describe"), self._tasks.count("verify")
            return Ahead(clip.caption, clip.pictures, min(verified, described), described > verified)
        return Ahead(clip.caption, clip.pictures, config.claude.rounds)


def _pictures(location: str, config: Config) -> int:
    """A video is taken to be long enough for all."""
    return 1 if PurePosixPath(location).suffix.casefold() in IMAGE_SUFFIXES else config.claude.frames
