"""Names of the files of sample videos and candidates in a stage's folder.

Tested in tests/training/report/test_samples.py.
"""

from __future__ import annotations

SAMPLES = "samples"
CANDIDATES = "candidates"
TRUTH = "truth"
"""Folder in `samples` with the clips that the videos are compared with."""
FRAMES_SHOWN = 5
_PROMPT = "prompt-"


def prompt_key(number: int) -> str:
    """Return the name of the files of a prompt of the user's own."""
    return f"{_PROMPT}{number:02}"


def is_prompt(key: str) -> bool:
    """Return whether the files of this name are of a prompt of the user's own."""
    return key.startswith(_PROMPT)
