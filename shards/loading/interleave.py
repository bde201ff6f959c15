"""Weighted interleave of several sources: the source at position p depends on p alone, so it is deterministic.

A Weyl sequence: position p maps to the fractional part of p times the golden ratio, and each source owns an interval of
[0, 1) as long as its share. The multiples of the golden ratio are the most evenly spread, and do not align with any
number of ranks. The arithmetic is in integers, in units of 2⁻⁶⁴, the same on every machine.
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
    """The interleave by `weights` above 0. Of 100 positions each source has its share to within 3, of a million to
    within 7.
    """

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.weights or not all(0 < weight < math.inf for weight in self.weights):
            raise ValueError(f"weights {list(self.weights)}: at least one, and each a number above 0")
        if any(begin == end for begin, end in pairwise(self.edges)):
            raise ValueError(f"weights {list(self.weights)}: the smallest is too small beside the others")

    @cached_property
    def edges(self) -> tuple[int, ...]:
        """Return the edges of the sources' intervals, in order: from 0 to 2⁶⁴."""
        totals = [*accumulate(map(Fraction, self.weights), initial=Fraction(0))]
        return tuple(math.ceil(before * _ONE / totals[-1]) for before in totals)

    def at(self, position: int) -> tuple[int, int]:
        """Return the source at this position, and how many positions that source had before."""
        source = bisect_right(self.edges, position * GOLDEN % _ONE) - 1
        begin, end = self.edges[source : source + 2]
        # ⌊x + 1 - begin⌋ - ⌊x + 1 - end⌋ is 1 where the fraction of x lies in [begin, end), and 0 elsewhere.
        return source, _sum_of_floors(position, _ONE - begin) - _sum_of_floors(position, _ONE - end)


def _sum_of_floors(positions: int, plus: int) -> int:
    """Return Σ ⌊(GOLDEN · p + plus) / 2⁶⁴⌋ over p < positions: the lattice points under a line.

    By Euclid's algorithm.
    """
    total, divisor, factor = 0, _ONE, GOLDEN
    while True:
        total += positions * (positions - 1) // 2 * (factor // divisor) + positions * (plus // divisor)
        factor, plus = factor % divisor, plus % divisor
        positions, plus = divmod(factor * positions + plus, divisor)
        if not positions:
            return total
        divisor, factor = factor, divisor
