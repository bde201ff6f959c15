"""Errors that stop a training run. Wrong usage is `common.errors.UsageError`.

Tested in tests/training/test_checkpoint.py.
"""

from __future__ import annotations

from nextscene.common.errors import StoppedError


class TrainingStopped(StoppedError):
    """A run that cannot continue as it is. Its checkpoints are complete, and the message says what to change."""


class Diverged(TrainingStopped):
    """A run whose weights no longer give a finite loss."""


class WorkersLost(TrainingStopped):
    """A failure of Ray, or the loss of more workers than may be replaced."""


class StopRequested(Exception):
    """The step under way was given up because the run was asked to stop. Only `trainer` catches it, on all ranks."""


class TrainingPaused(TrainingStopped):
    """A run that cannot continue now, for lack of budget or of a connection. The weights so far are valid and saved."""
