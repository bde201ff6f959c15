"""The work of learning, dealt evenly to all ranks, wherever the candidates were sampled.

A group without spread teaches nothing, so some ranks may have much to learn from their groups and others nothing. A
*lesson* is what every rank knows of a group that teaches; a *term* is one timestep of a batch of its candidates, the
unit that is dealt. A rank that is dealt a term of another rank's group receives the tokens before and after the step:
8 bytes per candidate, token and channel, so 3.6 MB at 65 frames of 832×480, and 40 MB for all 11 steps of a candidate.
Learning from such a step takes a third of a second on an H200. Nothing moves if all groups teach.

Tested in tests/training/objectives/grpo/test_dealing.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from nextscene.training.model.grid import Grid
from nextscene.training.model.language import TokenBatch
from nextscene.training.objectives.grpo.advantage import Selected
from nextscene.training.objectives.grpo.judged_group import JudgedGroup

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Lesson:
    """A group that was drawn, as every rank knows it. Its candidates are on the rank `owner`, where it is `place`.

    `draw` orders the groups of a step: by round, and within a round by lot, so that the order is the same for every
    number of ranks. `channels` is the number of channels of the video's tokens.
    """

    owner: int
    place: int
    draw: tuple[int, int]
    has_spread: bool
    text_tokens: TokenBatch
    grid: Grid
    fps: Tensor
    channels: int
    sigmas: list[float]
    kept: list[Selected]
    steps: list[int]

    @staticmethod
    def of(one: JudgedGroup, owner: int, place: int, draw: tuple[int, int], has_spread: bool) -> Lesson:
        """Return what other ranks must know of a group of this rank, with tensors on the CPU."""
        scene = one.group.scene
        return Lesson(
            owner,
            place,
            draw,
            has_spread,
            scene.text_tokens.to(_CPU),
            scene.grid,
            scene.fps.to(_CPU),
            scene.noise.shape[-1],
            one.group.sigmas,
            one.kept,
            one.steps,
        )

    def to(self, device: torch.device) -> Lesson:
        """Return the lesson with its tensors on a device."""
        return replace(self, text_tokens=self.text_tokens.to(device), fps=self.fps.to(device))


def choose(drawn: Sequence[Lesson], count: int, with_flat: bool) -> list[Lesson]:
    """Return up to `count` of the groups to learn from: the first ones with spread.

    If there are too few and `with_flat`, the first ones without spread fill the places, since a KL penalty teaches of
    these too. The groups are in the order of their owners, so that a rank is dealt terms of its own groups.
    """
    in_order = sorted(drawn, key=lambda lesson: lesson.draw)
    ranked = sorted(in_order, key=lambda lesson: not lesson.has_spread)
    chosen = [lesson for lesson in ranked if lesson.has_spread or with_flat][:count]
    return sorted(chosen, key=lambda lesson: (lesson.owner, lesson.place))


class Term(NamedTuple):
    """One timestep of some candidates: the number of the lesson, the candidates, and the step.

    A filler is computed at a weight of 0, because all ranks must call a sharded model equally often.
    """

    lesson: int
    kept: tuple[Selected, ...]
    step: int
    is_filler: bool = False

    @property
    def candidates(self) -> tuple[int, tuple[Selected, ...], bool]:
        """The lesson and the candidates: equal for terms that differ in the step alone."""
        return self.lesson, self.kept, self.is_filler


def deal(lessons: Sequence[Lesson], batch: int, world: int) -> list[list[Term]]:
    """Return the terms of each rank, [world], as many for each; each with `batch` candidates.

    All terms in order are divided into runs, so that a rank has terms of few lessons.
    """
    terms = [
        Term(number, tuple(lesson.kept[begin : begin + batch]), step)
        for number, lesson in enumerate(lessons)
        for begin in range(0, len(lesson.kept), batch)
        for step in lesson.steps
    ]
    each = -(-len(terms) // world)
    filled = terms + [terms[-1]._replace(is_filler=True)] * (each * world - len(terms))
    return [filled[each * rank : each * (rank + 1)] for rank in range(world)]


class TermBatch(NamedTuple):
    """Consecutive terms of the same candidates of one lesson, on the device.

    `tokens` [terms, 2, B, S, C] are the tokens before and after each step, `log_probs` [terms, B] its log-probabilities
    in sampling. `advantage` and `weight` [B] are those of the candidates, 0 in a filler.
    """

    terms: list[Term]
    tokens: Tensor
    log_probs: Tensor
    advantage: Tensor
    weight: Tensor


class DealtTerms:
    """The terms of this rank, with the steps of their candidates: its own, or received from the rank that has them."""

    def __init__(
        self,
        lessons: Sequence[Lesson],
        dealt: Sequence[Sequence[Term]],
        own: Sequence[JudgedGroup],
        rank: int,
        group: dist.ProcessGroup | None,
    ) -> None:
        """Exchange the steps over `group`, which must accept tensors on the CPU. All ranks call this alike.

        `own` are all groups of this rank, by their place.
        """
        self.terms = list(dealt[rank])
        self._lessons, self._own = lessons, own
        self._received: list[Tensor | None] = [None] * len(self.terms)
        messages, transfers = [], []
        for learner, terms in enumerate(dealt):
            for place, term in enumerate(terms):
                owner = lessons[term.lesson].owner
                if term.is_filler or owner == learner or rank not in (owner, learner):
                    continue
                if rank == learner:
                    message = self._received[place] = self._blank(term)
                    transfers.append(dist.irecv(message, owner, group))
                else:
                    message = self._own_step(term)
                    transfers.append(dist.isend(message, learner, group))
                messages.append(message)  # its memory is in use until the transfer ends
        for transfer in transfers:
            if transfer:
                transfer.wait()

    def batches(self, device: torch.device) -> Iterator[TermBatch]:
        """Yield all terms in batches, each copied to the device at once."""
        for (number, kept, is_filler), numbered in groupby(enumerate(self.terms), key=lambda item: item[1].candidates):
            places, terms = map(list, zip(*numbered, strict=True))
            lesson, size = self._lessons[number], len(kept)
            steps = torch.stack([self._step(place) for place in places])
            tokens = steps[:, :-size].reshape(len(terms), 2, size, lesson.grid.tokens, lesson.channels)
            of_candidates = [[0.0, 0.0] if is_filler else [one.advantage, one.weight] for one in kept]
            advantage, weight = _moved(torch.tensor(of_candidates).T.contiguous(), device)
            yield TermBatch(
                terms, _moved(tokens, device), _moved(steps[:, -size:].contiguous(), device), advantage, weight
            )

    def _step(self, place: int) -> Tensor:
        term, received = self.terms[place], self._received[place]
        if received is not None:
            return received
        return self._blank(term).zero_() if term.is_filler else self._own_step(term)

    def _blank(self, term: Term) -> Tensor:
        lesson, size = self._lessons[term.lesson], len(term.kept)
        return torch.empty(2 * size * lesson.grid.tokens * lesson.channels + size)

    def _own_step(self, term: Term) -> Tensor:
        """Return a step of candidates of this rank, flat: the tokens before and after it, and its log-probabilities."""
        rollouts = self._own[self._lessons[term.lesson].place].group.rollouts
        size = rollouts[0].final.shape[0]
        rows = [(rollouts[one.number // size], one.number % size) for one in term.kept]
        before, after = ([one.trajectory[step, row] for one, row in rows] for step in (term.step, term.step + 1))
        log_probs = torch.stack([one.log_probs[term.step, row] for one, row in rows])
        return torch.cat([*(tokens.flatten() for tokens in (*before, *after)), log_probs])


def _moved(values: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU on the device. A copy to a GPU is not waited for."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values
