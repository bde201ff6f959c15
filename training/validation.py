"""Validation: the loss on a fixed set of clips with fixed noise, and sample videos for these clips.

Tested in tests/training/test_trainer.py.
"""

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
from nextscene.shards.loading.sample_set import SampleText, decode_sample
from nextscene.shards.loading.shuffle import SampleRef, splitmix64
from nextscene.training.data.batches import BatchEncoder
from nextscene.training.data.sample_noise import sample_noise
from nextscene.training.distributed.process_group import World
from nextscene.training.flow.objective import loss_per_sample, noised
from nextscene.training.flow.sampler import guided, integrate
from nextscene.training.flow.schedule import mu, sampling_sigmas
from nextscene.training.model.grid import Grid
from nextscene.training.model.latents import Latents, LatentScale, decode, pack, unpack
from nextscene.training.model.unified import UnifiedModel, coordinates
from nextscene.training.summary import TextAblation

_LEVELS = 4
_LOW_SIGMA = 0.1
_SEED = 0x5EED
_FRAMES_SHOWN = 5


class ValidationLoss(NamedTuple):
    """The mean losses over the clips of a validator: of the model, and of predicting a velocity of zero.

    `low_sigma` is that of the model at σ = 0.1, the level of the last sampling step, which the density of training
    hardly reaches.
    """

    model: float
    zero: float
    low_sigma: float


@dataclass(frozen=True)
class _ValidationClip:
    """A clip of this rank. A `weight` of 0 marks padding, which gives all ranks the same number of clips."""

    number: int
    sample: SampleText
    text: str
    latents: Latents
    weight: float
    other_text: str = ""

    @staticmethod
    def read(clips: Mixture, number: int, encoder: BatchEncoder, weight: float) -> _ValidationClip:
        array, sample = decode_sample(clips, number)
        text = encoder.select_text(sample.source, sample.text, sample.caption)
        return _ValidationClip(number, sample, text, encoder.latents(torch.from_numpy(array[None])), weight)


