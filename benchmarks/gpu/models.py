"""The published models with random weights, built directly on the device that they are measured on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from torch import nn
from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel, T5Config, T5EncoderModel

from nextscene.training.model.bridge import Bridge
from nextscene.training.model.grid import Ratios
from nextscene.training.model.language import TokenBatch
from nextscene.training.model.trainable import set_trainable
from nextscene.training.model.unified import UnifiedModel
from nextscene.training.recipe import Recipe

M = TypeVar("M", bound=nn.Module)

_SEED = 0


@dataclass(frozen=True)
class Size:
    """The configurations of the models, as their classes accept them, and the sizes of the inputs.

    `image` and `clip` are (frames, height, width). `text` is the number of tokens of a text before the `queries`.
    `most` is the number of tokens that text and queries are padded to, in the measurements with padding (paper, section
    13).
    """

    language: Mapping[str, Any]
    transformer: Mapping[str, Any]
    vae: Mapping[str, Any]
    text_encoder: Mapping[str, Any]
    queries: int
    text: int
    most: int
    image: tuple[int, int, int]
    clip: tuple[int, int, int]


PUBLISHED = Size(
    language={  # of Qwen2.5-VL-7B
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
        "max_position_embeddings": 128000,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": False,
    },
    transformer={  # of LTX-Video 0.9.0
        "in_channels": 128,
        "out_channels": 128,
        "num_attention_heads": 32,
        "attention_head_dim": 64,
        "cross_attention_dim": 2048,
        "caption_channels": 4096,
        "num_layers": 28,
    },
    vae={  # of LTX-Video 0.9.0, which compresses 8 frames, and 32 pixels of a side, into one latent
        "latent_channels": 128,
        "block_out_channels": [128, 256, 512, 512],
        "decoder_block_out_channels": [128, 256, 512, 512],
        "layers_per_block": [4, 3, 3, 3, 4],
        "decoder_layers_per_block": [4, 3, 3, 3, 4],
        "spatio_temporal_scaling": [True, True, True, False],
        "decoder_spatio_temporal_scaling": [True, True, True, False],
        "patch_size": 4,
        "patch_size_t": 1,
        "encoder_causal": True,
        "decoder_causal": False,
    },
    text_encoder={  # LTX-Video's own: that of T5 v1.1 XXL
        "vocab_size": 32128,
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "is_encoder_decoder": False,
        "use_cache": False,
    },
    queries=256,
    text=128,
    most=1024,
    image=(1, 512, 512),
    clip=(65, 480, 832),
)

TOY = Size(
    language={
        **PUBLISHED.language,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 37,
        "vocab_size": 300,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]},
        "bos_token_id": None,
        "eos_token_id": None,
    },
    transformer={
        **PUBLISHED.transformer,
        "in_channels": 8,
        "out_channels": 8,
        "num_attention_heads": 4,
        "attention_head_dim": 8,
        "cross_attention_dim": 32,
        "caption_channels": 32,
        "num_layers": 2,
    },
    vae={
        **PUBLISHED.vae,
        "latent_channels": 8,
        "block_out_channels": [8, 8, 8, 8],
        "decoder_block_out_channels": [8, 8, 8, 8],
        "layers_per_block": [1, 1, 1, 1, 1],
        "decoder_layers_per_block": [1, 1, 1, 1, 1],
    },
    text_encoder={
        **PUBLISHED.text_encoder,
        "vocab_size": 300,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 37,
        "num_layers": 2,
        "num_heads": 4,
    },
    queries=4,
    text=8,
    most=16,
    image=(1, 64, 64),
    clip=(9, 64, 96),
)
"""Small models of the same kinds, for a CPU."""


SCHEDULER = {  # of LTX-Video 0.9.0
    "use_dynamic_shifting": True,
    "base_shift": 0.95,
    "max_shift": 2.05,
    "base_image_seq_len": 1024,
    "max_image_seq_len": 4096,
    "shift_terminal": 0.1,
}


class AnyWords:
    """A stand-in for the prompter that returns random tokens: `size.text` for each text."""

    def __init__(self, size: Size) -> None:
        self._size = size

    def tokenize(self, texts: list[str], _forms: object) -> TokenBatch:
        ids = torch.randint(self._size.language["vocab_size"], (len(texts), self._size.text))
        return TokenBatch(ids, torch.ones_like(ids))


def language(size: Size, device: torch.device, dtype: torch.dtype) -> Qwen2_5_VLTextModel:
    """Return the language model without vision tower and head, as training uses it."""
    return _built(lambda: Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(**size.language)), device, dtype)


def transformer(size: Size, device: torch.device, dtype: torch.dtype) -> LTXVideoTransformer3DModel:
    return _built(lambda: LTXVideoTransformer3DModel(**size.transformer), device, dtype)


def vae(size: Size, device: torch.device, dtype: torch.dtype) -> AutoencoderKLLTXVideo:
    return _built(lambda: AutoencoderKLLTXVideo(**size.vae), device, dtype)


def text_encoder(size: Size, device: torch.device, dtype: torch.dtype) -> T5EncoderModel:
    """Return LTX-Video's own text encoder, which the language model and the bridge replace."""
    return _built(lambda: T5EncoderModel(T5Config(**size.text_encoder)), device, dtype)


def bridge(size: Size, device: torch.device) -> Bridge:
    """Return the bridge in float32, as it is always kept. Its queries have the size of untrained token embeddings."""
    width, out = size.language["hidden_size"], size.transformer["caption_channels"]
    made: Bridge = _built(lambda: Bridge(width, out, size.queries, width), device, torch.float32)
    with torch.no_grad():
        nn.init.normal_(made.queries.embeddings, std=0.02)
    return made


def ratios(size: Size) -> Ratios:
    """Return the compression ratios of the VAE of that size."""
    return Ratios.of(vae(size, torch.device("meta"), torch.float32))


def unified(size: Size, recipe: Recipe, device: torch.device) -> UnifiedModel:
    """Return the model of a stage as `training.build_stage` builds it.

    Trained parts are in float32, frozen parts in the precision of computation.
    """
    dtype = torch.bfloat16 if recipe.parallel.precision == "bf16" else torch.float32
    drawing = transformer(size, device, dtype)
    model = UnifiedModel(language(size, device, dtype), bridge(size, device), drawing, ratios(size), dtype)
    set_trainable(model, recipe.trainable)
    if any(parameter.requires_grad for parameter in drawing.parameters()):
        drawing.float()
    return model


def _built(build: Callable[[], M], device: torch.device, dtype: torch.dtype) -> M:
    """Build a frozen model with the initial weights of its class. Rotary frequencies stay in float32."""
    torch.manual_seed(_SEED)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = build()
    finally:
        torch.set_default_dtype(before)
    return model.eval().requires_grad_(requires_grad=False)
