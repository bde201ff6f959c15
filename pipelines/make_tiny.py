"""`nextscene make-tiny`: toy versions of Qwen2.5-VL and LTX-Video for a dataset, to try training on a CPU.

Tested in tests/training/tiny/test_make.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from nextscene.common.text import many
from nextscene.pipelines.cli import startup  # noqa: F401  before all that may be missing, and all that takes its time

# isort: split
import itertools
import os
from dataclasses import replace

import click

from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.command import Command
from nextscene.pipelines.cli.exit_codes import GoOn, handle_errors
from nextscene.pipelines.cli.paths import LocalPath, check_dataset, check_out
from nextscene.pipelines.cli.progress import ProgressBar
from nextscene.pipelines.cli.shared_options import data_option
from nextscene.pipelines.cli.shell import command
from nextscene.shards.format.folder_mark import TOYS
from nextscene.training.tiny.spec import SPECS, ToySpec

_GO_ON = GoOn("nothing was written", "run the same command again")


@click.command(cls=Command)
@data_option
@click.option("--out", type=LocalPath(), help="Folder to write the checkpoints to.", required=True)
@click.option(
    "--kind",
    type=click.Choice(list(SPECS)),
    default="film",
    show_default=True,
    help="film: for any dataset; shapes: for the world of make-shapes, smaller, with a language model that is trained.",
)
@click.option("--steps", type=click.IntRange(0), help="Training steps of the toy transformer.  [default: the kind's]")
@handle_errors(_GO_ON)
def main(data: str, out: Path, kind: str, steps: int | None) -> None:
    """Make toy checkpoints of a dataset, to try training on a CPU.

    They have the layouts of the published ones. OUT/ltx is for --ltx in training: an autoencoder fitted to the clips,
    and a transformer trained on their captions. OUT/qwen is for --qwen: a language model with random weights, or
    trained to say what happens after a scene, and a tokenizer of the dataset's words. If OUT holds them already,
    nothing is done.

    Exit codes: 0 done, 1 a clip is damaged, 2 wrong usage, 3 stopped by storage, or by SIGTERM, SIGHUP or SIGUSR1,
    130 by Ctrl-C.
    """
    spec = SPECS[kind]
    _make(data, out, spec if steps is None else replace(spec, steps=steps), "tiny" if kind == "film" else kind)


def _make(data: str, out: Path, spec: ToySpec, recipe: str) -> None:
    check_out(out, TOYS, data)
    check_dataset("--data", data, "train")
    from nextscene.training.tiny.make import clips_of, is_made, make_toy_models

    clips = clips_of(data, spec)
    if is_made(data, out, spec):
        console.out.print(f"Nothing to do: {out} holds the toy checkpoints of {data}.", markup=False)
        return
    total, done = len(clips) + 1 + spec.language_steps + spec.steps, itertools.count(1)
    bar = ProgressBar("steps")
    bar.begin(total, 0)

    def tick(what: str) -> None:
        now = next(done)
        bar.show(now, what, f"{what}: {now} of {total}")

    try:
        make_toy_models(data, out, spec, min(2, os.cpu_count() or 1), tick)
    finally:
        bar.end()
    console.out.print(f"made      {out}/qwen and {out}/ltx, of {many(len(clips), 'clip')}", markup=False)
    training = command("train", "--recipe", recipe, "--data", data, "--qwen", out / "qwen", "--ltx", out / "ltx")
    console.out.print(f"next      {training} …", markup=False)


if __name__ == "__main__":
    main()
