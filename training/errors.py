"""Errors that stop a training run. Wrong usage is `common.errors.UsageError`.

Tested in tests/training/test_checkpoint.py.
"""

from __future__ import annotations

from nextscene.common.errors import StoppedError


class TrainingStopped(StoppedError):
    """A run that cannot go on as it is. Its checkpoints are whole, and the message says what to change."""


class WorkersLost(TrainingStopped):
    """Ray failed, or lost more workers than may be replaced."""


class TrainingPaused(TrainingStopped):
    """It cannot go on for now, for want of money or of a connection: what was learnt so far is sound, and is kept."""
