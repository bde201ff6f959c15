"""Types of samples: clips, and what is computed from them. Datasets of several types join by key.

Tested in tests/shards/format/test_sample.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from nextscene.shards.format.tar import MemberGroup

MAX_SIDE = 1 << 16


class Shape(NamedTuple):
    """The shape that samples are batched by: frames, width and height, in pixels or in cells of a latent."""

    frames: int
    width: int
    height: int

    @property
    def is_possible(self) -> bool:
        return all(0 < side <= MAX_SIDE for side in self)


@dataclass(frozen=True)
class SampleType:
    """The members of samples, in order, and the validation of their contents.

    `validate(group, shard)` returns the sample's shape, and raises DamagedShard for invalid contents. It decides which
    samples have which of the `optional` members.
    """

    members: tuple[str, ...]
    validate: Callable[[MemberGroup, str], Shape]
    optional: frozenset[str] = frozenset()
