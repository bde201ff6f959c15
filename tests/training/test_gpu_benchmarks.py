"""The measurements for a GPU at toy size: that they run, and what they give. How fast is not asked of a CPU."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

from benchmarks.gpu import group, videos
from benchmarks.gpu.case import Case, measured, recipe
from benchmarks.gpu.models import TOY, language, text_encoder, vae
from benchmarks.gpu.stage_steps import cases, gains, measure, table
from nextscene.training.distributed.process_group import process_group

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def figures() -> list[dict[str, Any]]:
    small = [replace(case, micro_batch=2) for case in cases() if not case.compiled]
    return list(measure(small, lambda case: measured(case, TOY)))[-1]


def test_every_stage_and_reading_is_measured(figures: list[dict[str, Any]]) -> None:
    assert [(each["stage"], each["reading"]) for each in figures] == [
        ("connector", "once"),
        ("connector", "plain"),
        ("sft", "once"),
        ("connector", "padded"),
    ]
    for each in figures:
        assert each["samples_per_second"] == pytest.approx(2 / each["seconds"])
        assert min(each["rounds"]) <= each["seconds"] <= max(each["rounds"])
        assert "mfu" not in each


def test_the_ways_of_reading_differ_in_speed_not_in_what_is_learned(figures: list[dict[str, Any]]) -> None:
    once, plain, padded = (each["loss"] for each in figures if each["stage"] == "connector")
    assert plain == pytest.approx(once, rel=1e-3)  # bfloat16
    assert padded == pytest.approx(once, rel=1e-3)
    assert all(math.isfinite(gain) and gain > 0 for gain in gains(figures).values())
    assert gains(figures).keys() == {"over plain", "over padded"}


def test_of_a_case_that_does_not_fit_half_is_tried_until_it_does() -> None:
    def ask(case: Case) -> dict[str, Any]:
        return {"stage": case.stage, "micro_batch": case.micro_batch, "fits": case.micro_batch <= 8}

    done = list(measure([Case("connector", "plain", False, 32)], ask))
    assert [each["micro_batch"] for each in done[-1]] == [32, 16, 8]


def test_a_case_that_failed_has_its_line_in_the_table(figures: list[dict[str, Any]]) -> None:
    failed = {"stage": "sft", "reading": "once", "compiled": True, "micro_batch": 8, "failure": "took too long"}
    rows = table([*figures, failed]).splitlines()
    assert rows[2 + len(figures)] == "| sft | once | yes (? graphs) | 8 | took too long |  |  |  |"
    assert len({row.count("|") for row in rows if row.startswith("|")}) == 1


def test_a_model_in_bfloat16_keeps_its_rotary_frequencies_in_float32() -> None:
    usual = Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(**TOY.language))
    built = language(TOY, CPU, torch.bfloat16)
    assert {parameter.dtype for parameter in built.parameters()} == {torch.bfloat16}
    assert torch.equal(built.rotary_emb.inv_freq, usual.rotary_emb.inv_freq)
    assert torch.get_default_dtype() == torch.float32


def test_what_a_video_is_drawn_with_by_itself_runs_too() -> None:
    states = text_encoder(TOY, CPU, torch.bfloat16)(torch.arange(8)[None]).last_hidden_state
    assert states.shape == (1, 8, TOY.transformer["caption_channels"])
    autoencoder = vae(TOY, CPU, torch.bfloat16)
    latents = torch.randn(1, TOY.vae["latent_channels"], 2, 2, 3, dtype=torch.bfloat16)
    assert autoencoder.decode(latents, None).sample.shape == (1, 3, *TOY.clip)


def test_a_video_of_each_model_is_timed_and_its_parts_too() -> None:
    figures = [videos.measured(model, TOY) for model in ("ours", "original")]
    for each in figures:
        assert each["text"] > 0 and math.isfinite(each["steps"]) and math.isfinite(each["decoding"])
        assert min(each["rounds"]) <= each["seconds"] <= max(each["rounds"])
    ratio = figures[0]["seconds"] / figures[1]["seconds"]
    assert videos.ratio_of(figures) == pytest.approx(ratio)
    assert f"ours takes {ratio:.3f} times" in videos.table(figures)
    assert videos.ratio_of([figures[0], {"model": "original", "failure": "failed"}]) is None


def one_group(folder: Path, precision: Literal["bf16", "fp32"]) -> dict[str, Any]:
    settings = recipe("rl")
    settings = replace(
        settings,
        policy=replace(settings.policy, group_size=4, best_of=2, steps=3),
        parallel=replace(settings.parallel, precision=precision),
        data=replace(settings.data, global_batch=1),
    )
    with process_group() as world:
        return group.measured(TOY, settings, world, folder)


def test_a_group_is_made_and_learned_from(tmp_path: Path) -> None:
    figures = one_group(tmp_path, "bf16")
    assert figures["group_seconds"] > 0 and figures["update_seconds"] > 0
    assert figures["gradient_norm"] > 0
    assert (figures["reward_mean"], figures["groups_without_spread"]) == (0.5, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_ratio_is_1_on_a_gpu_in_float32(tmp_path: Path) -> None:
    assert one_group(tmp_path, "fp32")["ratio_off"] <= 1e-6
