"""How long a video takes at the published size, on one GPU, with random weights: ours beside the original LTX-Video.

Measured, for 65 frames of 832×480 in 50 guided steps, as in the paper's Table 8: the total time, the times of text
encoding, of the steps and of decoding, and the peak memory, including all weights. Ours encodes 128 tokens and 256
queries with Qwen; the original encodes 128 tokens with T5-XXL, and uses diffusers' own pipeline.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LTXPipeline

from benchmarks.gpu import models
from benchmarks.gpu.apart import Figures, figures_of
from benchmarks.gpu.case import recipe
from benchmarks.gpu.models import PUBLISHED, SCHEDULER, TOY, AnyWords, Size
from nextscene.training.distributed.process_group import local_device
from nextscene.training.generation.base import Sampling
from nextscene.training.generation.next_scene import NextScene
from nextscene.training.generation.shared import decode_tokens

ROUNDS = 3


def ours(size: Size, sampling: Sampling, device: torch.device) -> Callable[[], dict[str, float]]:
    """Return a function that makes one video with our model, and returns the seconds of each part."""
    settings = recipe("sft")
    model = models.unified(size, settings, device)
    model.transformer.to(model.dtype)
    encoder = NextScene(
        "ours",
        sampling,
        "nsp",
        model.requires_grad_(requires_grad=False),
        models.vae(size, device, model.dtype),
        FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        AnyWords(size),  # type: ignore[arg-type]
        device,
    )

    def make() -> dict[str, float]:
        with _timed() as text:
            encoder._condition(["a"])
        with _timed() as latents:
            tokens = encoder.latents(["a"], [0])
        with _timed() as decoding:
            decode_tokens(encoder._vae, tokens, encoder._grid)
        return {"text": text(), "steps": latents() - text(), "decoding": decoding(), "seconds": latents() + decoding()}

    return make


def original(size: Size, sampling: Sampling, device: torch.device) -> Callable[[], dict[str, float]]:
    """Return a function that makes one video with the original LTX-Video, and returns the seconds of each part."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    encoder = models.text_encoder(size, device, dtype)
    pipeline = LTXPipeline(
        FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        models.vae(size, device, dtype),
        encoder,
        None,
        models.transformer(size, device, dtype),
    )
    pipeline.set_progress_bar_config(disable=True)

    @torch.no_grad()
    def make() -> dict[str, float]:
        ids = torch.randint(size.text_encoder["vocab_size"], (2, size.text), device=device)
        with _timed() as text:
            without, given = encoder(ids).last_hidden_state.chunk(2)
        mask = torch.ones(1, size.text, device=device)
        frames, height, width = size.clip
        embedded = {
            "prompt_embeds": given,
            "prompt_attention_mask": mask,
            "negative_prompt_embeds": without,
            "negative_prompt_attention_mask": mask,
        }
        how = {
            "num_frames": frames,
            "height": height,
            "width": width,
            "frame_rate": 25,
            "num_inference_steps": sampling.steps,
            "guidance_scale": sampling.guidance,
        }
        with _timed() as steps:
            pipeline(**embedded, **how, output_type="latent")
        with _timed() as whole:
            pipeline(**embedded, **how, output_type="np")
        seconds = text() + whole()
        return {"text": text(), "steps": steps(), "decoding": whole() - steps(), "seconds": seconds}

    return make


@contextmanager
def _timed() -> Any:
    """Measure the body. Yield a function that returns, after the body, the seconds that it took."""
    _finish()
    begun = time.perf_counter()
    ended: list[float] = []
    yield lambda: ended[0] - begun
    _finish()
    ended.append(time.perf_counter())


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measured(model: str, size: Size) -> Figures:
    """Return the median seconds of ROUNDS videos of a model, after one to warm up, and the peak memory."""
    device = local_device()
    frames, height, width = size.clip
    sampling = Sampling(frames, width, height, steps=50 if size is PUBLISHED else 3)
    make = {"ours": ours, "original": original}[model](size, sampling, device)
    make()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    rounds = [make() for _ in range(ROUNDS)]
    figures: Figures = {"model": model, **{name: statistics.median(one[name] for one in rounds) for name in rounds[0]}}
    figures["rounds"] = [one["seconds"] for one in rounds]
    if device.type == "cuda":
        figures["peak_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        figures["device"] = torch.cuda.get_device_name()
    return figures


def table(figures: list[Figures]) -> str:
    """Return the figures as a table in Markdown."""
    lines = ["| model | s a video | text | steps | decoding | peak memory |", "| --- | --- | --- | --- | --- | --- |"]
    for each in figures:
        if "failure" in each:
            lines.append(f"| {each['model']} | {each['failure']} | | | | |")
            continue
        memory = f"{each['peak_memory_gb']:.1f} GB" if "peak_memory_gb" in each else ""
        parts = " | ".join(f"{each[name]:.3f}" for name in ("seconds", "text", "steps", "decoding"))
        lines.append(f"| {each['model']} | {parts} | {memory} |")
    if ratio := ratio_of(figures):
        lines += ["", f"ours takes {ratio:.3f} times the original's time"]
    return "\n".join(lines)


def ratio_of(figures: list[Figures]) -> float | None:
    """Return our time for a video divided by the original's, or None if one of them failed."""
    seconds = {each["model"]: each["seconds"] for each in figures if "seconds" in each}
    return seconds["ours"] / seconds["original"] if len(seconds) == 2 else None


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Where the figures go, as JSON.")
@click.option("--toy", is_flag=True, help="Small models, which a CPU can do: whether it runs, not how fast.")
def main(out: Path, toy: bool) -> None:
    figures = [figures_of("benchmarks.gpu.videos", {"model": model}, toy) for model in ("ours", "original")]
    out.write_text(json.dumps({"videos": figures, "ratio": ratio_of(figures)}, indent=2) + "\n", encoding="utf-8")
    click.echo(table(figures))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith("{"):
        print(json.dumps(measured(json.loads(sys.argv[1])["model"], TOY if "--toy" in sys.argv[2:] else PUBLISHED)))
    else:
        main()
