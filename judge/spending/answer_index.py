"""The index of stored answers: the location of the answer to each question, in 20 bytes of memory each.

It is kept in `calls/index.npz`, so that a run reads only the segments that are newer. It is derived: without it, or if
it is damaged, the segments are read again.

Tested in tests/judge/spending/test_answer_cache.py.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextscene.judge.spending.answer_segments import CALLS, AnswerFiles

INDEX = f"{CALLS}/index.npz"
_COLUMNS = ("prefix", "segment", "offset", "length")
_TYPES = {"prefix": np.uint64, "segment": np.uint32, "offset": np.uint32, "length": np.uint32}
_PREFIX_DIGITS = 16
_RECENT = 8192


class AnswerLocation(NamedTuple):
    """A line in a segment, in bytes of its uncompressed text."""

    segment: str
    offset: int
    length: int


@dataclass
class _Segment:
    """An indexed segment: the number of its answers that count, and their cost in US dollars."""

    path: str
    answers: int
    usd: Decimal


class AnswerIndex:
    """Key → locations of the lines that may answer it. Two keys may share a prefix, so the reader compares the key."""

    def __init__(self) -> None:
        self._segments: list[_Segment] = []
        self._numbers: dict[str, int] = {}
        self._sorted = {name: np.empty(0, _TYPES[name]) for name in _COLUMNS}
        self._recent: defaultdict[int, list[tuple[int, int, int]]] = defaultdict(list)
        self._recent_count = 0

    @property
    def spent(self) -> Decimal:
        """US dollars of all indexed answers, each counted once."""
        return sum((segment.usd for segment in self._segments), Decimal(0))

    @property
    def answers(self) -> int:
        return sum(segment.answers for segment in self._segments)

    def __contains__(self, path: str) -> bool:
        return path in self._numbers

    def find(self, key: str) -> Iterator[AnswerLocation]:
        """Yield the locations of lines under a key of this prefix, those of the oldest segment first."""
        prefix = _prefix(key)
        if not len(self._sorted["prefix"]) and not self._recent_count:
            return
        first = int(np.searchsorted(self._sorted["prefix"], np.uint64(prefix), "left"))
        last = int(np.searchsorted(self._sorted["prefix"], np.uint64(prefix), "right"))
        found = [tuple(int(self._sorted[name][at]) for name in _COLUMNS[1:]) for at in range(first, last)]
        found += self._recent.get(prefix, [])
        for segment, offset, length in sorted(found):
            yield AnswerLocation(self._segments[segment].path, offset, length)

    def may_contain(self, keys: Sequence[str]) -> list[bool]:
        """Return for each key whether a line of its prefix is indexed; faster than single look-ups.

        Raise ValueError or OverflowError for an invalid key.
        """
        prefixes = list(map(_prefix, keys))
        wanted, known = np.array(prefixes, np.uint64), self._sorted["prefix"]
        at = np.searchsorted(known, wanted, "left")
        is_sorted_in = np.zeros(len(wanted), bool)
        inside = at < len(known)
        is_sorted_in[inside] = known[at[inside]] == wanted[inside]
        return [there or prefix in self._recent for there, prefix in zip(is_sorted_in.tolist(), prefixes, strict=True)]

    def add(self, path: str, lines: Iterable[tuple[str, int, int]], answers: int, usd: Decimal) -> None:
        """Add a segment: `lines` are (key, offset, length); `answers` and `usd` sum up the answers that count.

        Raise ValueError for an invalid key, and add nothing then.
        """
        places = [(_prefix(key), offset, length) for key, offset, length in lines]
        number = self._numbers[path] = len(self._segments)
        self._segments.append(_Segment(path, answers, usd))
        for prefix, offset, length in places:
            self._recent[prefix].append((number, offset, length))
        self._recent_count += len(places)
        if self._recent_count >= _RECENT:
            self._merge()

    def keep_only(self, paths: Iterable[str]) -> None:
        """Drop the segments that no longer exist."""
        there = set(paths)
        gone = [number for number, segment in enumerate(self._segments) if segment.path not in there]
        if not gone:
            return
        self._merge()
        numbers = np.cumsum(~np.isin(np.arange(len(self._segments)), gone)) - 1
        keep = ~np.isin(self._sorted["segment"], gone)
        self._sorted = {name: column[keep] for name, column in self._sorted.items()}
        self._sorted["segment"] = numbers[self._sorted["segment"]].astype(np.uint32)
        dropped = set(gone)
        self._segments = [segment for number, segment in enumerate(self._segments) if number not in dropped]
        self._numbers = {segment.path: number for number, segment in enumerate(self._segments)}

    def to_bytes(self) -> bytes:
        """Return the content of the index file."""
        self._merge()
        segments = [[segment.path, segment.answers, str(segment.usd)] for segment in self._segments]
        names = np.frombuffer(json.dumps(segments).encode(), np.uint8)
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, segments=names, **self._sorted)
        return file.getvalue()

    @staticmethod
    def read(files: AnswerFiles) -> AnswerIndex:
        """Return the published index; an empty one if it is missing or damaged."""
        index = AnswerIndex()
        try:
            with np.load(io.BytesIO(files.read(INDEX)), allow_pickle=False) as arrays:
                columns = {name: arrays[name].astype(_TYPES[name], copy=False) for name in _COLUMNS}
                segments = [
                    _Segment(str(path), int(answers), Decimal(usd))
                    for path, answers, usd in json.loads(arrays["segments"].tobytes())
                ]
            if not _is_sound(columns, len(segments)):
                return index
        except (OSError, EOFError, ValueError, KeyError, TypeError, ArithmeticError, zipfile.BadZipFile):
            return index
        index._sorted, index._segments = columns, segments
        index._numbers = {segment.path: number for number, segment in enumerate(segments)}
        return index

    def _merge(self) -> None:
        """Merge the recent locations into the sorted ones."""
        if not self._recent_count:
            return
        places = ((prefix, *place) for prefix, found in self._recent.items() for place in found)
        recent = np.array(list(places), np.uint64)
        recent = recent[np.argsort(recent[:, 0], kind="stable")]
        # Insert into the sorted columns: sorting all of them each time would take long.
        at = np.searchsorted(self._sorted["prefix"], recent[:, 0], "right")
        self._sorted = {
            name: np.insert(self._sorted[name], at, recent[:, column].astype(_TYPES[name]))
            for column, name in enumerate(_COLUMNS)
        }
        self._recent.clear()
        self._recent_count = 0


def _is_sound(columns: dict[str, NDArray[Any]], segments: int) -> bool:
    prefix, numbers = columns["prefix"], columns["segment"]
    lengths = {len(column) for column in columns.values()}
    in_order = bool(np.all(prefix[:-1] <= prefix[1:]))
    return len(lengths) == 1 and in_order and (not len(numbers) or int(numbers.max()) < segments)


def _prefix(key: str) -> int:
    """Return the first 64 bits of a key, which is a sha256 in hexadecimal digits."""
    return int(key[:_PREFIX_DIGITS], 16)
