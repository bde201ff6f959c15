"""Evenly spaced frames of a clip, for a judge to see.

Tested in tests/curation/stages/test_keyframes.py.
"""

from __future__ import annotations


def evenly_spaced(frames: int, wanted: int) -> list[int]:
    """Return at most `wanted` of the indices 0 … frames - 1, evenly spaced, with the first and the last."""
    count = min(frames, wanted)
    return [round(i * (frames - 1) / (count - 1)) for i in range(count)] if count > 1 else [0]
