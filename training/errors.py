"""Ways to end: what was asked cannot be done, or what was begun cannot go on."""

from __future__ import annotations

from nextscene.common.errors import StoppedError, UsageError


class TrainingUsageError(UsageError, ValueError):
    """Wrong usage: a recipe, a folder or a checkpoint that does not fit. The message names it and the remedy."""


class TrainingStopped(StoppedError):
    """A run that cannot go on as it is. Its checkpoints are whole, and the message says what to change."""


class WorkersLost(TrainingStopped):
    """Ray failed, or lost more workers than may be replaced."""


class TrainingPaused(TrainingStopped):
    """It cannot go on for now, for want of money or of a connection: what was learnt so far is sound, and is kept."""
