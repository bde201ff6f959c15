"""Validation: the loss on a fixed set of clips with fixed noise, and sample videos for these clips.

Tested in tests/training/test_trainer.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from nextscene.shards.loading.mixture import Mixture
from nextscene.shards.loading.sample_set import SampleText, decode_sample
from nextscene.shards.loading.shuffle import SampleRef, splitmix64
from nextscene.training.data.batches import BatchEncoder
from nextscene.training.data.sample_noise import sample_noise
from nextscene.training.distributed.process_group import World
from nextscene.training.flow.objective import loss_per_sample, noised
from nextscene.training.flow.schedule import mu
from nextscene.training.metrics.catalog import HELDOUT_SIGMAS
from nextscene.training.metrics.log_file import heldout_name
from nextscene.training.model.grid import Grid
from nextscene.training.model.latents import Latents, pack
from nextscene.training.model.unified import UnifiedModel, coordinates
from nextscene.training.sample_videos import VideoSampler, write_sample
from nextscene.training.summary import TextAblation

_LEVELS = 4
_SEED = 0x5EED


class ValidationLoss(NamedTuple):
    """The mean losses over the clips of a validator: of the model, and of predicting a velocity of zero.

    `by_sigma` are those of the model at each of HELDOUT_SIGMAS, which the density of training reaches unevenly.
    """

    model: float
    zero: float
    by_sigma: tuple[float, ...]

    @property
    def metrics(self) -> dict[str, float]:
        """The losses by the names that they are logged by."""
        levels = {heldout_name(sigma): loss for sigma, loss in zip(HELDOUT_SIGMAS, self.by_sigma, strict=True)}
        return {
            "heldout_loss": self.model,
            "heldout_loss_low_sigma": self.by_sigma[0],
            **levels,
            "zero_loss": self.zero,
        }


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
        sums = torch.zeros(3 + len(HELDOUT_SIGMAS), dtype=torch.float64)
        for clip in self._clips:
            loss, zero = self._losses(model, clip, clip.text, self._quantiles(clip), 0)
            levels, _ = self._losses(model, clip, clip.text, torch.tensor(HELDOUT_SIGMAS), _LEVELS)
            found = torch.cat([torch.stack([loss.mean(), zero.mean()]), levels]).double()
            sums += clip.weight * torch.cat([torch.ones(1, dtype=torch.float64), found])
        clips, *totals = self._world.all_reduce_sum(sums).tolist()
        model_loss, zero_loss, *by_sigma = (total / clips for total in totals)
        return ValidationLoss(model_loss, zero_loss, tuple(by_sigma))

    @torch.no_grad()
    def text_ablation(self, model: UnifiedModel) -> TextAblation:
        """Compare the loss under each clip's own text with that under another's. All ranks call this alike."""
        sums = torch.zeros(3, dtype=torch.float64)
        for clip in self._clips:
            sigmas = self._quantiles(clip)
            other, own = (
                self._losses(model, clip, text, sigmas, 0)[0].mean().item() for text in (clip.other_text, clip.text)
            )
            sums += clip.weight * torch.tensor([1.0, other - own, float(other > own)], dtype=torch.float64)
        clips, gain, lower = self._world.all_reduce_sum(sums).tolist()
        return TextAblation(int(clips), gain / clips, lower / clips)

    def _quantiles(self, clip: _ValidationClip) -> Tensor:
        """Return σ at the quantiles of the training density, which depends on the length of the sequence."""
        grid = Grid(*clip.latents.mean.shape[2:])
        normal = [NormalDist().inv_cdf((level + 0.5) / _LEVELS) for level in range(_LEVELS)]
        return torch.sigmoid(torch.tensor(normal) + mu(self._scheduler, grid.tokens))

    def _losses(
        self, model: UnifiedModel, clip: _ValidationClip, text: str, sigma: Tensor, first_noise: int
    ) -> tuple[Tensor, Tensor]:
        """Return the losses of a clip at each σ, of the model and of predicting zero, on the CPU.

        The noise is numbered from `first_noise`: each number is another noise.
        """
        encoder = self._encoder
        grid = Grid(*clip.latents.mean.shape[2:])
        refs = [SampleRef(clip.number, first_noise + level) for level in range(len(sigma))]
        random = sample_noise(_SEED, refs, clip.latents.mean.shape[1:])
        clean = encoder.normalized_tokens(clip.latents.sample(random.posterior.to(encoder.device)))
        noise, sigma = pack(random.noise.to(encoder.device)), sigma.to(encoder.device)
        condition = model.condition(encoder.tokenize([text], [clip.sample.source])).expand(len(refs), -1, -1)
        coords = coordinates(grid, model.ratios, torch.full((len(refs),), clip.sample.fps, device=encoder.device))
        predicted = model.velocity(noised(clean, noise, sigma), sigma, condition, coords)
        zero = loss_per_sample(torch.zeros_like(predicted), clean, noise)
        return loss_per_sample(predicted, clean, noise).cpu(), zero.cpu()

    def save_samples(self, model: UnifiedModel, folder: Path, max_clips: int, sampler: VideoSampler) -> None:
        """Write a sample video for each of up to `max_clips` clips, beside the clip. All ranks call this alike."""
        for clip in self._clips[: -(-min(max_clips, self.count) // self._world.size)]:
            shape, ref = clip.latents.mean.shape[1:], SampleRef(clip.number, 0)
            video = sampler.video(model, clip.text, clip.sample.source, shape, clip.sample.fps, ref)
            if clip.weight:
                truth = sampler.pixels(clip.latents.mean)
                write_sample(folder, clip.sample.key, clip.text, video, clip.sample.fps, truth)


def _all_gather(mine: dict[int, str], world: World) -> dict[int, str]:
    """Return the entries of all ranks together."""
    parts: list[dict[int, str]] = [{} for _ in range(world.size)]
    dist.all_gather_object(parts, mine)
    return {place: text for part in parts for place, text in part.items()}
