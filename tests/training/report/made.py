"""A run's folder to order, as training leaves it: two stages with curves, samples, and groups of candidates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import torch

from nextscene.training.metrics.catalog import HELDOUT_SIGMAS
from nextscene.training.metrics.log_file import heldout_name
from nextscene.training.objectives.grpo.advantage import Selected
from nextscene.training.objectives.grpo.candidate_page import CandidatePage, write_candidate_video
from nextscene.training.rewards.base import Candidate, RewardVerdict
from nextscene.training.sample_layout import prompt_key
from nextscene.training.sample_videos import write_sample
from nextscene.training.summary import StageSummary, TextAblation

SCENES = ("A glass wobbles at the edge of a table.", "<script>alert('scene')</script> & ארנב גדול")
REASON = "\"><img src=x onerror=alert('reason')>"


def write_run(run: Path) -> Path:
    """Write a run: `sft`, which is finished, and `rl`, which is being trained."""
    run.mkdir(parents=True)
    (run / "nextscene.json").write_text('{"kind": "run", "version": 1}\n')
    write_metrics(run / "sft", [*flow_steps(40), *evaluations(range(0, 41, 10))])
    for step in range(0, 41, 10):
        write_samples(run / "sft", step)
    ablation = TextAblation(3, 0.25, 1.0)
    StageSummary("sft", "sft", 40, 40, 1234, 1.0, 0.5, 1.3, 0.6, heldout=ablation).write(run / "sft")
    write_metrics(run / "rl", rl_steps(4))
    for step in range(1, 5):
        write_group(run / "rl", step, [1.0, 0.0, None, 1.0, 0.0, 0.0][: 6 - step % 2])
    return run


def write_metrics(folder: Path, lines: Iterable[Mapping[str, Any]], rest: str = '{"event": "st') -> None:
    """Write the log of a stage, whose last line is being written."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + rest)


def flow_steps(count: int) -> list[dict[str, Any]]:
    return [
        {"event": "step", "step": step, "loss": 2 / step, "lr": 1.0, "seconds": 0.5, "texts_cut": 1, "own_metric": step}
        for step in range(1, count + 1)
    ]


def evaluations(steps: Iterable[int]) -> list[dict[str, Any]]:
    return [
        {
            "event": "evaluation",
            "step": step,
            "heldout_loss": 1 / (1 + step),
            "heldout_loss_unaveraged": 1.1 / (1 + step),
            "zero_loss": 1.3,
            **{heldout_name(sigma): sigma / (1 + step) for sigma in HELDOUT_SIGMAS},
        }
        for step in steps
    ]


def rl_steps(count: int) -> list[dict[str, Any]]:
    return [
        {"event": "step", "step": step, "loss": 0.0, "reward_mean": step / 10, "reward_deviation": 0.3, "usd": 0.5}
        for step in range(1, count + 1)
    ]


def write_samples(folder: Path, step: int) -> None:
    """Write the samples of an evaluation: two clips and a prompt. The videos are white, the clips black."""
    place = folder / "samples" / f"step-{step}"
    black, white = (torch.full((9, 24, 32, 3), shade, dtype=torch.uint8) for shade in (0, 255))
    for number, scene in enumerate(SCENES):
        write_sample(place, f"{number:024x}", scene, white, 16.0, black)
    write_sample(place, prompt_key(0), "A prompt of my own.", white, 16.0)


def write_group(folder: Path, step: int, rewards: list[float | None], clip: int = 0) -> None:
    """Write a group whose candidates are ever lighter."""
    shades = [255 * number // len(rewards) for number in range(len(rewards))]
    pictures = [torch.full((24, 32, 3), shade, dtype=torch.uint8) for shade in shades]
    verdicts = [RewardVerdict(reward, REASON, f"caption {n}", "m", Decimal("0.01")) for n, reward in enumerate(rewards)]
    gains = [None if reward is None else reward - 0.5 for reward in rewards]
    key, scene = f"{clip:024x}", SCENES[step % 2]
    CandidatePage(step, key, scene, pictures, verdicts, gains, [Selected(0, 1.0)], "toy").write(folder)
    for number, picture in enumerate(pictures):
        empty = torch.zeros(1, 1)
        video = picture.expand(5, -1, -1, -1)
        write_candidate_video(Candidate(key, scene, step, number, empty, empty, video, 16.0), folder)
