"""The ways a run ends early. Each message is one line that names the thing, the reason and the remedy."""


class NextSceneError(Exception):
    """Any error that a user can act on."""

    exit_code = 1


class UsageError(NextSceneError):
    """The command, the configuration or the source cannot work as given. Nothing was done, or the message says so."""

    exit_code = 2


class DataError(NextSceneError):
    """A file of a dataset is damaged. The message names it."""


class StoppedError(NextSceneError):
    """Storage, network, account or machine failed. All that was finished is kept; the same command goes on."""

    exit_code = 3


class RunStopped(StoppedError):
    """A build cannot go on for now."""


class RayFailed(RunStopped):
    """Ray failed under a step. Why is for the supervisor to find out, who sees Ray's servers."""


class AskingEnded(RunStopped):
    """The budget, the account or the network ended the asking. All that was decided is sealed, and on the page."""


class LeftUndecided(AskingEnded):
    """The money left is too little for some clips. The run goes on with the others, and ends with this."""


class SourceGone(RunStopped):
    """Nothing is where the source was that OUT was planned from, at `location`."""

    def __init__(self, message: str, location: str) -> None:
        super().__init__(message, location)
        self.location = location

    def __str__(self) -> str:
        return str(self.args[0])


class DamagedRecord(DataError, ValueError):
    """A receipt, manifest or ledger that cannot be read. The message names it."""
