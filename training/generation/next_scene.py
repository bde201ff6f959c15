"""The model that is trained here, as a generator: opened from an export, or from a checkpoint of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from nextscene.training.checkpoint import load_result
from nextscene.training.checkpoint_info import CheckpointInfo
from nextscene.training.flow.sampler import guided, integrate
from nextscene.training.flow.schedule import sampling_sigmas
from nextscene.training.generation.base import Sampling
from nextscene.training.generation.shared import grid_of, noise, pixels, precision, within_memory
from nextscene.training.model.bridge import Bridge
from nextscene.training.model.export import open_export
from nextscene.training.model.grid import Ratios
from nextscene.training.model.model_folders import about_export
from nextscene.training.model.pretrained import PretrainedModels
from nextscene.training.model.prompter import Prompter
from nextscene.training.model.unified import UnifiedModel
from nextscene.training.recipe import Form, ModelConfig


class NextScene:
    """A `Generator`. `form` is the prompt that texts are put into. Model and VAE are taken over, and moved."""

    def __init__(
        self,
        name: str,
        sampling: Sampling,
        form: Form,
        model: UnifiedModel,
        vae: AutoencoderKLLTXVideo,
        scheduler: FlowMatchEulerDiscreteScheduler,
        prompter: Prompter,
        device: torch.device,
    ) -> None:
        """Raises TrainingUsageError for a length or a size that the VAE does not make."""
        self.name, self.sampling = name, sampling
        self._form: Form = form
        self._grid = grid_of(Ratios.of(vae), sampling)
        _lighten(model, vae)
        with within_memory(name):
            self._model, self._vae, self._prompter = model.to(device), vae.to(device), prompter
        self._sigmas = sampling_sigmas(scheduler, sampling.steps, self._grid.tokens).to(device)

    def videos(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        with within_memory(f"{len(texts)} at once"):
            return pixels(self._vae, self.latents(texts, seeds), self._grid)

    @torch.no_grad()
    def latents(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """[B, S, C], normalised. The texts are read once, before the first step."""
        sampling, device = self.sampling, self._vae.device
        condition = self._condition(texts)
        if guiding := sampling.guidance != 1:
            condition = torch.cat([self._unconditional.expand_as(condition), condition])
        fps = torch.full((len(condition),), sampling.fps, device=device)

        def velocity(tokens: Tensor, sigma: Tensor) -> Tensor:
            return self._model.velocity(tokens, sigma, condition, self._grid, fps)

        begin = noise(seeds, self._model.transformer.config.in_channels, self._grid).to(device)
        return integrate(guided(velocity, sampling.guidance) if guiding else velocity, begin, self._sigmas)

    @cached_property
    def _unconditional(self) -> Tensor:
        """[1, queries, caption channels]: what guidance goes away from, the same for all videos."""
        return self._condition([""])

    def _condition(self, texts: Sequence[str]) -> Tensor:
        words = self._prompter.words(texts, [self._form] * len(texts))
        return self._model.condition(words.to(self._vae.device))


class _OnHost(nn.Module):
    """The table of Qwen's tokens, on the CPU: a text needs a few rows of it, and it is 1.1 GB."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self._table = (table.cpu(),)  # hidden from what moves modules

    def forward(self, ids: Tensor) -> Tensor:
        rows: Tensor = self._table[0](ids.cpu())
        return rows.to(ids.device)


def from_export(folder: Path, name: str, sampling: Sampling, form: Form, device: torch.device) -> NextScene:
    """Of RUN/export. Raises TrainingUsageError for what cannot be opened, and as NextScene does."""
    about, dtype = about_export(folder), precision(device)
    bridge, exported = open_export(folder)
    vae = exported.vae(dtype)
    model = UnifiedModel(exported.language(dtype), bridge, exported.transformer(dtype), Ratios.of(vae), dtype)
    prompter = _prompter(exported, bridge, about["determining"])
    return NextScene(name, sampling, form, model, vae, exported.scheduler(), prompter, device)


def from_checkpoint(
    folder: Path, originals: PretrainedModels, name: str, sampling: Sampling, form: Form, device: torch.device
) -> NextScene:
    """Of RUN/<recipe>/checkpoints/step-N, with the averaged weights where there are any. Raises as `from_export`."""
    about, dtype = CheckpointInfo.read(folder), precision(device)
    vae = originals.vae(dtype)
    bridge = Bridge(**about.bridge)
    model = UnifiedModel(originals.language(dtype), bridge, originals.transformer(torch.float32), Ratios.of(vae), dtype)
    load_result(folder, about, dict(model.named_parameters()))
    model.transformer.type(dtype)
    prompter = _prompter(originals, bridge, about.determining)
    return NextScene(name, sampling, form, model, vae, originals.scheduler(), prompter, device)


def _lighten(model: UnifiedModel, vae: AutoencoderKLLTXVideo) -> None:
    """Leaves out of the GPU's memory what need not be there. Nothing comes out otherwise."""
    model.language.embed_tokens = _OnHost(model.language.embed_tokens)
    del vae.encoder


def _prompter(originals: PretrainedModels, bridge: Bridge, determining: Mapping[str, Any]) -> Prompter:
    """With the bound on the text that it was trained under."""
    most = determining.get("model.max_tokens", ModelConfig().max_tokens)
    return Prompter(originals.tokenizer(), most - bridge.config.num_queries)
