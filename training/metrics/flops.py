"""The FLOPs of a micro-batch of training, computed from the shapes of the models; MFU is computed from them.

A multiply-add is 2 FLOPs. Counted are the matrix products and convolutions of the models, with attention over all pairs
of tokens, even those that a causal mask could skip. Recomputation by activation checkpointing is not counted.
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
    """The FLOPs of a part of a model: `forward` alone, or with its backward pass.

    `frozen` is `forward` and the gradients of its inputs; `trained` adds the gradients of its weights.
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
        """The FLOPs if no gradient passes through the part while it is frozen."""
        return replace(self, frozen=self.forward)


def _matmul(times: int, rows: int, columns: int, inner: int) -> Flops:
    """Return the FLOPs of a product of activations, [times, rows, inner] × [times, inner, columns].

    Both factors get a gradient.
    """
    forward = 2 * times * rows * columns * inner
    return Flops(forward, 3 * forward, 3 * forward)


def _linear(rows: int, inputs: int, outputs: int) -> Flops:
    forward = 2 * rows * inputs * outputs
    return Flops(forward, 2 * forward, 3 * forward)


def _first_linear(rows: int, inputs: int, outputs: int) -> Flops:
    """Return the FLOPs of a linear layer whose inputs get no gradient."""
    forward = 2 * rows * inputs * outputs
    return Flops(forward, forward, 2 * forward)


def transformer_flops(config: Config, tokens: int, text_tokens: int, clips: int = 1) -> Flops:
    """Return the FLOPs of LTX's transformer, with one timestep for each clip.

    A gradient passes through a frozen transformer only to reach the text, so it stops at the first block's attention to
    the text.
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
    first_scores = replace(scores, frozen=2 * scores.forward)  # its queries get no gradient, its keys do
    first_block = (to_itself + query).unreached + first_scores + rest_of_block
    other_blocks = (to_itself + query + scores + rest_of_block) * (layers - 1)
    text = _linear(text_rows, config["caption_channels"], width) + _linear(text_rows, width, width)
    drawn = _first_linear(rows, config["in_channels"], width) + _timestep(width, clips).unreached
    return drawn + text + first_block + other_blocks + _linear(rows, width, config["out_channels"])


def _timestep(width: int, clips: int) -> Flops:
    """Return the FLOPs of the timestep embedding, from sinusoids to the six modulations of a block."""
    return _first_linear(clips, 256, width) + _linear(clips, width, width) + _linear(clips, width, 6 * width)


def language_flops(config: Qwen2_5_VLTextConfig, new_tokens: int, past: int = 0, clips: int = 1) -> Flops:
    """Return the FLOPs of Qwen2.5-VL's language model, without its head.

    It processes `new_tokens`, which attend to one another and to `past` earlier tokens. All new tokens get a gradient;
    the word embeddings get none.
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
    """Return the FLOPs of the connector's two linear layers."""
    return _linear(clips * queries, hidden, width) + _linear(clips * queries, width, outputs)


class VaeFlops(NamedTuple):
    """The FLOPs of encoding and of decoding one clip."""

    encode: int
    decode: int


def vae_flops(config: Config, frames: int, height: int, width: int) -> VaeFlops:
    """Return the FLOPs of LTX's autoencoder for a clip of `frames` frames of `width`×`height` pixels.

    They are counted in a run on the device `meta`, which takes no memory.
    """
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
        """The FLOPs of all models together."""
        return self.transformer + self.language + self.connector + self.vae


@dataclass(frozen=True)
class ModelSizes:
    """The configurations of the models and the sizes of their inputs.

    Each clip has `tokens` latent tokens, and a text padded to `prefix` tokens.
    """

    transformer: Config
    language: Qwen2_5_VLTextConfig
    tokens: int
    prefix: int
    queries: int
    connector_width: int

    def denoising(self, clips: int) -> Flops:
        """Return the FLOPs of one pass of the transformer."""
        return transformer_flops(self.transformer, self.tokens, self.queries, clips)

    def encoding_text(self, texts: int) -> Flops:
        """Return the FLOPs of the language model on the texts, before the queries."""
        return language_flops(self.language, self.prefix, clips=texts)

    def encoding_queries(self, texts: int) -> Flops:
        """Return the FLOPs of the language model on the queries, which attend to the texts too."""
        return language_flops(self.language, self.queries, past=self.prefix, clips=texts)

    def connecting(self, texts: int) -> Flops:
        """Return the FLOPs of the connector."""
        out: int = self.transformer["caption_channels"]
        return connector_flops(self.language.hidden_size, self.connector_width, out, self.queries, texts)


def flow_matching_flops(sizes: ModelSizes, clips: int, transformer_trained: bool, encode: int = 0) -> StepFlops:
    """Return the FLOPs of a micro-batch of flow matching.

    The language model is frozen. It reads the text without gradient, then the queries with gradient; queries and
    connector are trained. `encode` is the number of FLOPs of encoding a clip, 0 if its latents are stored.
    """
    drawing = sizes.denoising(clips)
    return StepFlops(
        transformer=drawing.trained if transformer_trained else drawing.frozen,
        language=sizes.encoding_text(clips).forward + sizes.encoding_queries(clips).frozen,
        connector=sizes.connecting(clips).trained,
        vae=clips * encode,
    )


def grpo_flops(
    sizes: ModelSizes, policy: PolicyConfig, learned_steps: int, transformer_trained: bool, decode: int
) -> StepFlops:
    """Return the FLOPs of one group of the stage `rl`: sampling its candidates, and learning from the selected ones.

    `learned_steps` is the number of steps to learn from in each selected candidate. With guidance each step is two
    passes of the transformer. The condition is computed once for sampling and once for learning. `decode` is the number
    of FLOPs of decoding a candidate.
    """
    one = sizes.denoising(clips=1)
    learned = one.trained if transformer_trained else one.frozen
    without = one.forward if policy.detach_unconditional else learned
    texts, learns = 2, learned_steps > 0
    return StepFlops(
        transformer=policy.group_size * policy.steps * 2 * one.forward
        + policy.best_of * learned_steps * (learned + without),
        language=(1 + learns) * sizes.encoding_text(texts).forward
        + sizes.encoding_queries(texts).forward
        + learns * sizes.encoding_queries(texts).frozen,
        connector=sizes.connecting(texts).forward + learns * sizes.connecting(texts).trained,
        vae=policy.group_size * decode,
    )


def peak_flops(device_name: str, dtype: torch.dtype) -> float | None:
    """Return the peak FLOPs per second of dense bfloat16 products, by NVIDIA's data sheets; None if unknown.

    Known are the A100, and the H100 and H200 as SXM.
    """
    if dtype is torch.bfloat16:
        for name, peak in _PEAKS.items():
            if re.search(name, device_name):
                return peak
    return None


_PEAKS = {r"\bA100\b(?!.*MIG)": 312e12, r"\bH[12]00\b(?!.*(PCIe|NVL|MIG))": 989e12}
