"""Turns that several take in proportion to their weights: who has the p-th one depends on p alone.

A Weyl sequence: turn p falls on the fraction part of p times the golden ratio, and each taker owns an interval of
[0, 1) as long as its share. No multiples lie more evenly than those of the golden ratio, and they fall in step with no
number of ranks. All of it is integer arithmetic in units of 2⁻⁶⁴, the same on every machine.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import accumulate, pairwise

from nextscene.shards.loading.shuffle import GOLDEN

_ONE = 1 << 64


@dataclass(frozen=True)
class WeightedInterleave:
    """`weights` are above 0. Of 100 turns each has its share to within 3, of a million to within 7."""

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.weights or not all(0 < weight < math.inf for weight in self.weights):
            raise ValueError(f"weights {list(self.weights)}: at least one, and each a number above 0")
        if any(begin == end for begin, end in pairwise(self.edges)):
            raise ValueError(f"weights {list(self.weights)}: the smallest is nothing beside the others")

    @cached_property
    def edges(self) -> tuple[int, ...]:
        """Where the takers' intervals begin and end, in order: from 0 to 2⁶⁴."""
        sums = [*accumulate(map(Fraction, self.weights), initial=Fraction(0))]
        return tuple(math.ceil(before * _ONE / sums[-1]) for before in sums)

    def at(self, place: int) -> tuple[int, int]:
        """Who has the turn at this place, and how many turns that one had before."""
        taker = bisect_right(self.edges, place * GOLDEN % _ONE) - 1
        begin, end = self.edges[taker : taker + 2]
        # ⌊x + 1 - begin⌋ - ⌊x + 1 - end⌋ is 1 where the fraction of x lies in [begin, end), and 0 elsewhere.
        return taker, _sum_of_floors(place, _ONE - begin) - _sum_of_floors(place, _ONE - end)


def _sum_of_floors(turns: int, plus: int) -> int:
    """Σ ⌊(GOLDEN · p + plus) / 2⁶⁴⌋ over p < turns, counted as lattice points under a line, by Euclid's algorithm."""
    total, divisor, factor = 0, _ONE, GOLDEN
    while True:
        total += turns * (turns - 1) // 2 * (factor // divisor) + turns * (plus // divisor)
        factor, plus = factor % divisor, plus % divisor
        turns, plus = divmod(factor * turns + plus, divisor)
        if not turns:
            return total
        divisor, factor = factor, divisor
