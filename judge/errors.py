"""Errors of the judge. Each message is one line: the thing, the reason, the remedy.

Tested in tests/judge/api/test_client.py.
"""

from __future__ import annotations

from nextscene.common.errors import StoppedError, UsageError


class JudgeUsageError(UsageError):
    """The key, the model or a setting is invalid."""


class JudgeStopped(StoppedError):
    """The budget, the account or the network does not allow further questions. All answers so far are stored."""


class OverBudget(JudgeStopped):
    """One long question may cost more than is left of the budget, and is skipped; shorter ones are still asked."""


JUDGE_ERROR = "judge_error"
CAPTION_TOO_LONG = "caption_too_long"


class RequestFailed(Exception):
    """One question got no answer: `reason` is a word to count by, `detail` the last error."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
