"""From batches of shards to what a step of training takes: words, latents, noise."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from nextscene.shards.loading.loader import Batch, Loader
from nextscene.shards.loading.shuffle import SampleRef
from nextscene.training.data.sample_noise import sample_noise
from nextscene.training.flow.schedule import mu, training_sigma
from nextscene.training.model.model_folders import architecture_config
from nextscene.training.model.grid import Grid, Ratios
from nextscene.training.model.language import TokenBatch
from nextscene.training.model.latents import Latents, LatentScale, encode, pack
from nextscene.training.model.prompter import Prompter
from nextscene.training.recipe import MixConfig, ObjectiveConfig

_ENCODED_FRAMES = 65  # at once: a clip of the paper's, or as many images


class TrainingBatch(NamedTuple):
    """A micro-batch of B samples of S tokens each. `encoded` is how many clips went through the VAE for it.

    `texts` are what the samples are conditioned on; of some the `words` have been left out.
    """

    words: TokenBatch
    texts: list[str]
    sources: list[int]
    draws: list[SampleRef]
    clean: Tensor
    noise: Tensor
    sigma: Tensor
    fps: Tensor
    grid: Grid
    keys: list[str]
    encoded: int


@dataclass(frozen=True)
class BatchEncoder:
    """Makes latents and words, on `device`, of what shards hold."""

    vae: AutoencoderKLLTXVideo
    prompter: Prompter
    mix: tuple[MixConfig, ...]
    device: torch.device

    def latents(self, video: Tensor) -> Latents:
        """The posterior of uint8 clips, or that which a set of latents holds: [B, C + 1, F', H', W']."""
        if video.dtype == torch.uint8:
            pieces = [
                encode(self.vae, piece) for piece in torch.split(video, max(1, _ENCODED_FRAMES // video.shape[1]))
            ]
            return Latents(*map(torch.cat, zip(*pieces, strict=True)))
        stored = video.to(self.device, torch.float32)
        return Latents(stored[:, :-1], stored[:, -1:])

    def normalized_tokens(self, latents: Tensor) -> Tensor:
        """Tokens [B, S, C] of latents [B, C, F', H', W']."""
        return pack(LatentScale.of(self.vae).normalize(latents))

    def text(self, source: int, scene: str, caption: str) -> str:
        """What a sample of that set of the mix is conditioned on."""
        return scene if self.mix[source].text == "scene" else caption

    def tokenize(self, texts: Sequence[str], sources: Sequence[int]) -> TokenBatch:
        return self.prompter.tokenize(texts, [self.mix[source].prompt for source in sources]).to(self.device)


class BatchPreparer:
    """An endless iterator over this rank's micro-batches. `waited` adds up the seconds spent waiting for one."""

    def __init__(
        self,
        loader: Loader,
        encoder: BatchEncoder,
        objective: ObjectiveConfig,
        scheduler: FlowMatchEulerDiscreteScheduler,
        seed: int,
    ) -> None:
        self._loader, self._encoder, self._objective = loader, encoder, objective
        self._scheduler, self._seed = scheduler, seed
        self.wait_seconds = 0.0

    @property
    def vae_config(self) -> dict[str, Any]:
        return architecture_config(self._encoder.vae.config)

    def __iter__(self) -> Iterator[TrainingBatch]:
        batches = iter(self._loader)
        while True:
            begun = time.perf_counter()
            batch = next(batches)
            self.wait_seconds += time.perf_counter() - begun
            yield self._prepare(batch)

    def _prepare(self, batch: Batch) -> TrainingBatch:
        encoder = self._encoder
        posterior = encoder.latents(batch.video)
        random = sample_noise(self._seed, batch.refs, posterior.mean.shape[1:])
        texts = [encoder.text(*told) for told in zip(batch.source, batch.text, batch.caption, strict=True)]
        dropped = (random.drop < self._objective.dropout).tolist()
        given = ["" if drop else text for drop, text in zip(dropped, texts, strict=True)]
        grid = Grid(*posterior.mean.shape[2:])
        shift = mu(self._scheduler, grid.tokens)
        sigma = training_sigma(self._objective.density, shift, random.normal, random.uniform)
        return TrainingBatch(
            encoder.tokenize(given, batch.source),
            texts,
            batch.source,
            batch.refs,
            encoder.normalized_tokens(posterior.sample(random.posterior.to(encoder.device))),
            pack(random.noise.to(encoder.device)),
            sigma.to(encoder.device),
            torch.tensor(batch.fps, device=encoder.device),
            grid,
            batch.keys,
            len(batch.keys) if batch.video.dtype == torch.uint8 else 0,
        )


def check_fits(shapes: Sequence[Sequence[int]], ratios: Ratios, name: str) -> None:
    """Before anything is trained: raises ValueError for a set `name` with a shape that the VAE does not take."""
    for frames, width, height in shapes:
        try:
            ratios.grid(frames, height, width)
        except ValueError as error:
            raise ValueError(f"the dataset {name!r} holds clips that the VAE does not take: {error}") from error