class Validator:
    """A validator on up to `max_clips` clips of a mixture, the same for any number of ranks, which share the clips."""

    def __init__(
        self,
        clips: Mixture,
        max_clips: int,
        encoder: BatchEncoder,
        scheduler: FlowMatchEulerDiscreteScheduler,
        world: World,
    ) -> None:
        everything = np.arange(len(clips))
        order = np.argsort(splitmix64(everything, _SEED), kind="stable")
        chosen = [int(number) for number in everything[order][:max_clips]]
        places = range(world.rank, -(-len(chosen) // world.size) * world.size, world.size)
        mine = [
            _ValidationClip.read(clips, chosen[place % len(chosen)], encoder, float(place < len(chosen)))
            for place in places
        ]
        texts = _all_gather({place: clip.text for place, clip in zip(places, mine, strict=True)}, world)
        self.count = len(chosen)
        self._encoder, self._scheduler, self._world = encoder, scheduler, world
        self._clips = [
            replace(clip, other_text=texts[(place + 1) % len(chosen)]) for place, clip in zip(places, mine, strict=True)
        ]

    @torch.no_grad()
    def loss(self, model: UnifiedModel) -> ValidationLoss:
        """Return the validation loss. All ranks call this alike."""
        sums = torch.zeros(4, dtype=torch.float64)
        for clip in self._clips:
            sums += clip.weight * torch.tensor([1.0, *self._losses(model, clip, clip.text)], dtype=torch.float64)
        clips, *totals = self._world.all_reduce_sum(sums).tolist()
        return ValidationLoss(*(total / clips for total in totals))

    @torch.no_grad()
    def text_ablation(self, model: UnifiedModel) -> TextAblation:
        """Compare the loss under each clip's own text with that under another's. All ranks call this alike."""
        sums = torch.zeros(3, dtype=torch.float64)
        for clip in self._clips:
            gain = self._losses(model, clip, clip.other_text).model - self._losses(model, clip, clip.text).model
            sums += clip.weight * torch.tensor([1.0, gain, float(gain > 0)], dtype=torch.float64)
        clips, gain, lower = self._world.all_reduce_sum(sums).tolist()
        return TextAblation(int(clips), gain / clips, lower / clips)

    def _losses(self, model: UnifiedModel, clip: _ValidationClip, text: str) -> ValidationLoss:
        """Return the losses of a clip, over σ at the quantiles of the training density."""
        encoder = self._encoder
        grid = Grid(*clip.latents.mean.shape[2:])
        refs = [SampleRef(clip.number, level) for level in range(_LEVELS + 1)]
        random = sample_noise(_SEED, refs, clip.latents.mean.shape[1:])
        clean = encoder.normalized_tokens(clip.latents.sample(random.posterior.to(encoder.device)))
        noise = pack(random.noise.to(encoder.device))
        normal = [NormalDist().inv_cdf((level + 0.5) / _LEVELS) for level in range(_LEVELS)]
        sigma = torch.sigmoid(torch.tensor(normal) + mu(self._scheduler, grid.tokens))
        sigma = torch.cat([sigma, torch.tensor([_LOW_SIGMA])]).to(encoder.device)
        condition = model.condition(encoder.tokenize([text], [clip.sample.source])).expand(len(refs), -1, -1)
        coords = coordinates(grid, model.ratios, torch.full((len(refs),), clip.sample.fps, device=encoder.device))
        predicted = model.velocity(noised(clean, noise, sigma), sigma, condition, coords)
        losses = loss_per_sample(predicted, clean, noise)
        zero = loss_per_sample(torch.zeros_like(predicted), clean, noise)
        return ValidationLoss(*(part.mean().item() for part in (losses[:_LEVELS], zero[:_LEVELS], losses[_LEVELS:])))

    @torch.no_grad()
    def save_samples(self, model: UnifiedModel, folder: Path, max_clips: int, steps: int, guidance: float) -> None:
        """Write a picture for each of up to `max_clips` clips: its frames, with those of a sample video below.

        Write the clip's text next to it.
        """
        for clip in self._clips[: -(-min(max_clips, self.count) // self._world.size)]:
            sampled = self._sample_video(model, clip, steps, guidance)
            if clip.weight:
                folder.mkdir(parents=True, exist_ok=True)
                key = clip.sample.key
                _filmstrip(self._pixels(clip.latents.mean), sampled).save(folder / f"{key}.png")
                (folder / f"{key}.txt").write_text(f"{clip.text}\n", encoding="utf-8")

    def _sample_video(self, model: UnifiedModel, clip: _ValidationClip, steps: int, guidance: float) -> Tensor:
        encoder = self._encoder
        shape = clip.latents.mean.shape[1:]
        grid = Grid(*shape[1:])
        condition = model.condition(encoder.tokenize(["", clip.text], [clip.sample.source] * 2))
        coords = coordinates(grid, model.ratios, torch.full((2,), clip.sample.fps, device=encoder.device))
        noise = pack(sample_noise(_SEED, [SampleRef(clip.number, 0)], shape).noise.to(encoder.device))
        tokens = integrate(
            guided(lambda tokens, sigma: model.velocity(tokens, sigma, condition, coords), guidance),
            noise,
            sampling_sigmas(self._scheduler, steps, grid.tokens),
        )
        return self._pixels(LatentScale.of(encoder.vae).denormalize(unpack(tokens, grid)))

    def _pixels(self, latents: Tensor) -> Tensor:
        return decode(self._encoder.vae, latents)[0].cpu()


def _all_gather(mine: dict[int, str], world: World) -> dict[int, str]:
    """Return the entries of all ranks together."""
    parts: list[dict[int, str]] = [{} for _ in range(world.size)]
    dist.all_gather_object(parts, mine)
    return {place: text for part in parts for place, text in part.items()}


def _filmstrip(*videos: Tensor) -> Image.Image:
    """Return a picture with a row of evenly spaced frames for each video, uint8 [F, H, W, RGB]."""
    return Image.fromarray(np.concatenate([np.concatenate(list(_spread_frames(one)), axis=1) for one in videos]))


def _spread_frames(video: Tensor) -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    for place in np.linspace(0, len(video) - 1, min(_FRAMES_SHOWN, len(video))).round():
        yield video[int(place)].numpy()
