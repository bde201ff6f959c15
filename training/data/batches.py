"""Preparation of micro-batches: from samples of the shards to text tokens, latents and noise.

Tested in tests/training/test_trainer.py.
"""

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
from nextscene.training.config import MixConfig, ObjectiveConfig
from nextscene.training.data.sample_noise import sample_noise
from nextscene.training.flow.schedule import mu, training_sigma
from nextscene.training.machine_faults import memory_for
from nextscene.training.model.grid import Grid, Ratios
from nextscene.training.model.language import TokenBatch
from nextscene.training.model.latents import Latents, LatentScale, encode, pack
from nextscene.training.model.model_folders import architecture_config
from nextscene.training.model.prompter import Prompter

_ENCODE_BEFORE = "lower `data.max_frames`, or compute the latents before (nextscene encode)"
_ENCODED_FRAMES = 65  # frames encoded at once: a clip of the paper's length, or as many images


class TrainingBatch(NamedTuple):
    """A micro-batch of B samples with S latent tokens each.

    `texts` are the texts of the samples. `text_tokens` are the tokens that the model is given; a text that is dropped
    (dropout) is replaced by the empty text.
    `clean`, `noise` [B, S, C] and `sigma` [B] define the noisy latents. `fps` is [B]. `refs` name the samples, `keys`
    their clips. `vae_encoded` is the number of clips that went through the VAE.
    """

    text_tokens: TokenBatch
    texts: list[str]
    sources: list[int]
    refs: list[SampleRef]
    clean: Tensor
    noise: Tensor
    sigma: Tensor
    fps: Tensor
    grid: Grid
    keys: list[str]
    vae_encoded: int

    def describe(self, ratios: Ratios) -> str:
        """Return the micro-batch in words, with its shape."""
        return f"a micro-batch of {_shape(len(self.keys), *ratios.clip(self.grid))}, {self.grid.tokens:,} tokens each"


@dataclass(frozen=True)
class BatchEncoder:
    """An encoder of samples of the shards into latents and text tokens on `device`."""

    vae: AutoencoderKLLTXVideo
    prompter: Prompter
    mix: tuple[MixConfig, ...]
    device: torch.device

    def latents(self, video: Tensor) -> Latents:
        """Return the posterior of clips: encoded from uint8 pixels, or as stored, [B, C + 1, F', H', W']."""
        if video.dtype == torch.uint8:
            pieces = torch.split(video, max(1, _ENCODED_FRAMES // video.shape[1]))
            with memory_for(lambda: f"the autoencoder with {_shape(*pieces[0].shape[:4])}", _ENCODE_BEFORE):
                return Latents(*map(torch.cat, zip(*(encode(self.vae, piece) for piece in pieces), strict=True)))
        stored = video.to(self.device, torch.float32)
        return Latents(stored[:, :-1], stored[:, -1:])

    def normalized_tokens(self, latents: Tensor) -> Tensor:
        """Return normalized tokens [B, S, C] of latents [B, C, F', H', W']."""
        return pack(LatentScale.of(self.vae).normalize(latents))

    def select_text(self, source: int, scene: str, caption: str) -> str:
        """Return the text of a sample to train on: scene or caption, as the mix says for dataset number `source`."""
        return scene if self.mix[source].text == "scene" else caption

    def tokenize(self, texts: Sequence[str], sources: Sequence[int]) -> TokenBatch:
        """Return the tokens of texts, each in the prompt of its dataset in the mix."""
        return self.prompter.tokenize(texts, [self.mix[source].prompt for source in sources]).to(self.device)


class BatchPreparer:
    """An endless iterable of this rank's micro-batches. `wait_seconds` is the total time spent waiting for data."""

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
        """The architecture of the VAE."""
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
        texts = [encoder.select_text(*one) for one in zip(batch.source, batch.text, batch.caption, strict=True)]
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


def _shape(samples: int, frames: int, height: int, width: int) -> str:
    return f"{samples} × {frames} frames of {width}×{height}"


def check_fits(shapes: Sequence[Sequence[int]], ratios: Ratios, name: str) -> None:
    """Raise ValueError if the dataset `name` has a shape [frames, width, height] that the VAE does not accept."""
    for frames, width, height in shapes:
        try:
            ratios.grid(frames, height, width)
        except ValueError as error:
            raise ValueError(f"the dataset {name!r} holds clips that the VAE does not take: {error}") from error
