"""What a set of shards holds. Sets of several kinds, clips and what is computed from them, join by their keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from nextscene.shards.format.tar import MemberGroup

MAX_SIDE = 1 << 16


class Shape(NamedTuple):
    """What samples are batched by: frames, their width and their height, in pixels or in cells of a latent."""

    frames: int
    width: int
    height: int

    @property
    def possible(self) -> bool:
        return all(0 < side <= MAX_SIDE for side in self)


@dataclass(frozen=True)
class SampleType:
    """The members of every sample, in order, and what proves one whole.

    `validate(group, shard)` returns the sample's shape, and raises DamagedShard for contents that are not what they
    should be.
    """

    members: tuple[str, ...]
    validate: Callable[[MemberGroup, str], Shape]
