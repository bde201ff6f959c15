"""Proving what the ledger says of paid calls, by the answers that are stored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from decimal import Decimal
from typing import Any

from curation.judging import drawer_of
from curation.ledger import Row
from curation.plan import Unit
from curation.writable import UNWRITABLE
from judge.account import Statement
from judge.answer import Answer
from judge.base import Call
from judge.errors import JudgeStopped
from judge.prices import Usage
from judge.store import CALLS, read_drawer
from shards.ahead import ahead
from shards.storage import Storage

_ByKey = Mapping[str, Answer]
_USAGE = tuple(item.name for item in fields(Usage))


class Answers:
    """The paid answers about a dataset, if they are at hand: they are not published with it."""

    def __init__(self, out: Storage) -> None:
        self._out = out
        self.at_hand = out.is_folder(CALLS)
        self._usd = Decimal(0)

    def faults(self, units: Sequence[Unit], rows: Sequence[Row]) -> tuple[list[str], list[str]]:
        """What the rows of a shard say of calls that is not so, and which answers are damaged."""
        stored, damaged = self._of(units)
        faults = ((row, _fault(row, stored.get(row.unit))) for row in rows)
        return [f"the row of clip {row.clip_id}: {fault}" for row, fault in faults if fault], damaged

    def notes(self) -> Iterator[str]:
        """What there is to know about the answers of all shards that were asked for."""
        if not self.at_hand:
            yield f"{CALLS}/ is not here: what was paid is proved by the ledgers only"
            return
        try:
            spent = Statement.read(self._out).spent
        except JudgeStopped:
            return  # told as a file that was changed
        yield "paid answers   by hash, by the names of their files"
        if spent != self._usd:
            yield f"the account says ${spent:f}, the stored answers about this plan's clips ${self._usd:f}"

    def _of(self, units: Sequence[Unit]) -> tuple[dict[int, _ByKey], list[str]]:
        stored: dict[int, _ByKey] = {}
        damaged = []
        for unit, answers in zip(units, ahead(self._read, units), strict=True) if self.at_hand else ():
            if isinstance(answers, str):
                damaged.append(answers)
            else:
                stored[unit.name.index] = answers
                self._usd += sum((answer.usd for answer in answers.values()), Decimal(0))
        return stored, damaged

    def _read(self, unit: Unit) -> _ByKey | str:
        try:
            return read_drawer(self._out, drawer_of(unit))
        except JudgeStopped as damage:
            return str(damage)


def _fault(row: Row, stored: _ByKey | None) -> str:
    if row.reason == UNWRITABLE:
        return ""
    try:
        calls = json.loads(row.calls) if row.calls else []
        if _sums(calls) != (row.input_tokens, row.output_tokens, row.usd):
            return "its tokens and dollars are not the sums of its calls"
        for call in calls:
            if stored is not None and not _fits(call, stored):
                return f"its call {call['key']:.16} is not what the stored answer says, or there is none"
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError):
        return "its calls cannot be read"
    return ""


def _sums(calls: Sequence[Mapping[str, Any]]) -> tuple[int, int, float]:
    usages = [Usage(**{name: call[name] for name in _USAGE}) for call in calls]
    usd = sum((Decimal(call["usd"]) for call in calls), Decimal(0))
    return sum(usage.prompt_tokens for usage in usages), sum(usage.output_tokens for usage in usages), float(usd)


def _fits(call: Mapping[str, Any], stored: _ByKey) -> bool:
    answer = stored.get(call["key"])
    if answer is None:
        return False
    record = Call(call["task"], call["prompt"], call["prompt_sha256"], answer).record()
    if call["shared"]:  # of a clip before it in its unit
        record |= {"shared": True, "usd": "0"}
    return all(name in record and record[name] == value for name, value in call.items())
