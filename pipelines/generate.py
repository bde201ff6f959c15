"""`nextscene generate`: videos of what happens next, after one scene or after each scene of a file."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from nextscene.pipelines.cli import startup  # noqa: F401  before all that may be missing, and all that takes its time

# isort: split
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from nextscene.common.errors import UsageError
from nextscene.common.run_lock import hold_lock
from nextscene.common.storage import Storage
from nextscene.curation.media.video_writer import encode_video
from nextscene.curation.sources.clip import is_media
from nextscene.evaluation.video_folder import RECORDS, Record, VideoFolder
from nextscene.evaluation.videos import generate, make_missing, open_generator, video_record
from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.command import Command
from nextscene.pipelines.cli.exit_codes import GoOn, handle_errors
from nextscene.pipelines.cli.generation import MOST_SEED, SAMPLES, sampling_options, scenes_in, wrong_with
from nextscene.pipelines.cli.paths import EXISTING_FILE, LocalPath, check_out, check_writable
from nextscene.pipelines.cli.progress import ProgressLine
from nextscene.pipelines.cli.shell import command
from nextscene.shards.format.folder_mark import VIDEOS, claimed
from nextscene.training.generation.open_generator import GeneratorSpec, of_checkpoint, of_export, of_original
from nextscene.training.model.hub import LTX, LTX_WITH_TEXT_ENCODER, QWEN, model_folder
from nextscene.training.model.model_folders import export_of

if TYPE_CHECKING:
    from nextscene.training.config import PromptForm

_GO_ON = GoOn("the videos that are finished are kept")


@click.command(cls=Command)
@click.option("--run", type=LocalPath(), help="A run of training, whose model is in RUN/export, or that folder.")
@click.option(
    "--checkpoint",
    type=LocalPath(),
    help="A checkpoint instead, RUN/<recipe>/checkpoints/step-N; needs --qwen and --ltx.",
)
@click.option(
    "--original", is_flag=True, help="The original LTX-Video instead, which gets the text as it is; needs --ltx."
)
@click.option("--qwen", type=LocalPath(), help="Qwen2.5-VL, as in training: a folder, or an id on the hub.")
@click.option(
    "--ltx", type=LocalPath(), help="LTX-Video 0.9.0, as in training, likewise; for --original with its text encoder."
)
@click.option("--scene", help="The scene before the video, as text.")
@click.option("--scenes", type=EXISTING_FILE, help="A text file with a scene on each line.")
@click.option(
    "--out", type=LocalPath(), required=True, help="A new file that ends in .mp4, for one video; otherwise a folder."
)
@click.option(
    "--seed", type=click.IntRange(0, MOST_SEED), default=0, show_default=True, help="Seed of the first video."
)
@click.option("--samples", type=SAMPLES, default=1, show_default=True, help="Videos for each scene.")
@click.option(
    "--form",
    type=click.Choice(["nsp", "t2v"]),
    help="Prompt: nsp for what happens after the text, t2v for what the text says, as in pre-training.  [default: nsp]",
)
@sampling_options
@handle_errors(_GO_ON)
def main(
    run: Path | None,
    checkpoint: Path | None,
    original: bool,
    qwen: Path | None,
    ltx: Path | None,
    scene: str | None,
    scenes: Path | None,
    out: Path,
    seed: int,
    samples: int,
    batch: int,
    form: PromptForm | None,
    **sampling: Any,
) -> None:
    """Generate videos of what happens after scenes.

    In a folder they are 0000.mp4 and so on, scene by scene, with seeds that count up from --seed; videos.jsonl there
    says how each was made. A video that is there already, made with the same settings, is not made again, so a run may
    be stopped or killed at any moment; the same command continues it.

    Exit codes: 0 done, 2 wrong usage, 3 stopped by storage, memory or the encoder, or by SIGTERM, SIGHUP or
    SIGUSR1, 130 by Ctrl-C.
    """
    texts = _texts(scene, scenes)
    asked = {name: value for name, value in sampling.items() if value is not None}
    alone = out.suffix.lower() == ".mp4"
    if alone and len(texts) * samples > 1:
        raise UsageError(f"--out {out} is one video, and {len(texts) * samples} are asked for; name a folder")
    if alone:
        _check_new(out)
    elif is_media(out.name) and not out.exists():
        raise UsageError(f"--out {out}: a single video ends in .mp4; name it so, or a folder without such an end")
    else:
        check_out(out, VIDEOS)
    begun = time.monotonic()
    opening = _opening(run, checkpoint, original, qwen, ltx, form, asked)
    wanted = enumerate(text for text in texts for _ in range(samples))
    records = [video_record(opening, f"{number:04}.mp4", text, seed + number) for number, text in wanted]
    count = _one(opening, records, out) if alone else _many(opening, records, out, batch)
    _print_summary(records, count, out, alone, time.monotonic() - begun)


def _texts(scene: str | None, file: Path | None) -> list[str]:
    if (scene is None) == (file is None):
        raise UsageError("give one scene with --scene, or a file of them with --scenes")
    if file:
        return scenes_in("--scenes", file)
    if not scene or not scene.strip():
        raise UsageError("--scene is empty")
    if any("\ud800" <= letter <= "\udfff" for letter in scene):  # how Python decodes argument bytes that are not UTF-8
        raise UsageError("--scene is not text in UTF-8; give it in UTF-8")
    if wrong := wrong_with(scene):
        raise UsageError(f"--scene {wrong}; give one scene, and a file of them with --scenes")
    return [scene.strip()]


def _check_new(file: Path) -> None:
    if file.is_dir():
        raise UsageError(f"--out {file} is a folder; name a file, or a folder that does not end in .mp4")
    if file.exists():
        raise UsageError(f"--out {file} is there already; name another file, or delete it")


def _opening(
    run: Path | None,
    checkpoint: Path | None,
    original: bool,
    qwen: Path | None,
    ltx: Path | None,
    form: PromptForm | None,
    asked: Mapping[str, Any],
) -> GeneratorSpec:
    if [run is not None, checkpoint is not None, original].count(True) != 1:
        raise UsageError("name one model, with --run, --checkpoint or --original")
    wanted = {"--qwen": checkpoint is not None, "--ltx": run is None}
    for flag, path in {"--qwen": qwen, "--ltx": ltx}.items():
        if wanted[flag] != (path is not None):
            kind = "--run" if run else "--checkpoint" if checkpoint else "--original"
            raise UsageError(f"{kind} {'needs' if wanted[flag] else 'goes without'} {flag}")
    if original and form:
        raise UsageError("--original is given the text as it is; leave --form out")

    if run:
        return of_export(export_of(run), form or "nsp", **asked)
    assert ltx  # noqa: S101 – checked above
    if checkpoint:
        assert qwen  # noqa: S101
        return of_checkpoint(checkpoint, model_folder(qwen, QWEN), model_folder(ltx, LTX), form or "nsp", **asked)
    return of_original(model_folder(ltx, LTX_WITH_TEXT_ENCODER), **asked)


def _one(opening: GeneratorSpec, records: Sequence[Record], out: Path) -> int:
    check_writable(out.absolute().parent)
    encode_video(
        generate(open_generator(opening), records)[0], Storage.at(out.absolute().parent), out.name, opening.sampling.fps
    )
    return 1


def _many(opening: GeneratorSpec, records: Sequence[Record], out: Path, batch: int) -> int:
    VideoFolder(Storage.at(out)).check(records)  # before the lock is taken, which already changes the folder
    with claimed(Storage.at(out), VIDEOS) as place, hold_lock(place, uuid.uuid4().hex) as heartbeat:
        return make_missing(VideoFolder(heartbeat.out), opening, records, batch, ProgressLine("generating", "videos"))


def _print_summary(records: Sequence[Record], count: int, out: Path, alone: bool, seconds: float) -> None:
    first, last = records[0], records[-1]
    shape = f"{first['frames']} frames of {first['width']}×{first['height']} at {first['fps']:g} a second"
    standing = f"; {len(records) - count:,} stood there already" if count < len(records) else ""
    lines = {
        "made": f"{count:,} {'video' if count == 1 else 'videos'}, {shape}{standing}",
        "model": f"{first['model']}, {first['steps']} steps, guidance {first['guidance']:g}",
        "seed": f"{first['seed']}" if len(records) == 1 else f"{first['seed']} to {last['seed']}",
        "time": f"{seconds:,.1f} s",
        "video": f"{out}" if alone else f"{out}, {RECORDS} says how each was made",
        "next": "look at it" if alone else f"{command('evaluate', '--help')}  # to have such videos judged",
    }
    for name, line in lines.items():
        console.out.print(f"{name:<10}{line}", markup=False)


if __name__ == "__main__":
    main()
