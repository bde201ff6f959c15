"""`nextscene make-shapes`: videos that a build keeps, a table of them, and scenes for evaluation."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from nextscene.pipelines import make_shapes
from nextscene.samples.shapes.clips import ShapeClip, dataset_clips, held_out_scenes
from nextscene.samples.shapes.verifier import observe
from nextscene.samples.shapes.world import what_is_shown
from nextscene.shards.loading.dataset import ClipDataset
from tests.support import SMALL, build_inline

CLIPS = dataset_clips()[:3]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three of the clips, drawn."""
    monkeypatch.setattr(make_shapes, "dataset_clips", lambda: CLIPS)
    ended = CliRunner().invoke(make_shapes.main, [str(tmp_path / "shapes")])
    assert ended.exit_code == 0, ended.stderr
    return tmp_path / "shapes"


def test_each_row_is_a_video_with_its_caption_and_scene(folder: Path) -> None:
    with (folder / "clips.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["caption"], row["scene"]) for row in rows] == [(clip.caption, clip.scene) for clip in CLIPS]
    assert all((folder / row["video"]).is_file() for row in rows)
    assert (folder / "held_out.txt").read_text().splitlines() == held_out_scenes()


def test_a_folder_that_holds_anything_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    ended = CliRunner().invoke(make_shapes.main, [str(tmp_path)])
    assert ended.exit_code == 2 and ended.stderr.startswith(f"error: FOLDER {tmp_path} holds 'notes.txt' and no ")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_what_is_there_is_not_drawn_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[ShapeClip] = []
    (folder / "clips" / f"{CLIPS[1].name}.mp4").unlink()
    monkeypatch.setattr(make_shapes, "_draw", lambda clip, _: drawn.append(clip))
    assert CliRunner().invoke(make_shapes.main, [str(folder)]).exit_code == 0
    assert drawn == [CLIPS[1]]


def test_a_build_keeps_all_and_its_clips_show_what_their_captions_say(folder: Path, tmp_path: Path) -> None:
    build_inline(folder / "clips.csv", tmp_path / "out", replace(SMALL, judge="given"))
    dataset = ClipDataset(str(tmp_path / "out"), max_frames=9, size=(96, 64))
    assert len(dataset) == len(CLIPS)
    for clip, drawn in zip(map(dataset.__getitem__, range(len(dataset))), CLIPS, strict=True):
        assert (clip["caption"], clip["text"]) == (drawn.caption, drawn.scene)
        assert observe(np.asarray(clip["video"])) == what_is_shown(clip["caption"])
