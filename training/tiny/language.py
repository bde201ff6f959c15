"""A toy Qwen2.5-VL in the layout of the published one, with random weights or trained, and tokenizers of a dataset.

Tested in tests/training/tiny/test_make.py.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

Training = Callable[[Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer], None]
"""A training of the whole model in place, given its tokenizer."""

_WORDS = 600
_HIDDEN = 128
_CHAT = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_qwen(folder: Path, texts: Sequence[str], train: Training | None = None) -> None:
    """Write weights and tokenizer, which `Qwen2_5_VLTextModel.from_pretrained` and AutoTokenizer can open.

    The weights are random, or what `train` makes of them.
    """
    tokenizer = Qwen2Tokenizer().train_new_from_iterator(
        texts, vocab_size=_WORDS, new_special_tokens=["<|im_start|>", "<|im_end|>"], show_progress=False
    )
    tokenizer.chat_template = _CHAT
    tokenizer.save_pretrained(folder)
    settings: dict[str, Any] = {
        "hidden_size": _HIDDEN,
        "intermediate_size": 2 * _HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "vocab_size": len(tokenizer),
        # Large enough for the states at the queries to depend clearly on the text, without training.
        "initializer_range": 0.125,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    rope = {"rope_theta": 1e6, "mrope_section": [4, 6, 6]}
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": _HIDDEN}
    whole = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config=settings | {"rope_parameters": {"rope_type": "default", **rope}}, vision_config=vision
        )
    )
    torch.nn.init.normal_(whole.model.language_model.embed_tokens.weight, std=0.02)
    if train:
        train(whole, tokenizer)
    weights = {_published(name): value.detach().to(torch.bfloat16) for name, value in whole.state_dict().items()}
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors")
    config = settings | {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vision_config": {"model_type": "qwen2_5_vl", **vision},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _published(name: str) -> str:
    """Return the name of a parameter in the published files, which are older than the class in transformers."""
    return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")


def text_encoder(texts: Sequence[str], size: float) -> tuple[T5Tokenizer, T5EncoderModel]:
    """Return a tokenizer and a text encoder of LTX-Video's kind (T5), with random weights.

    `size` is the root mean square of its output.
    """
    tokenizer = T5Tokenizer(vocab=_unigrams(texts), extra_ids=0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=64,
        d_kv=16,
        num_heads=4,
        d_ff=128,
        num_layers=2,
        use_cache=False,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        tie_word_embeddings=False,
    )
    encoder = T5EncoderModel(config).eval().requires_grad_(requires_grad=False)
    torch.nn.init.constant_(encoder.encoder.final_layer_norm.weight, size)
    return tokenizer, encoder


def _unigrams(texts: Sequence[str]) -> list[tuple[str, float]]:
    """Return the pieces of a tokenizer and their log-probabilities: the most frequent words, and all letters.

    They are counted here, because the trainer of `tokenizers` returns a different vocabulary each time.
    """
    counts = Counter(word for text in texts for word in re.findall(r"\w+", text))
    words = sorted(counts, key=lambda word: (-counts[word], word))[: 2 * _WORDS]
    letters = sorted(set("".join(texts)) - {" "} | {"▁"})
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    rare = -math.log(counts.total()) - 1
    return [
        *special,
        *((letter, rare) for letter in letters),
        *(("▁" + word, math.log(counts[word] / counts.total())) for word in words),
    ]
