"""The record of the budget on disk: `calls/account.json`.

Tested in tests/judge/spending/test_budget.py.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from nextscene.judge.errors import JudgeStopped
from nextscene.judge.spending.answer_segments import CALLS, AnswerFiles
from nextscene.judge.spending.call_journal import Pending, Recovered

ACCOUNT = f"{CALLS}/account.json"
_ZERO = Decimal(0)


@dataclass(frozen=True)
class BudgetRecord:
    """The content of `calls/account.json`, in US dollars.

    `allowance` bounds all that was spent, lost or in flight. `lost_calls` are the calls without an end whose question
    has no answer yet; `lost` is the worst-case cost of all lost calls. `is_open` while a run works; `journal` is the
    name of its journal, which knows each call earlier than this record.
    """

    spent: Decimal = _ZERO
    lost: Decimal = _ZERO
    allowance: Decimal = _ZERO
    answers: int = 0
    lost_calls: Mapping[str, Pending] = field(default_factory=dict)
    is_open: bool = False
    journal: str = ""

    @staticmethod
    def read(files: AnswerFiles) -> BudgetRecord | None:
        """Return the record on disk; None if it is missing or empty. Raise JudgeStopped for a damaged one."""
        try:
            data = files.read(ACCOUNT)
            if not data.strip(b"\0"):
                return None
            value = json.loads(data)
            money = {name: Decimal(value[name]) for name in ("spent", "lost", "allowance")}
            lost_calls = {call: Pending(key, Decimal(worst)) for call, key, worst in value.get("lost_calls", ())}
            # A version that kept no journal did not record whether it was running.
            return BudgetRecord(
                answers=int(value["answers"]),
                lost_calls=lost_calls,
                is_open=bool(value.get("is_open", True)),
                journal=str(value.get("journal", "")),
                **money,
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, ArithmeticError, AttributeError, RecursionError) as error:
            raise JudgeStopped(f"{ACCOUNT} is damaged ({error!r}); restore it from a copy") from error

    def to_bytes(self) -> bytes:
        lost_calls = [[call, pending.key, str(pending.worst)] for call, pending in self.lost_calls.items()]
        return json.dumps(
            {
                "spent": str(self.spent),
                "lost": str(self.lost),
                "allowance": str(self.allowance),
                "answers": self.answers,
                "is_open": self.is_open,
                "journal": self.journal,
                "lost_calls": lost_calls,
            }
        ).encode()

    def reconciled(
        self, spent: Decimal, answers: int, in_batches: Decimal, recovered: Collection[Recovered] = ()
    ) -> BudgetRecord:
        """Return the record once no run is at work: `spent` and `answers` are those of the stored answers.

        `in_batches` is the worst-case cost of the open batches; `recovered` are the journals of dead runs.
        """
        calls, lost = self.lost_calls, self.lost
        if journal := next((one for one in recovered if one.name == self.journal), None):
            calls, lost = journal.calls, journal.lost + worst_of(journal.calls.values())
        elif self.is_open:  # only the bound is known
            lost = max(lost, self.allowance - spent - in_batches)
        return replace(self, spent=spent, answers=answers, lost=lost, lost_calls=calls, is_open=False)


def worst_of(calls: Iterable[Pending]) -> Decimal:
    return sum((pending.worst for pending in calls), _ZERO)
