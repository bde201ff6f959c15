"""A fixed set of clips, looked at again and again: their loss under noise that never changes, and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch import Tensor

from nextscene.shards.loading.mixture import Mixture
from nextscene.shards.loading.sample_set import SampleText
from nextscene.shards.loading.shuffle import SampleRef, splitmix64
from nextscene.training.data.batches import BatchEncoder
from nextscene.training.data.sample_noise import sample_noise
from nextscene.training.distributed.process_group import World
from nextscene.training.flow.objective import loss_per_sample, noised
from nextscene.training.flow.sampler import guided, integrate
from nextscene.training.flow.schedule import mu, sampling_sigmas
from nextscene.training.model.grid import Grid
from nextscene.training.model.latents import Latents, LatentScale, decode, pack, unpack
from nextscene.training.model.unified import UnifiedModel
from nextscene.training.summary import TextAblation

_LEVELS = 4
_SEED = 0x5EED
_FRAMES_SHOWN = 5


class ValidationLoss(NamedTuple):
    """Means over the clips of a panel: the model's loss, and that of predicting no velocity at all."""

    model: float
    zero: float


@dataclass(frozen=True)
class _ValidationClip:
    """One of this rank's. `weight` 0 marks one that only keeps this rank in step with the others."""

    number: int
    words: SampleText
    text: str
    latents: Latents
    weight: float
    other: str = ""

    @staticmethod
    def read(clips: Mixture, number: int, encoder: BatchEncoder, weight: float) -> _ValidationClip:
        memory = np.empty(*clips.array_spec(number))
        words = clips.decode_into(memory, number)
        text = encoder.text(words.source, words.text, words.caption)
        return _ValidationClip(number, words, text, encoder.latents(torch.from_numpy(memory[None])), weight)


class Validator:
    """Up to `most` clips of a mixture, the same on any number of ranks; each rank keeps the latents of its share."""

    def __init__(
        self, clips: Mixture, most: int, encoder: BatchEncoder, scheduler: FlowMatchEulerDiscreteScheduler, world: World
    ) -> None:
        everything = np.arange(len(clips))
        chosen = [int(number) for number in everything[np.argsort(splitmix64(everything, _SEED), kind="stable")][:most]]
        places = range(world.rank, -(-len(chosen) // world.size) * world.size, world.size)
        mine = [
            _ValidationClip.read(clips, chosen[place % len(chosen)], encoder, float(place < len(chosen)))
            for place in places
        ]
        texts = _gathered({place: clip.text for place, clip in zip(places, mine, strict=True)}, world)
        self.count = len(chosen)
        self._encoder, self._scheduler, self._world = encoder, scheduler, world
        self._clips = [
            replace(clip, other=texts[(place + 1) % len(chosen)]) for place, clip in zip(places, mine, strict=True)
        ]

    @torch.no_grad()
    def loss(self, model: UnifiedModel) -> ValidationLoss:
        sums = torch.zeros(3, dtype=torch.float64)
        for clip in self._clips:
            own, zero = self._losses(model, clip, clip.text)
            sums += clip.weight * torch.tensor([1.0, own, zero], dtype=torch.float64)
        clips, own, zero = self._world.all_reduce_sum(sums).tolist()
        return ValidationLoss(own / clips, zero / clips)

    @torch.no_grad()
    def text_ablation(self, model: UnifiedModel) -> TextAblation:
        sums = torch.zeros(3, dtype=torch.float64)
        for clip in self._clips:
            gain = self._losses(model, clip, clip.other)[0] - self._losses(model, clip, clip.text)[0]
            sums += clip.weight * torch.tensor([1.0, gain, float(gain > 0)], dtype=torch.float64)
        clips, gain, lower = self._world.all_reduce_sum(sums).tolist()
        return TextAblation(int(clips), gain / clips, lower / clips)

    def _losses(self, model: UnifiedModel, clip: _ValidationClip, text: str) -> tuple[float, float]:
        """The model's loss and that of predicting zero, over σ at the quantiles of training's density."""
        encoder = self._encoder
        grid = Grid(*clip.latents.mean.shape[2:])
        draws = [SampleRef(clip.number, level) for level in range(_LEVELS)]
        random = sample_noise(_SEED, draws, clip.latents.mean.shape[1:])
        clean = encoder.normalized_tokens(clip.latents.sample(random.posterior.to(encoder.device)))
        noise = pack(random.noise.to(encoder.device))
        normal = [NormalDist().inv_cdf((level + 0.5) / _LEVELS) for level in range(_LEVELS)]
        sigma = torch.sigmoid(torch.tensor(normal) + mu(self._scheduler, grid.tokens)).to(encoder.device)
        condition = model.condition(encoder.tokenize([text], [clip.words.source])).expand(_LEVELS, -1, -1)
        fps = torch.full((_LEVELS,), clip.words.fps, device=encoder.device)
        predicted = model.velocity(noised(clean, noise, sigma), sigma, condition, grid, fps)
        losses = loss_per_sample(predicted, clean, noise)
        return losses.mean().item(), loss_per_sample(torch.zeros_like(predicted), clean, noise).mean().item()

    @torch.no_grad()
    def save_samples(self, model: UnifiedModel, folder: Path, most: int, steps: int, guidance: float) -> None:
        """A picture for each of up to `most` clips: some of its frames, and below what the model makes of its text."""
        for clip in self._clips[: -(-min(most, self.count) // self._world.size)]:
            made = self._drawn(model, clip, steps, guidance)
            if clip.weight:
                folder.mkdir(parents=True, exist_ok=True)
                _strip(self._pixels(clip.latents.mean), made).save(folder / f"{clip.words.key}.png")
                (folder / f"{clip.words.key}.txt").write_text(f"{clip.text}\n", encoding="utf-8")

    def _drawn(self, model: UnifiedModel, clip: _ValidationClip, steps: int, guidance: float) -> Tensor:
        encoder = self._encoder
        grid = Grid(*clip.latents.mean.shape[2:])
        condition = model.condition(encoder.tokenize(["", clip.text], [clip.words.source] * 2))
        fps = torch.full((2,), clip.words.fps, device=encoder.device)
        noise = pack(
            sample_noise(_SEED, [SampleRef(clip.number, 0)], clip.latents.mean.shape[1:]).noise.to(encoder.device)
        )
        tokens = integrate(
            guided(lambda tokens, sigma: model.velocity(tokens, sigma, condition, grid, fps), guidance),
            noise,
            sampling_sigmas(self._scheduler, steps, grid.tokens),
        )
        return self._pixels(LatentScale.of(encoder.vae).denormalize(unpack(tokens, grid)))

    def _pixels(self, latents: Tensor) -> Tensor:
        return decode(self._encoder.vae, latents)[0].cpu()


def _gathered(mine: dict[int, str], world: World) -> dict[int, str]:
    boxes: list[dict[int, str]] = [{} for _ in range(world.size)]
    dist.all_gather_object(boxes, mine)
    return {place: text for box in boxes for place, text in box.items()}


def _strip(*videos: Tensor) -> Image.Image:
    """A row for each of uint8 videos [F, H, W, RGB], of frames that lie evenly over it."""
    return Image.fromarray(np.concatenate([np.concatenate(list(_some(video)), axis=1) for video in videos]))


def _some(video: Tensor) -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    for place in np.linspace(0, len(video) - 1, min(_FRAMES_SHOWN, len(video))).round():
        yield video[int(place)].numpy()
