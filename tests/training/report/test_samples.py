"""Film strips over the steps: the clip once, the model's videos at some steps, and nothing that is half written."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from nextscene.training.report.samples import MAX_STEPS, read_strips, spread
from nextscene.training.sample_layout import is_prompt, prompt_key
from tests.training.report.made import write_samples


def brightness(jpeg: str) -> float:
    with Image.open(io.BytesIO(base64.b64decode(jpeg))) as picture:
        return picture.convert("L").resize((1, 1)).getpixel((0, 0))  # type: ignore[return-value]


def test_each_clip_has_its_truth_and_a_row_for_each_step(run: Path) -> None:
    prompt, *clips = read_strips(run, "sft")
    steps = ["step 0", "step 10", "step 20", "step 30", "step 40"]
    assert prompt.is_prompt and prompt.text.text == "A prompt of my own."
    assert [row.label for row in prompt.rows] == steps
    assert len(clips) == 2
    for clip in clips:
        assert [row.label for row in clip.rows] == ["truth", *steps]
        assert brightness(clip.rows[0].jpeg) < 10 and all(brightness(row.jpeg) > 245 for row in clip.rows[1:])
        assert clip.rows[0].video == f"sft/samples/truth/{clip.key}.mp4"
        assert clip.rows[1].video == f"sft/samples/step-0/{clip.key}.mp4"


@pytest.mark.parametrize("count", [0, 1, 2, 8, 9, 1000])
def test_steps_are_spread_from_the_first_to_the_last(count: int) -> None:
    steps = list(range(0, 10 * count, 10))
    chosen = spread(steps, MAX_STEPS)
    assert len(chosen) == min(count, MAX_STEPS) and chosen == sorted(set(chosen))
    assert chosen[:1] == steps[:1] and chosen[-1:] == steps[-1:]


def test_a_picture_that_is_being_written_and_a_video_that_is_gone_are_left_out(tmp_path: Path) -> None:
    for step in (1, 2):
        write_samples(tmp_path / "sft", step)
    picture = tmp_path / "sft/samples/step-2" / f"{0:024x}.png"
    picture.write_bytes(picture.read_bytes()[:60])
    (tmp_path / "sft/samples/step-1" / f"{0:024x}.mp4").unlink()
    strip = next(one for one in read_strips(tmp_path, "sft") if one.key == f"{0:024x}")
    assert [(row.label, bool(row.video)) for row in strip.rows] == [("truth", True), ("step 1", False)]
    assert read_strips(tmp_path, "nothing") == []


def test_files_of_prompts_are_told_from_those_of_clips() -> None:
    assert is_prompt(prompt_key(7)) and not is_prompt(f"{7:024x}")
