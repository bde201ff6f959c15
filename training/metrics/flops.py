"""The FLOPs that training a micro-batch takes by the shapes of the models, from which its MFU follows.

A multiply-add is 2 FLOPs. What counts is the matrix products and convolutions of the models, attention over all pairs
of tokens; not what activation checkpointing computes again, nor the products that a causal mask could save.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKLLTXVideo
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2_5_VLTextConfig

from nextscene.training.config import PolicyConfig

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Flops:
    """What a part of a model costs: `forward` alone, or with its backward pass.

    `frozen` adds the gradients that pass through it, `trained` those of its weights too.
    """

    forward: int
    frozen: int
    trained: int

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.forward + other.forward, self.frozen + other.frozen, self.trained + other.trained)

    def __mul__(self, times: int) -> Flops:
        return Flops(self.forward * times, self.frozen * times, self.trained * times)

    @property
    def unreached(self) -> Flops:
        """Of a part that no gradient passes through unless it is trained."""
        return replace(self, frozen=self.forward)


def _matmul(times: int, rows: int, columns: int, inner: int) -> Flops:
    """Of activations, [times, rows, inner] × [times, inner, columns]: both factors get a gradient."""
    forward = 2 * times * rows * columns * inner
    return Flops(forward, 3 * forward, 3 * forward)


def _linear(rows: int, inputs: int, outputs: int) -> Flops:
    forward = 2 * rows * inputs * outputs
    return Flops(forward, 2 * forward, 3 * forward)


def _first_linear(rows: int, inputs: int, outputs: int) -> Flops:
    """A linear layer whose inputs get no gradient."""
    forward = 2 * rows * inputs * outputs
    return Flops(forward, forward, 2 * forward)


def transformer_flops(config: Config, tokens: int, text_tokens: int, clips: int = 1) -> Flops:
    """Of LTX's transformer, with one timestep a clip.

    Gradient enters a frozen one by the text: it reaches what follows the first block's attention to the text.
    """
    width: int = config["num_attention_heads"] * config["attention_head_dim"]
    layers: int = config["num_layers"]
    rows, text_rows = clips * tokens, clips * text_tokens
    to_itself = _linear(rows, width, width) * 4 + _matmul(clips, tokens, tokens, width) * 2
    query = _linear(rows, width, width)
    scores = _matmul(clips, tokens, text_tokens, width)
    rest_of_block = (
        _linear(text_rows, config["cross_attention_dim"], width) * 2
        + _matmul(clips, tokens, text_tokens, width)
        + _linear(rows, width, width)
        + _linear(rows, width, 4 * width)
        + _linear(rows, 4 * width, width)
    )
    first_scores = replace(scores, frozen=2 * scores.forward)  # its queries have none, the keys have
    first_block = (to_itself + query).unreached + first_scores + rest_of_block
    other_blocks = (to_itself + query + scores + rest_of_block) * (layers - 1)
    text = _linear(text_rows, config["caption_channels"], width) + _linear(text_rows, width, width)
    drawn = _first_linear(rows, config["in_channels"], width) + _timestep(width, clips).unreached
    return drawn + text + first_block + other_blocks + _linear(rows, width, config["out_channels"])


def _timestep(width: int, clips: int) -> Flops:
    """The sinusoids of a timestep become the six modulations of a block."""
    return _first_linear(clips, 256, width) + _linear(clips, width, width) + _linear(clips, width, 6 * width)


def language_flops(config: Qwen2_5_VLTextConfig, new_tokens: int, past: int = 0, clips: int = 1) -> Flops:
    """Of Qwen2.5-VL's language model, without a head, on new tokens that attend to themselves and to those before.

    Gradient is wanted for all new tokens, and none for the embeddings of words.
    """
    hidden, heads = config.hidden_size, config.num_attention_heads
    of_keys = hidden // heads * (config.num_key_value_heads or heads)
    rows = clips * new_tokens
    block = (
        _linear(rows, hidden, hidden) * 2
        + _linear(rows, hidden, of_keys) * 2
        + _matmul(clips, new_tokens, past + new_tokens, hidden) * 2
        + _linear(rows, hidden, config.intermediate_size) * 3
    )
    layers: int = config.num_hidden_layers
    return block * layers


def connector_flops(hidden: int, width: int, outputs: int, queries: int, clips: int = 1) -> Flops:
    """Of its two linear layers."""
    return _linear(clips * queries, hidden, width) + _linear(clips * queries, width, outputs)


class VaeFlops(NamedTuple):
    """Of one clip, there and back."""

    encode: int
    decode: int


def vae_flops(config: Config, frames: int, height: int, width: int) -> VaeFlops:
    """Of LTX's autoencoder, counted as it runs without memory. Frames and sides are those of the pixels."""
    return _vae_flops(json.dumps(dict(config), sort_keys=True), frames, height, width)


