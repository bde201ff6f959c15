"""What is on file of the budget: `calls/account.json`."""

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
    """`calls/account.json`, in US dollars.

    `allowance` bounds all that was spent or lost or is under way. `lost_calls` are the calls without an end whose
    question has no answer yet; `lost` is what they and those before them may have cost. `is_open` while a run works;
    its journal is `journal`, and knows of each call what this record may not know yet.
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
        """The record on file; None where it is gone or empty. Raises JudgeStopped for one that is damaged."""
        try:
            data = files.read(ACCOUNT)
            if not data.strip(b"\0"):
                return None
            value = json.loads(data)
            money = {name: Decimal(value[name]) for name in ("spent", "lost", "allowance")}
            lost_calls = {call: Pending(key, Decimal(worst)) for call, key, worst in value.get("lost_calls", ())}
            # A version that kept no journal did not say whether it was at work.
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
        """The record as it is once nobody is at work any more: `spent` and `answers` are what is stored.

        `in_batches` is the worst case of the batches that are open; `recovered` are the journals of dead runs.
        """
        calls, lost = self.lost_calls, self.lost
        if journal := next((one for one in recovered if one.name == self.journal), None):
            calls, lost = journal.calls, journal.lost + worst_of(journal.calls.values())
        elif self.is_open:  # only the bound is known
            lost = max(lost, self.allowance - spent - in_batches)
        return replace(self, spent=spent, answers=answers, lost=lost, lost_calls=calls, is_open=False)


def worst_of(calls: Iterable[Pending]) -> Decimal:
    return sum((pending.worst for pending in calls), _ZERO)
