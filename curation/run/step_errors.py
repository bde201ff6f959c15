"""Errors that end a step on Ray early: its worker died, its node was lost, or an error stops the run.

Tested in tests/curation/run/test_engine.py.
"""

from __future__ import annotations

import logging

from ray import exceptions

from nextscene.common.errors import RunStopped, UsageError
from nextscene.common.storage import StorageFault

WORKER_DIED = (exceptions.WorkerCrashedError, exceptions.OutOfMemoryError, exceptions.TaskCancelledError)
NODE_LOST = (exceptions.NodeDiedError, exceptions.ObjectLostError, exceptions.OwnerDiedError)
_log = logging.getLogger(__name__)


def cause_of(error: exceptions.RayTaskError) -> Exception:
    """Return the error that the step raised, if a run may end with it; log any other error and return RunStopped."""
    if isinstance(error.cause, (RunStopped, StorageFault, UsageError)):
        return error.cause
    _log.error("%s", error)
    return RunStopped(f"unexpected error in a worker: {error.cause!r}; see the traceback above")
