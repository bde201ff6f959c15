"""Sample videos: for held-out clips beside the clips, and for prompts, the same at each evaluation."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from nextscene.training.sample_videos import write_sample
from tests.training.stages import SMALL, Stage, by_ranks, on_rank, replace

PROMPTS = ("A glass wobbles.", "Dark clouds gather.", "A dog barks.")


def frames(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def video(shade: int) -> torch.Tensor:
    return torch.full((9, 24, 32, 3), shade, dtype=torch.uint8)


def test_a_sample_has_video_frames_and_text_and_its_clip_is_written_once(tmp_path: Path) -> None:
    write_sample(tmp_path / "step-1", "key", "A dog barks.", video(250), 16.0, video(10))
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert names == {"step-1/key.mp4", "step-1/key.png", "step-1/key.txt", "truth/key.mp4"}
    assert frames(tmp_path / "step-1/key.mp4").mean() == pytest.approx(250, abs=3)
    assert frames(tmp_path / "truth/key.mp4").mean() == pytest.approx(10, abs=3)
    with Image.open(tmp_path / "step-1/key.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (48, 160, 3) and (pixels[:24] == 10).all() and (pixels[24:] == 250).all()
    stamp = (tmp_path / "truth/key.mp4").stat().st_mtime_ns
    write_sample(tmp_path / "step-2", "key", "A dog barks.", video(200), 16.0, video(10))
    assert (tmp_path / "truth/key.mp4").stat().st_mtime_ns == stamp


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    logging = replace(SMALL.logging, evaluate_every=1, sample_clips=2, checkpoint_every=0)
    return Stage.made(tmp_path_factory.mktemp("stage"), replace(SMALL, steps=1, logging=logging))


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2])
def test_each_evaluation_makes_a_video_for_each_clip_and_each_prompt(stage: Stage, world: int) -> None:
    """Two ranks share three prompts: the last one is made twice, and written once."""
    job = stage.job(f"run-{world}", prompts=PROMPTS)
    by_ranks(world, on_rank, job)
    for step in (0, 1):
        place = job.folder / f"samples/step-{step}"
        for number, text in enumerate(PROMPTS):
            assert (place / f"prompt-{number:02}.txt").read_text() == f"{text}\n"
            assert frames(place / f"prompt-{number:02}.mp4").shape == (9, 24, 32, 3)
        clips = [path.stem for path in place.glob("*.mp4") if not path.stem.startswith("prompt")]
        assert len(clips) == 2
        assert all((job.folder / "samples/truth" / f"{key}.mp4").is_file() for key in clips)


@pytest.mark.slow
def test_without_held_out_clips_there_are_videos_for_prompts_all_the_same(stage: Stage) -> None:
    logging = replace(stage.usual.logging, evaluate_clips=0)
    job = stage.job("no-clips", replace(stage.usual, logging=logging), prompts=PROMPTS[:1])
    by_ranks(1, on_rank, job)
    found = {path.name for path in (job.folder / "samples/step-1").iterdir()}
    assert found == {"prompt-00.mp4", "prompt-00.png", "prompt-00.txt"}
    assert "A glass wobbles." in (job.run / "report.html").read_text()
