"""Sample videos of the model in training: for held-out clips, and for prompts of the user's own.

Tested in tests/training/test_sample_videos.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch import Tensor

from nextscene.common.mp4 import write_mp4
from nextscene.shards.loading.shuffle import SampleRef
from nextscene.training.data.batches import BatchEncoder
from nextscene.training.data.sample_noise import sample_noise
from nextscene.training.distributed.process_group import World
from nextscene.training.flow.sampler import guided, integrate
from nextscene.training.flow.schedule import sampling_sigmas
from nextscene.training.generation.base import Sampling
from nextscene.training.model.grid import Grid
from nextscene.training.model.latents import LatentScale, decode, pack, unpack
from nextscene.training.model.unified import UnifiedModel, coordinates
from nextscene.training.recipe import Recipe
from nextscene.training.sample_layout import FRAMES_SHOWN, TRUTH, prompt_key

_SEED = 0x5EED


@dataclass(frozen=True)
class VideoSampler:
    """A sampler of videos with the weights as they are now, from noise that is fixed for each number."""

    encoder: BatchEncoder
    scheduler: FlowMatchEulerDiscreteScheduler
    steps: int
    guidance: float

    @torch.no_grad()
    def video(
        self, model: UnifiedModel, text: str, source: int, shape: Sequence[int], fps: float, ref: SampleRef
    ) -> Tensor:
        """Return a video, uint8 [F, H, W, RGB], on the CPU. `shape` [C, F', H', W'] is that of its latents.

        `source` is the dataset of the mix whose prompt the text is put into.
        """
        encoder, grid = self.encoder, Grid(*shape[1:])
        condition = model.condition(encoder.tokenize(["", text], [source] * 2))
        coords = coordinates(grid, model.ratios, torch.full((2,), fps, device=encoder.device))
        noise = pack(sample_noise(_SEED, [ref], shape).noise.to(encoder.device))
        tokens = integrate(
            guided(lambda tokens, sigma: model.velocity(tokens, sigma, condition, coords), self.guidance),
            noise,
            sampling_sigmas(self.scheduler, self.steps, grid.tokens),
        )
        return self.pixels(LatentScale.of(encoder.vae).denormalize(unpack(tokens, grid)))

    @torch.no_grad()
    def pixels(self, latents: Tensor) -> Tensor:
        """Return the video of latents [1, C, F', H', W'], uint8 [F, H, W, RGB], on the CPU."""
        return decode(self.encoder.vae, latents)[0].cpu()


class PromptSamples:
    """Videos for prompts of the user's own, the same at each evaluation. The ranks share the prompts."""

    def __init__(self, prompts: Sequence[str], recipe: Recipe, sampler: VideoSampler, world: World) -> None:
        self._prompts, self._recipe, self._sampler, self._world = prompts, recipe, sampler, world

    def save(self, model: UnifiedModel, folder: Path) -> None:
        """Write a video for each prompt, of the length and size of the recipe. All ranks call this alike."""
        data, count, world = self._recipe.data, len(self._prompts), self._world
        grid = model.ratios.grid(data.max_frames, data.height, data.width)
        shape, fps = (model.transformer.config.in_channels, *grid), Sampling().fps
        for place in range(world.rank, -(-count // world.size) * world.size, world.size):
            number = place % count  # a rank without a prompt of its own makes one again, since all take part
            video = self._sampler.video(model, self._prompts[number], 0, shape, fps, SampleRef(number, 0))
            if place < count:
                write_sample(folder, prompt_key(number), self._prompts[number], video, fps)


def write_sample(folder: Path, key: str, text: str, video: Tensor, fps: float, truth: Tensor | None = None) -> None:
    """Write a video as `key`.mp4, frames of it as `key`.png, and the text as `key`.txt.

    Videos are uint8 [F, H, W, RGB]. With `truth`, the picture has a row of its frames above, and the folder `truth`
    beside `folder` gets its mp4, once. Raise OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [video] if truth is None else [truth, video]
    Image.fromarray(np.concatenate([np.concatenate(list(_spread_frames(one)), axis=1) for one in rows])).save(
        folder / f"{key}.png"
    )
    (folder / f"{key}.txt").write_text(f"{text}\n", encoding="utf-8")
    write_mp4(folder / f"{key}.mp4", video.numpy(), fps)
    if truth is not None and not (shared := folder.parent / TRUTH / f"{key}.mp4").exists():
        shared.parent.mkdir(exist_ok=True)
        write_mp4(shared, truth.numpy(), fps)


def _spread_frames(video: Tensor) -> Iterator[npt.NDArray[np.uint8]]:
    for place in np.linspace(0, len(video) - 1, min(FRAMES_SHOWN, len(video))).round():
        yield video[int(place)].numpy()
