"""The version of the prompts with which a folder of answers was begun, if no configuration records it."""

from __future__ import annotations

import json
from typing import Literal

from nextscene.judge.config import ClaudeConfig
from nextscene.judge.errors import JudgeStopped
from nextscene.judge.spending.answer_segments import CALLS, AnswerFiles, list_segments

PROMPTS = f"{CALLS}/prompts.json"


def prompt_version(files: AnswerFiles) -> Literal[1, 2]:
    """Return the version recorded beside the answers; else 1 if there are answers; else the newest, and record it.

    Raise JudgeStopped for a damaged record.
    """
    try:
        version = json.loads(files.read(PROMPTS))["version"]
    except FileNotFoundError:
        version = 1 if list_segments(files) else ClaudeConfig().prompt_version
        files.write(PROMPTS, json.dumps({"version": version}).encode())
    except (ValueError, KeyError, TypeError) as error:
        raise JudgeStopped(f"{PROMPTS} is damaged ({error!r}); restore it from a copy") from error
    if version not in (1, 2):
        raise JudgeStopped(f"{PROMPTS} names version {version!r} of the prompts, which this release does not know")
    return 1 if version == 1 else 2
