"""The ways a run ends early. Each message is one line that names the thing, the reason and the remedy."""


class UsageError(Exception):
    """The command, the configuration or the source cannot work as given. Nothing was done, or it says so. Exit 2."""


class StoppedError(Exception):
    """Storage, network, account or machine failed. All that was finished is kept; the same command goes on. Exit 3."""


class RayFailed(StoppedError):
    """Ray failed under a step. Why is for the supervisor to find out, who sees Ray's servers."""


class AskingEnded(StoppedError):
    """The budget, the account or the network ended the asking. All that was decided is sealed, and on the page."""


class LeftUndecided(AskingEnded):
    """The money left is too little for some clips. The run goes on with the others, and ends with this."""


class SourceGone(StoppedError):
    """Nothing is where the source was that OUT was planned from, at `location`."""

    def __init__(self, message: str, location: str) -> None:
        super().__init__(message, location)
        self.location = location

    def __str__(self) -> str:
        return str(self.args[0])


class DamagedRecord(ValueError):
    """A receipt, manifest or ledger that cannot be read. The message names it."""
