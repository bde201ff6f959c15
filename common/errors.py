"""The errors that a user can act on. Each message is one line that names the thing, the reason and the remedy.

    NextSceneError
    ├── UsageError      exit 2: the command, the configuration or the source cannot work as given
    │   ├── SettingsError, BadLocation, BadArchive, NoSample, NotOurs, DatasetNotFound, StateMismatch, NoDecoder
    │   └── DamagedConfig, UnusablePrompt, JudgeUsageError
    ├── DataError       exit 1: a file of a dataset is damaged
    │   └── DamagedRecord, DamagedShard (MissingShard, TooManyBadClips), DamagedVideo
    └── StoppedError    exit 3: storage, network, account or machine failed; the same command continues
        ├── RunStopped (RayFailed, AskingEnded, LeftUndecided, SourceGone, CannotSeal)
        ├── StorageFault (Unreachable), DatasetChanged
        ├── JudgeStopped (OverBudget)
        ├── PeerLost
        └── TrainingStopped (WorkersLost, TrainingPaused, OutOfMemory, LoaderKilled, DiskFull)

`pipelines.cli.exit_codes` turns them into a line and an exit code.
"""


class NextSceneError(Exception):
    """Any error that a user can act on."""

    exit_code = 1


class UsageError(NextSceneError):
    """The command, the configuration or the source cannot work as given. Nothing was done, or the message says so."""

    exit_code = 2


class DataError(NextSceneError):
    """A file of a dataset is damaged. The message names it."""


class StoppedError(NextSceneError):
    """Storage, network, account or machine failed. All finished work is kept; the same command continues.

    `needs_other_command` is True if it must be given otherwise then, as the message says.
    """

    exit_code = 3
    needs_other_command = False


class RunStopped(StoppedError):
    """A build cannot continue for now."""


class RayFailed(RunStopped):
    """Ray failed during a step. The supervisor, which sees Ray's servers, finds the cause."""


class AskingEnded(RunStopped):
    """The budget, the account or the network ended the judging. All decided clips are sealed, and on the page."""


class LeftUndecided(AskingEnded):
    """The remaining budget is too small for some clips. The run continues with the others, and ends with this."""


class SourceGone(RunStopped):
    """The source that OUT was planned from is missing at `location`."""

    needs_other_command = True

    def __init__(self, message: str, location: str) -> None:
        super().__init__(message, location)
        self.location = location

    def __str__(self) -> str:
        return str(self.args[0])


class DamagedRecord(DataError, ValueError):
    """A receipt, manifest or ledger that cannot be read. The message names it."""
