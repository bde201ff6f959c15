"""The log of a stage at Weights & Biases, an optional package. Offline, it is a folder that `wandb sync` uploads."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextscene.common.errors import UsageError
from nextscene.common.text import first_line

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

_ID_FILE = "wandb-id.txt"
_LOCAL_MODES = ("offline", "disabled", "dryrun")
_STEP = "step"


def check_wandb(project: str) -> None:
    """Raise UsageError if a run cannot be logged to this project: the package or the key is missing.

    Nothing is sent.
    """
    if find_spec("wandb") is None:
        raise UsageError(
            f"`logging.wandb` {project}: the package wandb is not installed; install nextscene[wandb], in a clone by"
            " pip install '.[wandb]'"
        )
    import wandb

    if os.environ.get("WANDB_MODE") not in _LOCAL_MODES and not wandb.login(prompt=False):
        raise UsageError(
            f"`logging.wandb` {project}: no key for Weights & Biases; set WANDB_API_KEY, or WANDB_MODE=offline to log"
            " into the run's folder alone"
        )


class WandbLog:
    """The log of one stage. A run that resumes continues the same log, whose id is in the stage's folder.

    Its steps are numbers of their own, so that steps that are taken again after a resume are shown too.
    """

    def __init__(self, project: str, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        """Open the log. Raise UsageError if W&B does not accept it."""
        import wandb

        wandb.setup(wandb.Settings(silent=True))  # for its advertisements too, which do not heed the run's settings
        try:
            self._run: Run = wandb.init(
                project=project,
                dir=str(folder),
                id=_run_id(folder),
                resume="allow",
                name=name,
                config=dict(settings),
                settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
            )
        except wandb.errors.Error as error:
            raise UsageError(f"`logging.wandb` {project}: {first_line(error)}") from error
        self._run.define_metric(_STEP, hidden=True)
        self._run.define_metric("*", step_metric=_STEP)

    def log(self, event: str, step: int, numbers: Mapping[str, float]) -> None:
        """Log finite numbers of a step or an evaluation, by the same names as for TensorBoard."""
        self._run.log({_STEP: step, **{f"{event}/{name}": value for name, value in numbers.items()}})

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


def _run_id(folder: Path) -> str:
    """Return the id of the stage's log, a new one for a new stage."""
    file = folder / _ID_FILE
    if not file.exists():
        file.write_text(f"{uuid.uuid4().hex[:12]}\n", encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()
