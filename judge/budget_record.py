"""What is on file of the budget: `calls/account.json`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from judge.errors import JudgeStopped
from judge.journal import Pending, Recovered
from judge.segments import CALLS, Files

ACCOUNT = f"{CALLS}/account.json"
_ZERO = Decimal(0)


@dataclass(frozen=True)
class BudgetRecord:
    """`calls/account.json`, in US dollars.

    `allowance` bounds all that was spent or lost or is under way. `lost_calls` are the calls without an end whose
    question has no answer yet; `lost` is what they and those before them may have cost. `is_open` while a run works,
    with the journal `journal`; `taken` are journals of dead runs whose calls are in `lost_calls` already.
    """

    spent: Decimal = _ZERO
    lost: Decimal = _ZERO
    allowance: Decimal = _ZERO
    answers: int = 0
    lost_calls: Mapping[str, Pending] = field(default_factory=dict)
    is_open: bool = False
    journal: str = ""
    taken: tuple[str, ...] = ()

    @staticmethod
    def read(files: Files) -> BudgetRecord | None:
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
                answers=int(value["answers"]), lost_calls=lost_calls, is_open=bool(value.get("is_open", True)),
                journal=str(value.get("journal", "")), taken=tuple(map(str, value.get("taken", ()))), **money,
            )  # fmt: skip
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, ArithmeticError, AttributeError, RecursionError) as error:
            raise JudgeStopped(f"{ACCOUNT} is damaged ({error!r}); restore it from a copy") from error

    def to_bytes(self) -> bytes:
        lost_calls = [[call, pending.key, str(pending.worst)] for call, pending in self.lost_calls.items()]
        return json.dumps({
            "spent": str(self.spent), "lost": str(self.lost), "allowance": str(self.allowance), "answers": self.answers,
            "is_open": self.is_open, "journal": self.journal, "taken": self.taken, "lost_calls": lost_calls,
        }).encode()  # fmt: skip

    def reconciled(
        self, spent: Decimal, answers: int, in_batches: Decimal, recovered: Collection[Recovered] = ()
    ) -> BudgetRecord:
        """The record as it is once nobody is at work any more: `spent` and `answers` are what is stored.

        `in_batches` is the worst case of the batches that are open; `recovered` are the journals of dead runs. The same
        journal changes nothing a second time.
        """
        found = {one.name: one.under_way for one in recovered if one.name not in self.taken}
        calls = {call: pending for under_way in found.values() for call, pending in under_way.items()}
        lost = self.lost + worst_of(calls.values())
        if self.is_open and self.journal not in found and self.journal not in self.taken:
            lost = max(lost, self.allowance - spent - in_batches)  # only the bound is known
        taken = tuple(one.name for one in recovered)  # others are deleted
        return replace(
            self, spent=spent, answers=answers, lost=lost, lost_calls={**self.lost_calls, **calls}, taken=taken,
            is_open=False,
        )  # fmt: skip


def worst_of(calls: Iterable[Pending]) -> Decimal:
    return sum((pending.worst for pending in calls), _ZERO)
