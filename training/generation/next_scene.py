"""The trained model as a generator, opened from an export or from a checkpoint of a run.

Tested in tests/training/generation/test_generation.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from nextscene.training.checkpoint import load_weights
from nextscene.training.checkpoint_info import CheckpointInfo
from nextscene.training.config import ModelConfig, PromptForm
from nextscene.training.flow.sampler import guided, integrate
from nextscene.training.flow.schedule import sampling_sigmas
from nextscene.training.generation.base import Sampling
from nextscene.training.generation.shared import (
    decode_tokens,
    inference_dtype,
    latent_grid,
    reporting_out_of_memory,
    seeded_noise,
)
from nextscene.training.model.bridge import Bridge
from nextscene.training.model.export import open_export
from nextscene.training.model.grid import Ratios
from nextscene.training.model.model_folders import read_export_info
from nextscene.training.model.pretrained import PretrainedModels
from nextscene.training.model.prompter import Prompter
from nextscene.training.model.unified import UnifiedModel, coordinates


class NextScene:
    """A `Generator`. `form` is the prompt that texts are put into. Model and VAE are changed and moved in place."""

    def __init__(
        self,
        name: str,
        sampling: Sampling,
        form: PromptForm,
        model: UnifiedModel,
        vae: AutoencoderKLLTXVideo,
        scheduler: FlowMatchEulerDiscreteScheduler,
        prompter: Prompter,
        device: torch.device,
    ) -> None:
        """Raise UsageError for a length or a size that the VAE cannot produce."""
        self.name, self.sampling = name, sampling
        self._form: PromptForm = form
        self._grid = latent_grid(Ratios.of(vae), sampling)
        _lighten(model, vae)
        with reporting_out_of_memory(name):
            self._model, self._vae, self._prompter = model.to(device), vae.to(device), prompter
        self._sigmas = sampling_sigmas(scheduler, sampling.steps, self._grid.tokens).to(device)

    def videos(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Return videos as `Generator.videos`. Raise TrainingStopped if they do not fit into the GPU's memory."""
        with reporting_out_of_memory(f"{len(texts)} at once"):
            return decode_tokens(self._vae, self.latents(texts, seeds), self._grid)

    @torch.no_grad()
    def latents(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Return the normalized latents of videos, [B, S, C]. The texts are encoded once, before the first step."""
        sampling, device = self.sampling, self._vae.device
        condition = self._condition(texts)
        if guiding := sampling.guidance != 1:
            condition = torch.cat([self._unconditional.expand_as(condition), condition])
        coords = coordinates(self._grid, self._model.ratios, torch.full((len(condition),), sampling.fps, device=device))

        def velocity(tokens: Tensor, sigma: Tensor) -> Tensor:
            return self._model.velocity(tokens, sigma, condition, coords)

        begin = seeded_noise(seeds, self._model.transformer.config.in_channels, self._grid).to(device)
        return integrate(guided(velocity, sampling.guidance) if guiding else velocity, begin, self._sigmas)

    @cached_property
    def _unconditional(self) -> Tensor:
        """The unconditional condition of guidance, the same for all videos: [1, queries, caption channels]."""
        return self._condition([""])

    def _condition(self, texts: Sequence[str]) -> Tensor:
        words = self._prompter.tokenize(texts, [self._form] * len(texts))
        return self._model.condition(words.to(self._vae.device))


class _OnHost(nn.Module):
    """Qwen's token embeddings, kept on the CPU: they take 1.1 GB, and a text needs only a few rows."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self._table = (table.cpu(),)  # in a tuple, so that `to` does not move it with the model

    def forward(self, ids: Tensor) -> Tensor:
        rows: Tensor = self._table[0](ids.cpu())
        return rows.to(ids.device)


def from_export(folder: Path, name: str, sampling: Sampling, form: PromptForm, device: torch.device) -> NextScene:
    """Return the generator of RUN/export.

    Raise UsageError for a part that cannot be opened, and the errors of NextScene.
    """
    about, dtype = read_export_info(folder), inference_dtype(device)
    bridge, exported = open_export(folder)
    vae = exported.vae(dtype)
    model = UnifiedModel(exported.language(dtype), bridge, exported.transformer(dtype), Ratios.of(vae), dtype)
    prompter = _prompter(exported, bridge, about["determining"])
    return NextScene(name, sampling, form, model, vae, exported.scheduler(), prompter, device)


def from_checkpoint(
    folder: Path, pretrained: PretrainedModels, name: str, sampling: Sampling, form: PromptForm, device: torch.device
) -> NextScene:
    """Return the generator of RUN/<recipe>/checkpoints/step-N, with the averaged weights if there are any.

    Raise the errors of `from_export`.
    """
    about, dtype = CheckpointInfo.read(folder), inference_dtype(device)
    vae = pretrained.vae(dtype)
    bridge = Bridge(**about.bridge)
    model = UnifiedModel(
        pretrained.language(dtype), bridge, pretrained.transformer(torch.float32), Ratios.of(vae), dtype
    )
    load_weights(folder, about, dict(model.named_parameters()))
    model.transformer.type(dtype)
    prompter = _prompter(pretrained, bridge, about.determining)
    return NextScene(name, sampling, form, model, vae, pretrained.scheduler(), prompter, device)


def _lighten(model: UnifiedModel, vae: AutoencoderKLLTXVideo) -> None:
    """Keep token embeddings and the VAE's encoder out of the GPU's memory. The results do not change."""
    model.language.embed_tokens = _OnHost(model.language.embed_tokens)
    del vae.encoder


def _prompter(pretrained: PretrainedModels, bridge: Bridge, determining: Mapping[str, Any]) -> Prompter:
    """Return the prompter with the text length that the model was trained with."""
    most = determining.get("model.max_tokens", ModelConfig().max_tokens)
    return Prompter(pretrained.tokenizer(), most - bridge.config.num_queries)
