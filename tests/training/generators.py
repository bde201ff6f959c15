"""Models to generate with, so small that a test can: an export, and the text encoder of the original LTX-Video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from nextscene.training.model.export import export
from nextscene.training.model.model_folders import architecture_config
from nextscene.training.model.pretrained import PretrainedModels, new_bridge
from tests.training.models import ltx_config

QUERIES = 6
DETERMINING = {"data.max_frames": 9, "data.width": 32, "data.height": 24, "model.max_tokens": 256}
"""What an export was trained at: 9 frames of 32×24 are 3×6×8 tokens of the tests' VAE."""


def make_export(folder: Path, pretrained: PretrainedModels, seed: int = 2, **about: Any) -> Path:
    """Of a bridge as after training: what it hands over is so large that the text decides."""
    language, transformer = pretrained.language(torch.float32), pretrained.transformer(torch.float32)
    bridge = new_bridge(language, transformer, QUERIES, 0, seed)
    torch.nn.init.constant_(bridge.connector.scale, 1.0)
    weights = {f"bridge.{name}": value.detach() for name, value in bridge.named_parameters()}
    told = {"recipe": "sft", "step": 7, "determining": DETERMINING, **about}
    export(folder, architecture_config(bridge.config), weights, pretrained, told)
    return folder


def save_text_encoder(ltx: Path) -> None:
    """With a token for each letter."""
    torch.manual_seed(5)
    pieces = [(piece, 0.0) for piece in ("<pad>", "</s>", "<unk>")]
    letters = [(letter, -3.0) for letter in "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ."]
    tokenizer = T5Tokenizer(vocab=pieces + letters, extra_ids=0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=ltx_config()["caption_channels"],
        d_kv=8,
        num_heads=4,
        d_ff=64,
        num_layers=2,
        use_cache=False,
        is_encoder_decoder=False,
        tie_word_embeddings=False,
    )
    tokenizer.save_pretrained(ltx / "tokenizer")
    T5EncoderModel(config).save_pretrained(ltx / "text_encoder")
