"""Verification of the paid calls in the ledgers, by the stored answers.

Tested in tests/curation/verify/test_verify.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from nextscene.common.storage import Storage
from nextscene.curation.ledger import Row
from nextscene.curation.paid_calls import sums_of
from nextscene.curation.storable_row import UNWRITABLE
from nextscene.curation.verify.finding import Finding
from nextscene.judge.api.answer import Answer
from nextscene.judge.base import Call
from nextscene.judge.errors import JudgeStopped
from nextscene.judge.spending.answer_index import INDEX
from nextscene.judge.spending.answer_segments import CALLS
from nextscene.judge.spending.budget_record import ACCOUNT, BudgetRecord
from nextscene.judge.spending.stored_answers import StoredAnswers


class Answers:
    """The paid answers about a dataset, all of which are read.

    `at_hand` is False if they are not in OUT: they are not published with the dataset.
    """

    def __init__(self, out: Storage) -> None:
        self._out = out
        self.at_hand = out.is_folder(CALLS)
        self._damaged: list[str] = []
        self._stored = StoredAnswers(out, self._damaged.append) if self.at_hand else None
        self._in_rows = Decimal(0)

    def faults(self, rows: Sequence[Row]) -> list[str]:
        """Return the errors in what the rows of a shard say about calls."""
        faults = ((row, self._fault(row)) for row in rows)
        return [f"the row of clip {row.clip_id}: {fault}" for row, fault in faults if fault]

    def books(self) -> Iterator[Finding]:
        """Yield what is wrong with the answers themselves, and with the record of what they cost."""
        yield from map(Finding, self._damaged)
        if self._stored is None or self._damaged:
            return
        try:
            record = BudgetRecord.read(self._out)
        except JudgeStopped:
            return  # reported as a file that was changed
        if record and not record.is_open and record.spent != self._stored.spent:
            text = (
                f"{ACCOUNT} says ${record.spent:f} was spent, the stored answers cost ${self._stored.spent:f};"
                f" delete {INDEX} and run the build again to count them anew"
            )
            yield Finding(text, delete=(INDEX,), build=True)

    def notes(self) -> Iterator[str]:
        """Yield notes about the answers, once the rows of all shards were passed to `faults`."""
        if self._stored is None:
            yield f"{CALLS}/ is not here: what was paid is proved by the ledgers only"
            return
        yield "paid answers   by hash, by the names of their files"
        if (further := self._stored.spent - self._in_rows) != 0:
            yield f"${further:f} of the ${self._stored.spent:f} that the stored answers cost is in no row of the ledger"

    def _fault(self, row: Row) -> str:
        if row.reason == UNWRITABLE:
            return ""
        try:
            calls = json.loads(row.calls) if row.calls else []
            if sums_of(calls) != (row.input_tokens, row.output_tokens, row.usd):
                return "its tokens and dollars are not the sums of its calls"
            for call in calls:
                self._in_rows += Decimal(call["usd"])
                stored = self._stored.get_all(call["key"]) if self._stored else ()
                if self._stored and not any(_fits(call, answer) for answer in stored):
                    return f"its call {call['key']:.16} is not what the stored answer says, or there is none"
        except JudgeStopped as damage:
            return str(damage)
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError):
            return "its calls cannot be read"
        return ""


def _fits(call: Mapping[str, Any], answer: Answer) -> bool:
    record = Call(call["task"], call["prompt"], call["prompt_sha256"], answer).record()
    if call["shared"]:  # bought for another clip
        record |= {"shared": True, "usd": "0"}
    return all(name in record and record[name] == value for name, value in call.items())
