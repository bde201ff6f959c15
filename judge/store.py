"""The store of finished calls: what was paid for once is never asked again.

Answers lie in drawers, one a unit of work, so that a resume reads only what it needs. A drawer is a folder of immutable
segments, each a gzip file of JSON lines; all answers of a quarter of a second share one. A segment's name ends with the
beginning of its sha256. Once a unit is decided its drawer is put together into a single segment.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
import time
import zlib
from collections.abc import Iterable, Sequence
from typing import Protocol

from judge.answer import Answer
from judge.errors import JudgeStopped

CALLS = "calls"
_SEGMENT = ".jsonl.gz"
_UNREADABLE = (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, ArithmeticError, RecursionError)
_LINGER_SECONDS = 0.25


class Named(Protocol):
    """A file in a listing."""

    @property
    def path(self) -> str: ...


class Files(Protocol):
    """Where calls are kept: small files below one root, each written whole or not at all."""

    def read(self, path: str) -> bytes:
        """Raises FileNotFoundError."""
        ...

    def write(self, path: str, data: bytes) -> None: ...

    def delete(self, path: str) -> None: ...

    def files(self, folder: str, recursive: bool = False) -> Sequence[Named]:
        """Those in a folder, and with `recursive` also in the folders below; none if there is no such folder."""
        ...


class CallStore:
    """Open drawers in memory, all drawers in files. For one event loop, and one process at a time."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._open: dict[str, dict[str, Answer]] = {}
        self._pending: dict[str, list[Answer]] = {}
        self._commit: asyncio.Task[None] | None = None

    async def open(self, drawer: str) -> None:
        """Reads a drawer, before anything is looked up in it. Raises JudgeStopped for a segment that is damaged."""
        answers = self._open[drawer] = {}
        stored = await asyncio.to_thread(read_drawer, self._files, drawer)
        answers |= stored  # which may have grown meanwhile

    def get(self, drawer: str, key: str) -> Answer | None:
        """The stored answer to a question, from an open drawer."""
        return self._open[drawer].get(key)

    async def put(self, drawer: str, answers: Iterable[Answer]) -> None:
        """Returns once the answers would survive the end of this process. The drawer need not be open."""
        self._pending.setdefault(drawer, []).extend(answers)
        if self._commit is None:
            self._commit = asyncio.create_task(self._commit_soon())
        await asyncio.shield(self._commit)

    async def close(self, drawer: str) -> None:
        """Puts a drawer's segments together and forgets what is in memory."""
        await asyncio.to_thread(self._put_together, drawer)
        self._open.pop(drawer, None)

    async def _commit_soon(self) -> None:
        await asyncio.sleep(_LINGER_SECONDS)
        pending, self._pending, self._commit = self._pending, {}, None
        await asyncio.gather(*(asyncio.to_thread(self._write, drawer, found) for drawer, found in pending.items()))
        for drawer, answers in pending.items():
            if drawer in self._open:
                for answer in answers:
                    self._open[drawer].setdefault(answer.key, answer)

    def _write(self, drawer: str, answers: Iterable[Answer]) -> None:
        data = gzip.compress(b"".join(answer.to_line() for answer in answers), mtime=0)
        name = f"{time.time_ns():016x}-{_digest(data)}"  # the first stands first in a listing
        self._files.write(f"{_folder(drawer)}/{name}{_SEGMENT}", data)

    def _put_together(self, drawer: str) -> None:
        segments = [entry.path for entry in self._files.files(_folder(drawer))]
        if len(segments) > 1:
            self._write(drawer, read_drawer(self._files, drawer).values())
            for segment in reversed(segments):  # the first one counts until the last moment
                self._files.delete(segment)


def read_drawer(files: Files, drawer: str) -> dict[str, Answer]:
    """Key → answer. Of two answers to one question, which only a crash can leave, the first counts.

    Raises JudgeStopped for a segment that is damaged.
    """
    answers: dict[str, Answer] = {}
    for entry in files.files(_folder(drawer)):
        try:
            for answer in _read_segment(files, entry.path):
                answers.setdefault(answer.key, answer)
        except FileNotFoundError:
            return read_drawer(files, drawer)  # put together since it was listed: its answers are in another now
    return answers


# Older segments have a random name.
_NAME = re.compile(r".+-(?P<digest>[0-9a-f]{16})\.jsonl\.gz")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def read_all(files: Files) -> list[Answer]:
    """Every answer in every drawer; one may be there twice. Raises JudgeStopped for a segment that is damaged."""
    segments = [entry.path for entry in files.files(CALLS, recursive=True) if entry.path.endswith(_SEGMENT)]
    try:
        return [answer for segment in segments for answer in _read_segment(files, segment)]
    except FileNotFoundError:
        return read_all(files)  # as above


def _read_segment(files: Files, path: str) -> list[Answer]:
    try:
        data = files.read(path)
        if not data:
            raise ValueError("it is empty")
        if (named := _NAME.fullmatch(path)) and named["digest"] != _digest(data):
            raise ValueError("its name is that of other contents")
        return [Answer.of_line(line) for line in gzip.decompress(data).splitlines()]
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        raise JudgeStopped(
            f"{path} is damaged ({error}); restore it, or delete it to ask its questions again"
        ) from error


def _folder(drawer: str) -> str:
    return f"{CALLS}/{drawer}"
