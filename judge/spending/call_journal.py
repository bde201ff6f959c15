"""The journal: a local file of the calls in flight, and of answers until they are stored.

Each record is one line, written at once, so that it survives a SIGKILL. The writer holds a lock on the file.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from nextscene.judge.api.answer import Answer
from nextscene.judge.errors import JudgeStopped
from nextscene.judge.spending.answer_segments import CALLS

JOURNALS = f"{CALLS}/journals"
"""The folder of the journals, below the root of the answers."""

_SUFFIX = ".jsonl"
_DRAFT = ".draft"
_TRUNCATE_BYTES = 4 << 20
_LAST_WRITER_SECONDS = 15.0
_LOOK_SECONDS = 0.1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pending:
    """A call that was sent: the key of its question, and its worst-case cost in US dollars."""

    key: str
    worst: Decimal


@dataclass
class Recovered:
    """The content of the journal of a dead run: answers that may not be stored yet, and calls without an end.

    `calls` were in flight, or lost and not answered since. `lost`, in US dollars, is the cost of all other lost calls.
    """

    name: str
    answers: list[Answer] = field(default_factory=list)
    calls: dict[str, Pending] = field(default_factory=dict)
    lost: Decimal = Decimal(0)


class CallJournal:
    """The journal of one run, in a folder of such journals. Methods raise JudgeStopped for a full disk."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._path = folder / f"{uuid.uuid4().hex}{_SUFFIX}"
            self._file = self._open(self._path)
        except OSError as error:
            raise JudgeStopped(f"cannot write in {folder}: {error.strerror}; make it writable") from error
        self._size = 0
        self._calls: dict[str, Pending] = {}
        self._lost = Decimal(0)

    @property
    def name(self) -> str:
        return self._path.stem

    def begin(self, calls: Mapping[str, Pending], lost: Decimal) -> None:
        """Take over the lost calls of earlier runs, as in `Recovered`."""
        self._calls, self._lost = dict(calls), lost
        self._append(self._state())

    def record_sent(self, call: str, pending: Pending) -> None:
        """Note a call before it is sent."""
        self._append(_sent(call, pending))
        self._calls[call] = pending

    def record_answer(self, call: str, answer: Answer) -> None:
        """Note a call's answer."""
        self._append(answer.to_line() + _line({"ended": call}))
        self._calls.pop(call, None)

    def record_ended(self, call: str) -> None:
        """Note that a call has ended without an answer and without a charge."""
        self._append(_line({"ended": call}))
        self._calls.pop(call, None)

    def record_settled(self, lost: Decimal, call: str = "") -> None:
        """Note the total cost of lost calls whose questions have answers, in US dollars; `call` is a further one."""
        self._append((_line({"ended": call}) if call else b"") + _line({"lost": str(lost)}))
        self._calls.pop(call, None)
        self._lost = lost

    def record_stray_answer(self, answer: Answer) -> None:
        """Note an answer without a call, as of a batch, until it is stored."""
        self._append(answer.to_line())

    def mark_all_stored(self) -> None:
        """Note that all answers are stored: start a new file once the old one is long.

        The new one gets its name as in `common.atomic.write_file`, but it is written through the handle that holds the
        lock and is used further, and it is not synced, as no record is: they survive the process, not the machine.
        """
        if self._size < _TRUNCATE_BYTES:
            return
        draft, state = self._path.with_suffix(_DRAFT), self._state()
        try:
            file = self._open(draft)
            try:
                _write(file, state)
                draft.replace(self._path)
            except OSError:
                os.close(file)
                raise
        except OSError as error:  # nothing is lost: the old file is used further
            _log.warning("cannot write %s: %s; make room there", draft, error.strerror)
            with suppress(OSError):
                draft.unlink()
            return
        os.close(self._file)
        self._file, self._size = file, len(state)

    def delete(self) -> None:
        """Delete the journal, once all answers are stored and the budget record has the rest."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock: the journal counts as that of a dead run from now on."""
        os.close(self._file)

    def _state(self) -> bytes:
        return _line({"lost": str(self._lost)}) + b"".join(_sent(*entry) for entry in self._calls.items())

    def _append(self, line: bytes) -> None:
        try:
            _write(self._file, line)
        except OSError as error:
            with suppress(OSError):  # else a part of this line would corrupt the next one
                os.ftruncate(self._file, self._size)
            raise JudgeStopped(f"cannot write {self._path}: {error.strerror}; make room there") from error
        self._size += len(line)

    @staticmethod
    def _open(path: Path) -> int:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        return handle


def recover(folder: Path) -> list[Recovered]:
    """Return the journals of dead runs. Wait a little for a writer that is still alive.

    The writer of a killed run may outlive it for a moment, and still receive answers.
    """
    for draft in folder.glob(f"*{_DRAFT}"):
        draft.unlink(missing_ok=True)
    return [_read(path) for path in sorted(folder.glob(f"*{_SUFFIX}")) if _is_over(path)]


def discard(folder: Path, recovered: Recovered) -> None:
    """Delete a recovered journal, once all of it is stored."""
    (folder / f"{recovered.name}{_SUFFIX}").unlink(missing_ok=True)


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _is_over(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        deadline = time.monotonic() + _LAST_WRITER_SECONDS
        while time.monotonic() < deadline:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOOK_SECONDS)
            except OSError:
                return True  # a file system without locks
            else:
                return True
    finally:
        os.close(handle)
    _log.warning("%s is still being written by a run that has ended; its answers are taken in by the next run", path)
    return False


def _sent(call: str, pending: Pending) -> bytes:
    return _line({"sent": call, "key": pending.key, "worst": str(pending.worst)})


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _read(path: Path) -> Recovered:
    found = Recovered(path.stem)
    for line in path.read_bytes().splitlines():
        try:
            value = json.loads(line)
            if "sent" in value:
                found.calls[value["sent"]] = Pending(value["key"], Decimal(value["worst"]))
            elif "ended" in value:
                found.calls.pop(value["ended"], None)
            elif "lost" in value:
                found.lost = Decimal(value["lost"])
            else:
                found.answers.append(Answer.from_line(line))
        except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
            continue  # cut off when its writer was killed, or the machine went down
    return found
