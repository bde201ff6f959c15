"""Dealing: the samples of a global batch given to the ranks, turn by turn, so that the ranks of a turn cost alike.

The ranks of a sharded model wait for one another in each layer, so a turn takes as long as its dearest piece. Which
samples an optimizer step learns from is the order's decision alone (`shards.loading.shuffle`); dealing only decides who
computes them together with whom.

A turn is built around its dearest samples: the size of their pieces bounds the cost of all pieces of the turn, and the
other ranks get pieces of the next cheaper buckets, as large as that bound and the micro-batch allow. Of all sizes the
one is taken by which the turn does most work for its time. Nothing is random, and the same samples are dealt alike on
every rank and machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from nextscene.shards.loading.shuffle import IntArray, SampleRef


class Piece(NamedTuple):
    """The work of one rank in one turn: samples of one bucket.

    `weight` is 1, or 0 for a filler: a sample of another piece once more, for a rank that has no piece in this turn.
    All ranks must take part in each turn of a sharded model. `last` is True in the last turn of a global batch.
    """

    refs: list[SampleRef]
    weight: float = 1.0
    last: bool = True


@dataclass(frozen=True)
class Dealing:
    """The dealing of a `Loader`: the size of a global batch, and the cost of each sample of its data.

    The costs, [samples], are above 0, and those of a bucket are the same.
    """

    global_batch: int
    costs: IntArray


@dataclass(frozen=True)
class Dealer:
    """A dealer of pieces of up to `micro_batch` samples to `world` ranks.

    `costs` and `bucket` are those of each sample, [samples].
    """

    costs: IntArray
    bucket: IntArray
    micro_batch: int
    world: int

    def deal(self, refs: Sequence[SampleRef]) -> list[list[Piece]]:
        """Return the pieces of a global batch, [turns][world]. The dearest samples are in the last turn.

        The gradients are reduced in that turn, and its long backward pass hides that best.
        """
        buckets: dict[int, list[SampleRef]] = {}
        for ref in refs:
            buckets.setdefault(int(self.bucket[ref.number]), []).append(ref)
        costs = {bucket: int(self.costs[members[0].number]) for bucket, members in buckets.items()}
        order = sorted(buckets, key=lambda bucket: (-costs[bucket], bucket))
        groups = tuple(Group(costs[bucket], len(buckets[bucket]), self.micro_batch) for bucket in order)
        supplies = [iter(buckets[bucket]) for bucket in order]
        filler = Piece(buckets[order[-1]][:1], weight=0.0)
        turns = []
        for shares in plan_turns(groups, self.world):
            pieces = [Piece([next(supplies[share.group]) for _ in range(share.size)]) for share in shares]
            turns.append(pieces + [filler] * (self.world - len(pieces)))
        turns.reverse()
        # The dearest pieces go to the first ranks and to the last ones in turn, so that all read and decode alike.
        dealt = [pieces[::-1] if number % 2 else pieces for number, pieces in enumerate(turns)]
        return [[piece._replace(last=pieces is dealt[-1]) for piece in pieces] for pieces in dealt]


class Group(NamedTuple):
    """The samples of a bucket in a global batch: the cost of each, how many, and how many of them a piece may hold."""

    cost: int
    samples: int
    limit: int


class Share(NamedTuple):
    """A piece of a plan: so many samples of the group with this place."""

    group: int
    size: int


@lru_cache(maxsize=256)  # the global batches of a few buckets are often composed alike
def plan_turns(groups: tuple[Group, ...], world: int) -> tuple[list[Share], ...]:
    """Return the turns of a global batch, the dearest first. Each has a share for up to `world` ranks.

    `groups` are in descending order of their costs.

    A pass through the model takes time of its own, besides that of its samples: the launches of its kernels and the
    gathering of its weights. It is taken as that of one average sample; so samples are not scattered over many small
    passes to balance them a little better.
    """
    own = sum(group.cost * group.samples for group in groups) // sum(group.samples for group in groups)
    left = [group.samples for group in groups]
    turns = []
    while any(left):
        dearest = next(place for place, count in enumerate(left) if count)
        sizes = range(min(groups[dearest].limit, left[dearest]), 0, -1)  # of equally good ones the largest is taken
        filled = [_fill(groups, left, world, dearest, size) for size in sizes]
        turn = max(filled, key=lambda shares: _rate(groups, shares, own))
        for share in turn:
            left[share.group] -= share.size
        turns.append(turn)
    return tuple(turns)


def _fill(groups: Sequence[Group], left: Sequence[int], world: int, dearest: int, size: int) -> list[Share]:
    """Return a turn whose pieces cost at most as much as `size` samples of the group `dearest`."""
    bound = size * groups[dearest].cost
    shares: list[Share] = []
    for place in range(dearest, len(groups)):
        most = min(groups[place].limit, bound // groups[place].cost)
        pieces = min(world - len(shares), -(-left[place] // most))
        if pieces:
            whole, more = divmod(min(left[place], pieces * most), pieces)
            shares += [Share(place, whole + (number < more)) for number in range(pieces)]
    return shares


def _rate(groups: Sequence[Group], shares: Sequence[Share], own: int) -> Fraction:
    """Return the work of a turn over its time, in which a pass takes `own` time besides that of its samples."""
    costs = [share.size * groups[share.group].cost for share in shares]
    return Fraction(sum(costs), max(costs) + own)
