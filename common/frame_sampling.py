"""Which frames of a clip a judge is shown."""

from __future__ import annotations


def evenly_spaced(shown: int, wanted: int) -> list[int]:
    """At most `wanted` of the places 0 … shown - 1, evenly, the first and the last among them."""
    count = min(shown, wanted)
    return [round(i * (shown - 1) / (count - 1)) for i in range(count)] if count > 1 else [0]
