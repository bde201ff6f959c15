"""Stored answers, found by the key of their question: segments, and the index over them.

Tested in tests/judge/spending/test_answer_cache.py.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from itertools import islice

from nextscene.judge.api.answer import Answer
from nextscene.judge.errors import JudgeStopped
from nextscene.judge.spending.answer_index import AnswerIndex, AnswerLocation
from nextscene.judge.spending.answer_segments import (
    AnswerFiles,
    answer_of,
    damage_of,
    list_segments,
    raw_answers,
    read_segment,
)

_READERS = 16
_LOG_SECONDS = 5.0
_MAX_CACHED_BYTES = 64 << 20
_log = logging.getLogger(__name__)


class StoredAnswers:
    """Answers stored when this is created, and those added later. Look-ups are for one thread, reads for any.

    Methods raise JudgeStopped for a damaged segment.
    """

    def __init__(self, files: AnswerFiles, on_damage: Callable[[str], None] | None = None) -> None:
        """Read the segments newer than the index. With `on_damage`, read all, and call it for each damaged segment."""
        self._files = files
        self._on_damage = on_damage
        self._cached: OrderedDict[str, bytes] = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()
        self.index = AnswerIndex() if on_damage else AnswerIndex.read(files)
        paths = list_segments(files)
        self.index.keep_only(paths)
        self.newly_indexed = self._index_all([path for path in paths if path not in self.index])

    @property
    def spent(self) -> Decimal:
        """US dollars of all stored answers, each counted once."""
        return self.index.spent

    @property
    def count(self) -> int:
        return self.index.answers

    def get(self, key: str) -> Answer | None:
        """Return the answer to a question, or None."""
        return self.read(key, self.locations(key))

    def locations(self, key: str) -> list[AnswerLocation]:
        """Return the locations where the answer may be."""
        return list(self.index.find(key))

    def read(self, key: str, locations: Sequence[AnswerLocation]) -> Answer | None:
        """Return the answer at one of these locations: the first one that was paid for, else the first."""
        return min(self._answers_at(key, locations), key=lambda answer: answer.shared, default=None)

    def get_all(self, key: str) -> list[Answer]:
        """Return all answers to a question: more than one if it was asked in several datasets."""
        return self._answers_at(key, self.locations(key))

    def _answers_at(self, key: str, locations: Sequence[AnswerLocation]) -> list[Answer]:
        return [answer for location in locations if key in (answer := self._answer(location)).names]

    def contains(self, answer: Answer) -> bool:
        """Return whether this answer is stored: that of the same call, not another one to an equal question."""
        found = (self._answer(location) for location in self.locations(answer.key))
        return any(one.is_same_call(answer) for one in found if not one.shared)

    def add_segment(self, path: str, lines: bytes) -> None:
        """Index a segment."""
        found: list[tuple[str, int, int]] = []
        calls: dict[tuple[str, str], Decimal] = {}
        try:
            for offset, length, value in raw_answers(path, lines):
                key = str(value["key"])
                found.append((key, offset, length))
                if alias := value.get("alias"):
                    found.append((str(alias), offset, length))
                if not value.get("shared"):
                    calls.setdefault((key, str(value["message_id"])), Decimal(value["usd"]))
            may_be_known = self.index.may_contain([key for key, _ in calls])
            new = [
                usd
                for (call, usd), known in zip(calls.items(), may_be_known, strict=True)
                if not (known and self._is_stored(*call))
            ]
            self.index.add(path, found, len(new), sum(new, Decimal(0)))
        except (KeyError, ValueError, TypeError, ArithmeticError) as error:
            raise damage_of(path, repr(error)) from error

    def _is_stored(self, key: str, message_id: str) -> bool:
        locations = self.locations(key)
        return any(
            answer.key == key and answer.message_id == message_id and not answer.shared
            for answer in map(self._answer, locations)
        )

    def _index_all(self, paths: Sequence[str]) -> int:
        logged_at = time.monotonic()
        with ThreadPoolExecutor(_READERS) as pool:
            for number, (path, lines) in enumerate(_ahead(pool, self._files, paths), 1):
                try:
                    self.add_segment(path, lines.result())
                except JudgeStopped as damage:
                    if self._on_damage is None:
                        raise
                    self._on_damage(str(damage))
                if time.monotonic() - logged_at >= _LOG_SECONDS:
                    logged_at = time.monotonic()
                    _log.warning("%s of %s files of stored answers are indexed", f"{number:,}", f"{len(paths):,}")
        return len(paths)

    def _answer(self, location: AnswerLocation) -> Answer:
        lines = self._lines(location.segment)
        return answer_of(location.segment, lines[location.offset : location.offset + location.length])

    def _lines(self, path: str) -> bytes:
        with self._lock:
            if (lines := self._cached.get(path)) is not None:
                self._cached.move_to_end(path)
                return lines
        try:
            lines = read_segment(self._files, path)
        except FileNotFoundError as error:
            raise JudgeStopped(f"{path} was deleted while it was in use; start again") from error
        with self._lock:
            self._cached_bytes += len(lines) if path not in self._cached else 0
            self._cached[path] = lines
            while self._cached_bytes > _MAX_CACHED_BYTES and len(self._cached) > 1:
                self._cached_bytes -= len(self._cached.popitem(last=False)[1])
        return lines


def _ahead(pool: ThreadPoolExecutor, files: AnswerFiles, paths: Sequence[str]) -> Iterator[tuple[str, Future[bytes]]]:
    """Yield segments in order, while the next ones are read."""
    todo = iter(paths)
    under_way: deque[tuple[str, Future[bytes]]] = deque()

    def begin(count: int) -> None:
        under_way.extend((path, pool.submit(read_segment, files, path)) for path in islice(todo, count))

    begin(_READERS)
    while under_way:
        yield under_way.popleft()
        begin(1)
