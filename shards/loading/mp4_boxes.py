"""The sample counts in the tables of an mp4, checked before a library allocates for them: a few bytes can ask for
gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterator

_CONTAINERS = frozenset([b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"])
_MAX_DEPTH = 8  # the tables are five levels deep
_COUNT_AT = {b"stsz": 8, b"stz2": 8, b"trun": 4}


def samples_promised(mp4: bytes) -> int:
    """Return how many samples (frames, in all tracks) the file's tables state.

    ISO/IEC 14496-12: `stsz` and `stz2` of a movie and `trun` of its fragments may give all samples one size, and so
    state any number in 12 bytes. All other tables are as long as their content.
    """
    return sum(_promised(mp4, 0, len(mp4), depth=0))


def _promised(mp4: bytes, begin: int, end: int, depth: int) -> Iterator[int]:
    while begin + 8 <= end:
        size, kind, head = int.from_bytes(mp4[begin : begin + 4], "big"), mp4[begin + 4 : begin + 8], 8
        if size == 1:
            size, head = int.from_bytes(mp4[begin + 8 : begin + 16], "big"), 16
        stop = min(begin + size, end) if size else end
        if stop < begin + head:
            return
        if kind in _CONTAINERS and depth < _MAX_DEPTH:
            yield from _promised(mp4, begin + head, stop, depth + 1)
        elif at := _COUNT_AT.get(kind):
            yield int.from_bytes(mp4[begin + head + at : begin + head + at + 4], "big")
        begin = stop
