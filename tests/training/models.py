"""The models' configurations in tests: tiny ones that run on a CPU."""

from __future__ import annotations

from typing import Any


def ltx_config() -> dict[str, Any]:
    return {
        "in_channels": 8,
        "out_channels": 8,
        "num_attention_heads": 4,
        "attention_head_dim": 8,
        "cross_attention_dim": 32,
        "caption_channels": 32,
        "num_layers": 2,
    }


def vae_config() -> dict[str, Any]:
    """Folds 4 frames, and 4 pixels of a side, into one latent."""
    return {
        "latent_channels": 8,
        "block_out_channels": [8, 8, 8, 8],
        "decoder_block_out_channels": [8, 8, 8, 8],
        "layers_per_block": [1, 1, 1, 1, 1],
        "decoder_layers_per_block": [1, 1, 1, 1, 1],
        "spatio_temporal_scaling": [True, True, False, False],
        "decoder_spatio_temporal_scaling": [True, True, False, False],
        "patch_size": 1,
        "patch_size_t": 1,
        "encoder_causal": True,
        "decoder_causal": False,
    }


def qwen_config() -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 37,
        "initializer_range": 0.2,  # so large that what the text says can be seen in what the queries read
        "vocab_size": 300,
        "bos_token_id": None,
        "eos_token_id": None,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]},
        "tie_word_embeddings": False,
    }
