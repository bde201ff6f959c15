"""`nextscene make-shapes`: the sample world of moving shapes, as video files with captions and scenes."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from nextscene.pipelines.cli import startup  # noqa: F401  before all that may be missing, and all that takes its time

# isort: split
import csv
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import click

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.common.text import many
from nextscene.curation.media.video_writer import encode_video
from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.command import Command
from nextscene.pipelines.cli.exit_codes import GoOn, handle_errors
from nextscene.pipelines.cli.paths import LocalPath, check_free
from nextscene.pipelines.cli.progress import ProgressBar
from nextscene.samples.shapes.clips import ShapeClip, dataset_clips, held_out_scenes, rare_scenes
from nextscene.samples.shapes.drawing import draw_clip
from nextscene.shards.format.folder_mark import SHAPES, NotOurs, claimed

FRAMES, WIDTH, HEIGHT, FPS = 9, 832, 480, 16.0
MANIFEST = "clips.csv"
HELD_OUT, RARE = "held_out.txt", "rare.txt"


@click.command(cls=Command)
@click.argument("folder", type=LocalPath())
@handle_errors(GoOn("what is in FOLDER is whole"))
def main(folder: Path) -> None:
    """Draw a world of moving shapes that can be learned.

    A video shows a colored shape, whose motion follows from a scene.
    FOLDER/clips.csv lists the videos with their captions and scenes, for build --judge given. A fifth of the
    combinations of color, shape, place and motion is in no video: FOLDER/held_out.txt has scenes that they follow, for
    evaluate --scenes. FOLDER/rare.txt has scenes whose right effect is rare in the videos. What is there already is
    not drawn again.

    FOLDER is new, empty, or one of before.

    Exit codes: 0 done, 2 wrong usage, 3 stopped by storage, or by SIGTERM, SIGHUP or SIGUSR1, 130 by Ctrl-C.
    """
    check_free(folder.absolute())
    try:
        with claimed(Storage.at(folder), SHAPES) as out:
            clips = dataset_clips()
            _draw_all(clips, out)
    except NotOurs as mistake:
        raise UsageError(f"FOLDER {mistake}") from mistake
    console.out.print(f"drawn     {many(len(clips), 'clip')}, listed in {folder / MANIFEST}", markup=False)


def _draw_all(clips: Sequence[ShapeClip], out: Storage) -> None:
    missing = [clip for clip in clips if not out.stat(_file(clip))]
    bar = ProgressBar("clips")
    bar.begin(len(clips), len(clips) - len(missing))
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done, _ in enumerate(pool.map(lambda clip: _draw(clip, out), missing), len(clips) - len(missing) + 1):
                bar.show(done, "drawing", f"drawing: {done} of {len(clips)}")
    finally:
        bar.end()
    out.write_if_changed(HELD_OUT, _lines(held_out_scenes()))
    out.write_if_changed(RARE, _lines(rare_scenes()))
    out.write_if_changed(MANIFEST, _table(clips))


def _file(clip: ShapeClip) -> str:
    return f"clips/{clip.name}.mp4"


def _draw(clip: ShapeClip, out: Storage) -> None:
    encode_video(draw_clip(clip.shown, clip.seed, FRAMES, WIDTH, HEIGHT), out, _file(clip), FPS)


def _lines(texts: Sequence[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


def _table(clips: Sequence[ShapeClip]) -> bytes:
    table = io.StringIO(newline="")
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("video", "caption", "scene"))
    rows.writerows((_file(clip), clip.caption, clip.scene) for clip in clips)
    return table.getvalue().encode()


if __name__ == "__main__":
    main()