@cache
def _vae_flops(config: str, frames: int, height: int, width: int) -> VaeFlops:
    with torch.device("meta"), torch.no_grad():
        vae = AutoencoderKLLTXVideo.from_config(json.loads(config))
        with FlopCounterMode(display=False) as encoding:
            latents = vae.encode(torch.empty(1, vae.config.in_channels, frames, height, width)).latent_dist.mean
        with FlopCounterMode(display=False) as decoding:
            vae.decode(latents, None)
    return VaeFlops(encoding.get_total_flops(), decoding.get_total_flops())


@dataclass(frozen=True)
class StepFlops:
    """The FLOPs of a part of a step, by model."""

    transformer: int
    language: int
    connector: int
    vae: int

    def __add__(self, other: StepFlops) -> StepFlops:
        return StepFlops(*(mine + its for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def total(self) -> int:
        return self.transformer + self.language + self.connector + self.vae


@dataclass(frozen=True)
class ModelSizes:
    """The models, and what goes through them: clips of `tokens` latents, each with a text padded to `prefix` tokens."""

    transformer: Config
    language: Qwen2_5_VLTextConfig
    tokens: int
    prefix: int
    queries: int
    connector_width: int

    def denoising(self, clips: int) -> Flops:
        return transformer_flops(self.transformer, self.tokens, self.queries, clips)

    def encoding_text(self, texts: int) -> Flops:
        return language_flops(self.language, self.prefix, clips=texts)

    def encoding_queries(self, texts: int) -> Flops:
        return language_flops(self.language, self.queries, past=self.prefix, clips=texts)

    def connecting(self, texts: int) -> Flops:
        out: int = self.transformer["caption_channels"]
        return connector_flops(self.language.hidden_size, self.connector_width, out, self.queries, texts)


def flow_matching_flops(sizes: ModelSizes, clips: int, transformer_trained: bool, encode: int = 0) -> StepFlops:
    """Of a micro-batch of flow matching.

    The language model is frozen: it reads the text without gradient, then the queries, which are trained as the
    connector is. `encode` is what it takes to encode a clip, 0 where its latents are stored.
    """
    drawing = sizes.denoising(clips)
    return StepFlops(
        transformer=drawing.trained if transformer_trained else drawing.frozen,
        language=sizes.encoding_text(clips).forward + sizes.encoding_queries(clips).frozen,
        connector=sizes.connecting(clips).trained,
        vae=clips * encode,
    )


def grpo_flops(
    sizes: ModelSizes, policy: PolicyConfig, learnt_steps: int, transformer_trained: bool, decode: int
) -> StepFlops:
    """Of one group of the stage `rl`: its candidates made, and of those that are kept so many steps learnt from.

    Each step of each is guided, so it goes through the transformer twice; the condition is made once for all of the
    sampling and once for all of the learning. `decode` is what it takes to decode a candidate.
    """
    one = sizes.denoising(clips=1)
    learnt = one.trained if transformer_trained else one.frozen
    without = one.forward if policy.detach_unconditional else learnt
    texts, learns = 2, learnt_steps > 0
    return StepFlops(
        transformer=policy.group_size * policy.steps * 2 * one.forward
        + policy.best_of * learnt_steps * (learnt + without),
        language=(1 + learns) * sizes.encoding_text(texts).forward
        + sizes.encoding_queries(texts).forward
        + learns * sizes.encoding_queries(texts).frozen,
        connector=sizes.connecting(texts).forward + learns * sizes.connecting(texts).trained,
        vae=policy.group_size * decode,
    )


def peak_flops(device_name: str, dtype: torch.dtype) -> float | None:
    """FLOPs a second of dense bfloat16 products by NVIDIA's data sheets: A100; H100 and H200 as SXM. None of others."""
    if dtype is torch.bfloat16:
        for name, peak in _PEAKS.items():
            if re.search(name, device_name):
                return peak
    return None


_PEAKS = {r"\bA100\b(?!.*MIG)": 312e12, r"\bH[12]00\b(?!.*(PCIe|NVL|MIG))": 989e12}
