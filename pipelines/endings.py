"""How the commands of the trainer end when they cannot do what they were asked: one line, and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from curation.errors import UsageMistake
from judge.errors import JudgeMistake, JudgeStopped
from pipelines import console
from pipelines.settings import SettingsMistake
from shards.mark import NotOurs
from shards.read import DatasetChanged, NoDataset
from shards.receipt import DamagedRecord
from shards.storage import BadLocation, StorageFault
from shards.tar import DamagedShard
from training.errors import TrainingMistake, TrainingStopped


@contextmanager
def in_one_line(go_on: str) -> Iterator[None]:
    """Ends the process as the exit codes of the commands say; `go_on` tells what is kept and how to go on."""
    try:
        yield
    except NotOurs as mistake:
        console.fail(f"--out {mistake}", console.USAGE)
    except (UsageMistake, SettingsMistake, TrainingMistake, JudgeMistake, NoDataset, BadLocation) as mistake:
        console.fail(" ".join(str(mistake).splitlines()), console.USAGE)
    except ModuleNotFoundError as missing:
        console.fail(f"{missing.name} is not installed; pip install '.[train]' brings it", console.USAGE)
    except (DamagedRecord, DamagedShard) as damage:
        console.fail(damage, console.ATTENTION)
    except (TrainingStopped, JudgeStopped, StorageFault, DatasetChanged, OSError) as stop:
        console.fail(f"{stop}\n{go_on.capitalize()}.", console.STOPPED)
    except KeyboardInterrupt:
        console.fail(f"interrupted; {go_on}", console.INTERRUPTED)
