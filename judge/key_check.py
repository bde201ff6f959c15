"""Check that the API accepts the key, made before a command loads or makes anything.

Tested in tests/pipelines/test_wrong_key.py and tests/pipelines/test_train_rl.py.
"""

from __future__ import annotations

import asyncio

from nextscene.judge.api.backoff import RetryPolicy
from nextscene.judge.errors import JudgeStopped
from nextscene.judge.spending.answer_segments import AnswerFiles
from nextscene.judge.spending.stored_answers import StoredAnswers


def check_key_accepted(files: AnswerFiles, model: str, retry_policy: RetryPolicy | None = None) -> None:
    """Raise JudgeUsageError if the API rejects the key. Costs nothing.

    Where answers are stored in `files`, the key is not tried, since it may not be needed.
    """
    if has_stored_answers(files):
        return
    from nextscene.judge.api.client import check_accepted  # here, because it loads the SDK

    asyncio.run(check_accepted(retry_policy or RetryPolicy(), model))


def has_stored_answers(files: AnswerFiles) -> bool:
    """Return whether answers are stored that were paid for; True also if the stored answers are damaged."""
    try:
        return StoredAnswers(files).count > 0
    except JudgeStopped:
        return True
