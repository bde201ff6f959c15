"""The pages of a step, written beside training: all of them, before the next ones are held, and what went wrong."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from unittest.mock import patch

import av
import torch
from PIL import Image

from nextscene.training.objectives.grpo.advantage import Selected
from nextscene.training.objectives.grpo.candidate_page import CandidatePage, PageWriter, write_candidate_video
from nextscene.training.rewards.base import Candidate, RewardVerdict


def page(step: int, clip_id: str = "clip") -> CandidatePage:
    """Of a Pass, a Fail and a missing verdict, whose pictures are red, green and blue."""
    pictures = list(torch.eye(3, dtype=torch.uint8)[:, None, None].expand(3, 24, 32, 3) * 255)
    verdicts = [RewardVerdict(0.0, "no"), RewardVerdict(1.0, "yes"), RewardVerdict(None, "nobody knows")]
    return CandidatePage(
        step, clip_id, "A dog barks.", pictures, verdicts, [-1.0, 1.0, None], [Selected(1, 1.0)], "toy"
    )


def test_a_page_has_the_best_first_and_says_who_was_learned_from(tmp_path: Path) -> None:
    page(3).write(tmp_path)
    told = json.loads((tmp_path / "candidates/step-3/clip.json").read_text())
    assert [one["verdict"] for one in told["candidates"]] == ["Fail", "Pass", "missing"]
    assert [one["learnt_from"] for one in told["candidates"]] == [False, True, False]
    picture = Image.open(tmp_path / "candidates/step-3/clip.png").convert("RGB")
    width = picture.width // 3
    shown = [picture.getpixel((width * place + width // 2, 40)) for place in range(3)]
    assert shown == [(0, 255, 0), (255, 0, 0), (0, 0, 255)]


def test_pages_are_written_by_a_thread_and_before_those_of_the_next_step(tmp_path: Path) -> None:
    writer, may_write, write = PageWriter(tmp_path), threading.Event(), CandidatePage.write
    written: list[tuple[int, str]] = []

    def slow(one: CandidatePage, folder: Path) -> None:
        assert may_write.wait(30)
        write(one, folder)
        written.append((one.step, threading.current_thread().name))

    with patch.object(CandidatePage, "write", slow):
        writer.submit([page(1, "a"), page(1, "b")])
        assert written == [], "nobody waits for them"
        may_write.set()
        writer.submit([page(2)])
        assert [step for step, _ in written][:2] == [1, 1]
        assert writer.finish() == ""
    assert [step for step, _ in written] == [1, 1, 2]
    assert all(name.startswith("candidate-pages") for _, name in written)
    writer.close()


def test_what_went_wrong_is_told_at_the_end_once_for_all(tmp_path: Path) -> None:
    (tmp_path / "candidates").mkdir()
    (tmp_path / "candidates" / "step-1").touch()
    writer = PageWriter(tmp_path)
    writer.submit([page(1)])
    writer.submit([page(2)])
    assert "File exists" in writer.finish()
    assert (tmp_path / "candidates/step-2/clip.png").is_file()
    writer.close()


def test_each_candidate_has_a_small_video_and_a_place_in_the_picture(tmp_path: Path) -> None:
    writer, empty = PageWriter(tmp_path), torch.zeros(1, 1)
    shades = (0, 120, 250)
    videos = [torch.full((5, 480, 832, 3), shade, dtype=torch.uint8) for shade in shades]
    writer.submit_videos(
        Candidate("clip", "A dog barks.", 3, number, empty, empty, video, 16.0) for number, video in enumerate(videos)
    )
    writer.submit([page(3)])
    assert writer.finish() == ""
    writer.close()
    for number, shade in enumerate(shades):
        with av.open(str(tmp_path / f"candidates/step-3/clip-{number:02}.mp4")) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == 5 and frames[0].shape == (148, 256, 3)
        assert abs(float(frames[0].mean()) - shade) < 4
    told = json.loads((tmp_path / "candidates/step-3/clip.json").read_text())
    picture = Image.open(tmp_path / "candidates/step-3/clip.png").convert("RGB")
    for one, color in zip(told["candidates"], ((255, 0, 0), (0, 255, 0), (0, 0, 255)), strict=True):
        part = picture.crop(tuple(one["box"]))
        assert part.getcolors() == [(part.width * part.height, color)]


def test_few_videos_are_held_at_once_and_a_failure_is_told(tmp_path: Path) -> None:
    (tmp_path / "candidates").touch()
    writer, empty = PageWriter(tmp_path), torch.zeros(1, 1)
    video = torch.zeros(1, 24, 32, 3, dtype=torch.uint8)
    writer.submit_videos(Candidate("clip", "", 1, number, empty, empty, video, 16.0) for number in range(40))
    assert len(writer._videos) == 16
    assert "candidates" in writer.finish()
    writer.close()


def test_a_video_is_never_enlarged(tmp_path: Path) -> None:
    empty, video = torch.zeros(1, 1), torch.zeros(2, 48, 64, 3, dtype=torch.uint8)
    write_candidate_video(Candidate("clip", "A dog barks.", 3, 0, empty, empty, video, 16.0), tmp_path)
    with av.open(str(tmp_path / "candidates/step-3/clip-00.mp4")) as container:
        assert [(frame.width, frame.height) for frame in container.decode(video=0)] == [(64, 48)] * 2
