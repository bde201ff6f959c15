"""Segments: immutable gzip files of answers, one JSON line each, below `calls/`.

A name begins with the time, so that the oldest comes first, and ends with the begin of the sha256 of the file. Older
versions kept a folder of segments for each unit of work; those are read where they are.

Tested in tests/judge/spending/test_answer_cache.py.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from nextscene.judge.api.answer import Answer
from nextscene.judge.errors import JudgeStopped

CALLS = "calls"
SEGMENT_SUFFIX = ".jsonl.gz"
MAX_ANSWERS = 1000
"""The most answers in a new segment: reading one answer reads its whole segment."""

_NEW = f"{CALLS}/answers"
# The oldest segments have a random name.
_NAME = re.compile(r".+-(?P<digest>[0-9a-f]{16})\.jsonl\.gz")
_UNREADABLE = (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, ArithmeticError, RecursionError)


class ListedFile(Protocol):
    """A file in a listing."""

    @property
    def path(self) -> str: ...


class AnswerFiles(Protocol):
    """The files of calls: small files below one root, each written atomically."""

    def read(self, path: str) -> bytes:
        """Return the content of a file. Raise FileNotFoundError."""
        ...

    def write(self, path: str, data: bytes) -> None: ...

    def delete(self, path: str) -> None: ...

    def files(self, folder: str, recursive: bool = False) -> Sequence[ListedFile]:
        """List the files in a folder, with `recursive` also in its subfolders; none if there is no such folder."""
        ...


def list_segments(files: AnswerFiles) -> list[str]:
    """Return the paths of all segments, the oldest first within a folder."""
    return [entry.path for entry in files.files(CALLS, recursive=True) if entry.path.endswith(SEGMENT_SUFFIX)]


def write_segments(files: AnswerFiles, answers: Sequence[Answer]) -> list[tuple[str, bytes]]:
    """Publish answers; return the path and the uncompressed lines of each new segment."""
    written = []
    for begin in range(0, len(answers), MAX_ANSWERS):
        lines = b"".join(answer.to_line() for answer in answers[begin : begin + MAX_ANSWERS])
        data = gzip.compress(lines, mtime=0)
        path = f"{_NEW}/{time.time_ns():016x}-{_digest(data)}{SEGMENT_SUFFIX}"
        files.write(path, data)
        written.append((path, lines))
    return written


def read_segment(files: AnswerFiles, path: str) -> bytes:
    """Return the lines of a segment. Raise FileNotFoundError, or JudgeStopped for a damaged segment."""
    try:
        data = files.read(path)
        if not data:
            raise ValueError("it is empty")
        if (named := _NAME.fullmatch(path)) and named["digest"] != _digest(data):
            raise ValueError("its name is that of other contents")
        return gzip.decompress(data)
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        raise damage_of(path, error) from error


def raw_answers(path: str, lines: bytes) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield offset, length and JSON of each line. Raise JudgeStopped for a damaged line."""
    offset = 0
    for line in lines.splitlines(keepends=True):
        try:
            value = json.loads(line.decode())  # given bytes, it would guess the encoding of each line
            if not isinstance(value, dict):
                raise TypeError("a line is not an object")
        except _UNREADABLE as error:
            raise damage_of(path, error) from error
        yield offset, len(line), value
        offset += len(line)


def answer_of(path: str, line: bytes) -> Answer:
    """Return the answer of a line. Raise JudgeStopped for a damaged line."""
    try:
        return Answer.from_line(line)
    except _UNREADABLE as error:
        raise damage_of(path, error) from error


def read_answers(files: AnswerFiles) -> Iterator[Answer]:
    """Yield every stored answer of every segment; an answer may occur twice. Raise JudgeStopped."""
    for path in list_segments(files):
        lines = read_segment(files, path)
        yield from (answer_of(path, line) for line in lines.splitlines())


def damage_of(path: str, why: object) -> JudgeStopped:
    return JudgeStopped(f"{path} is damaged ({why}); restore it, or delete it to ask its questions again")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
