"""Checkpoints: sharded over the ranks, written in the background, committed with one rename.

    RUN/<recipe>/checkpoints/step-N/    torch.distributed.checkpoint's files, and about.json

A folder of that name is complete. A killed run leaves a `step-N.unfinished`, which the next run deletes. A folder that
contains any other file is never deleted. A checkpoint can be loaded by any number of ranks, not only by the number that
saved it.
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch import Tensor

from nextscene.common import atomic
from nextscene.common.errors import UsageError
from nextscene.common.text import first_line
from nextscene.training.checkpoint_info import ABOUT, NAME, CheckpointInfo, step_of
from nextscene.training.distributed.process_group import World
from nextscene.training.errors import TrainingStopped

# A process alone may read a checkpoint that many wrote; torch warns about that.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")

_WRITTEN = re.compile(r"about\.json|(__\d+)?\.metadata(\.tmp)?|.+\.distcp")


def load(checkpoint: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill tensors in place, by their names; sharded ones with their own part.

    Raise UsageError if the checkpoint cannot be loaded.
    """
    try:
        dcp.state_dict_loader.load(dict(tensors), checkpoint_id=str(checkpoint))
    except (dcp.api.CheckpointException, OSError, RuntimeError, ValueError, KeyError) as error:
        raise UsageError(
            f"{checkpoint} cannot be loaded: {_first_cause(error)}; delete it to continue from the one before it"
        ) from error


def load_weights(checkpoint: Path, about: CheckpointInfo, parameters: Mapping[str, Tensor]) -> None:
    """Fill a model's parameters, by their names, with the weights of the checkpoint.

    A parameter that has a moving average gets the average.
    """
    averaged = set(about.averaged)
    load(
        checkpoint,
        {
            f"{'average' if name in averaged else 'model'}.{name}": parameters[name].detach()
            for name in about.parameters
        },
    )


def _first_cause(error: BaseException) -> str:
    if isinstance(error, dcp.api.CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    return first_line(error)


class Checkpoints:
    """The checkpoints of one run. At most one is written at a time; the next `save` waits for it."""

    def __init__(self, folder: Path, world: World, keep_last: int) -> None:
        self._folder, self._world, self._keep_last = folder, world, keep_last
        self._group = world.gloo_group()  # a separate group, because another thread uses it
        self._committer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        if world.is_leader:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(f"step-*{atomic.UNFINISHED}"):
                if NAME.fullmatch(left.name.removesuffix(atomic.UNFINISHED)) and _is_ours(left):
                    shutil.rmtree(left)
        world.barrier()

    def save(self, tensors: Mapping[str, Tensor], about: CheckpointInfo) -> None:
        """Copy the tensors and return. They are written while training continues."""
        self.wait()
        final = self._folder / f"step-{about.step}"
        draft = final.with_name(final.name + atomic.UNFINISHED)
        written = dcp.state_dict_saver.async_save(dict(tensors), checkpoint_id=str(draft), process_group=self._group)
        assert isinstance(written, Future)  # noqa: S101 – saving in a thread returns a Future
        self._writing = self._committer.submit(self._commit, written, draft, final, about)

    def wait(self) -> None:
        """Wait until no rank writes a checkpoint. Raise TrainingStopped if a rank failed to write it."""
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        failure = ""
        try:
            writing.result()
        except (dcp.api.CheckpointException, OSError, RuntimeError) as error:
            failure = _first_cause(error)
        if self._world.any_rank(bool(failure)):
            raise TrainingStopped(
                f"a checkpoint could not be written in {self._folder}: {failure or 'by another rank'}"
            )

    def close(self) -> None:
        """Finish the write in progress, and end the thread that writes."""
        self._committer.shutdown()

    def _commit(self, written: Future[Any], draft: Path, final: Path, about: CheckpointInfo) -> None:
        written.result()  # on the leader: all ranks have written, and so has the table of contents
        if not self._world.is_leader:
            return
        atomic.write_synced(draft / ABOUT, json.dumps(asdict(about), indent=1).encode())
        atomic.rename_synced(draft, final)
        whole = (path for path in self._folder.glob("step-*") if NAME.fullmatch(path.name) and _is_ours(path))
        for old in sorted(whole, key=step_of)[: -self._keep_last]:
            shutil.rmtree(old)


def _is_ours(folder: Path) -> bool:
    """Return True for a folder that contains only the files of a checkpoint."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    return all(_WRITTEN.fullmatch(file.name) and file.is_file() for file in folder.iterdir())
