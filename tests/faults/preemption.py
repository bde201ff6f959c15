"""A campaign that is run by hand: ways in which schedulers end a training, and whether it continues to the bit.

`python -m tests.faults.preemption [NAME …]` trains the tiny model with a launcher, ends it in each way, resumes it, and
compares each step's loss with that of a run that was left alone. It prints a line for each way.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from nextscene.training.checkpoint_info import latest
from nextscene.training.metrics.log_file import read_metrics
from tests.command import Command, Place, place
from tests.training.stages import make_data, make_originals

RECIPE = """
name = "connector"
stage = "connector"
trainable = ["bridge.*"]
mix = [{ text = "caption", prompt = "t2v" }]
data = { micro_batch = 1, global_batch = 2, max_frames = 9, width = 32, height = 24, workers = 1 }
model = { queries = 4, max_tokens = 256 }
parallel = { precision = "fp32", checkpointing = "none", compile = false }
logging = { checkpoint_every = 4, evaluate_clips = 0 }
"""
ALONE: tuple[str, ...] = ()
RESTARTS = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "3")
HANDLED = (*RESTARTS, "--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGUSR1")
RAY = ("--launcher", "ray", "--workers", "2")
LONG, MORE = 400, 4
_GAP_SECONDS = 0.3
_SETTLE_SECONDS = 60.0

Family = list[psutil.Process]


def everyone(family: Family) -> Family:
    """The launcher and all processes below it, as Slurm ends a job."""
    return family


def launcher(family: Family) -> Family:
    return family[:1]


def ranks(family: Family) -> Family:
    return [one for one in family[1:] if one.environ().get("RANK") and one.ppid() == family[0].pid]


def second_rank(family: Family) -> Family:
    return [one for one in ranks(family) if one.environ()["RANK"] == "1"]


@dataclass(frozen=True)
class Way:
    """A way to end a run: how it is started, whom it is sent which signals, and the exit code of its launcher."""

    start: tuple[str, ...]
    whom: Callable[[Family], Family]
    signals: tuple[signal.Signals, ...]
    code: int


TERM, USR1, HUP, INT, KILL = signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT, signal.SIGKILL
WAYS = {
    "process-term": Way(ALONE, everyone, (TERM,), 3),
    "process-term-twice": Way(ALONE, everyone, (TERM, TERM), 3),
    "process-usr1": Way(ALONE, everyone, (USR1,), 3),
    "process-hup": Way(ALONE, everyone, (HUP,), 3),
    "process-int": Way(ALONE, launcher, (INT,), 130),
    "torchrun-term": Way(RESTARTS, everyone, (TERM,), 1),
    "torchrun-term-twice": Way(RESTARTS, everyone, (TERM, TERM), 1),
    "torchrun-term-to-itself": Way(RESTARTS, launcher, (TERM,), 1),
    "torchrun-term-to-the-ranks": Way(RESTARTS, ranks, (TERM,), 1),
    "torchrun-hup": Way(RESTARTS, everyone, (HUP,), 1),
    "torchrun-usr1-then-term": Way(HANDLED, everyone, (USR1, TERM), 1),
    "torchrun-usr1-unhandled": Way(RESTARTS, launcher, (USR1,), -10),
    "torchrun-killed": Way(RESTARTS, launcher, (KILL,), -9),
    "torchrun-rank-killed": Way(RESTARTS, second_rank, (KILL,), 0),
    "ray-term": Way(RAY, launcher, (TERM,), 3),
    "ray-term-twice": Way(RAY, launcher, (TERM, TERM), 3),
    "ray-usr1": Way(RAY, launcher, (USR1,), 3),
    "ray-hup": Way(RAY, launcher, (HUP,), 3),
}


class Training:
    """The command that trains the tiny model below one folder."""

    def __init__(self, here: Place, folder: Path) -> None:
        self._here, self._folder = here, folder
        self._data, self._models = make_data(folder / "data"), make_originals(folder / "originals")
        (folder / "recipe.toml").write_text(RECIPE)

    def arguments(self, start: Sequence[str], out: Path, steps: int) -> list[str]:
        before, after = ((), start) if "ray" in start else (start, ())
        flags = ["--recipe", self._folder / "recipe.toml", "--data", self._data, "--out", out]
        flags += ["--qwen", self._models.qwen, "--ltx", self._models.ltx, "--steps", steps, "--resume"]
        script = ["pipelines/train.py", "--stage", "connector", *map(str, flags)]
        return [sys.executable, *before, *script, *after]

    def run(self, start: Sequence[str], out: Path, steps: int) -> dict[int, float]:
        """Train to the end, and return the losses."""
        with self._here.start(*self.arguments(start, out, steps)) as command:
            ended = command.wait(600)
        assert ended.code == 0, ended.stderr
        return losses(out)

    def end(self, way: Way, out: Path) -> str:
        """Train until the third step, and end it that way. Return what is wrong, "" if nothing is."""
        steps = LONG if way.code else LONG // 4
        with self._here.start(*self.arguments(way.start, out, steps)) as command:
            command.until(lambda: len(losses(out)) >= 3 + 2 * (KILL in way.signals), 300)
            family = [psutil.Process(command.pid), *psutil.Process(command.pid).children(recursive=True)]
            for number in way.signals:
                send(number, way.whom(family))
                time.sleep(_GAP_SECONDS)
            code = command.wait(300).code
            _settle(command, family)
        newest, done = latest(out / "connector" / "checkpoints"), max(losses(out))
        if code != way.code:
            return f"ended with {code}, not {way.code}"
        return "" if newest and newest.name == f"step-{done}" else f"has {newest and newest.name} after step {done}"


def send(number: signal.Signals, processes: Family) -> None:
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            one.send_signal(number)


def losses(out: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_metrics(out / "connector") if line["event"] == "step"}


def _settle(command: Command, family: Family) -> None:
    """Wait for processes that outlive their launcher, as those of a killed torchrun do until they have stopped."""
    _, left = psutil.wait_procs(family, _SETTLE_SECONDS)
    assert left == [], f"{[one.pid for one in left]} outlive {command.pid}"


def main(names: Sequence[str]) -> int:
    """Try the ways that are named, or all. Return the number of those after which a run did not continue."""
    os.environ["OMP_NUM_THREADS"] = "1"
    failed = 0
    with place() as here, tempfile.TemporaryDirectory() as folder:
        training = Training(here, Path(folder))
        undisturbed: dict[tuple[str, ...], dict[int, float]] = {}
        for name in names or WAYS:
            way, out = WAYS[name], Path(folder, name)
            kind = ALONE if way.start == ALONE else RESTARTS
            if kind not in undisturbed:
                undisturbed[kind] = training.run(kind, Path(folder, f"undisturbed-{len(kind)}"), LONG // 4)
            wrong = training.end(way, out)
            done = max(losses(out), default=0)
            found = losses(out) if way.code == 0 or wrong else training.run(way.start, out, done + MORE)
            expected = {step: undisturbed[kind].get(step) for step in found}
            wrong = wrong or ("" if found == expected else "continues otherwise than a run that was left alone")
            failed += bool(wrong)
            print(f"{name:28} step {done:3}  {wrong or 'continues to the bit'}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
