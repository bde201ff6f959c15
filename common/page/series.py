"""Series of numbers over steps in bounded memory: buckets with mean, minimum and maximum, and a smoothed line."""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_BUCKETS = 240
_SMOOTHED_SHARE = 0.025
_SMOOTHED_FROM = 20


@dataclass(frozen=True)
class Point:
    """One or more neighboring numbers of a series: the last step, their mean, minimum, maximum, and a moving average
    of the series up to here.
    """

    x: float
    mean: float
    low: float
    high: float
    smooth: float


@dataclass(slots=True)
class _Bucket:
    x: float
    count: int
    total: float
    low: float
    high: float

    def add(self, x: float, value: float) -> None:
        self.x = x
        self.count += 1
        self.total += value
        if value < self.low:
            self.low = value
        elif value > self.high:
            self.high = value

    def absorb(self, later: _Bucket) -> None:
        self.x = later.x
        self.count += later.count
        self.total += later.total
        self.low, self.high = min(self.low, later.low), max(self.high, later.high)


class Series:
    """Numbers in the order of their steps. At most 2 × MAX_BUCKETS buckets are kept, each of equally many numbers."""

    def __init__(self) -> None:
        self._buckets: list[_Bucket] = []
        self._each = 1
        self.count = 0
        self.total = 0.0
        self.last = math.nan

    def add(self, x: float, value: float) -> None:
        """Add a number. Numbers that are not finite are left out."""
        if not math.isfinite(value):
            return
        self.count += 1
        self.total += value
        self.last = value
        if self._buckets and (bucket := self._buckets[-1]).count < self._each:
            bucket.add(x, value)
            return
        if len(self._buckets) == 2 * MAX_BUCKETS:
            self._halve()
        self._buckets.append(_Bucket(x, 1, value, value, value))

    def _halve(self) -> None:
        for place in range(0, len(self._buckets), 2):
            self._buckets[place].absorb(self._buckets[place + 1])
        del self._buckets[1::2]
        self._each *= 2

    def points(self) -> list[Point]:
        """Return the buckets with a moving average over about the last fortieth of all numbers.

        The average is exponential, and corrected for its start. A short series is not smoothed.
        """
        span = max(1.0, self.count * _SMOOTHED_SHARE)
        average = weight = 0.0
        points = []
        for bucket in self._buckets:
            mean = bucket.total / bucket.count
            decay = math.exp(-bucket.count / span) if self.count >= _SMOOTHED_FROM else 0.0
            average, weight = decay * average + (1 - decay) * mean, decay * weight + 1 - decay
            points.append(Point(bucket.x, mean, bucket.low, bucket.high, average / weight))
        return points
