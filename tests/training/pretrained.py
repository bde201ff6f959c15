"""The two published checkpoints, with random weights and toy sizes, in folders laid out as those are."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXVideoTransformer3DModel
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

from nextscene.training.model.pretrained import PretrainedModels
from tests.training.models import ltx_config, qwen_config, vae_config

CHAT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_originals(folder: Path) -> PretrainedModels:
    torch.manual_seed(0)
    scheduler().save_pretrained(folder / "ltx" / "scheduler")
    LTXVideoTransformer3DModel(**ltx_config()).save_pretrained(folder / "ltx" / "transformer")
    vae().save_pretrained(folder / "ltx" / "vae")
    language().save_pretrained(folder / "qwen")
    tokenizer().save_pretrained(folder / "qwen")
    return PretrainedModels(folder / "qwen", folder / "ltx")


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """As LTX-Video 0.9.0 has it."""
    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        shift_terminal=0.1,
    )


def vae() -> AutoencoderKLLTXVideo:
    """With a mean and a deviation for each channel, which random weights do not bring along. It folds 4 frames."""
    made = AutoencoderKLLTXVideo(**vae_config())
    made.latents_mean.copy_(torch.linspace(-0.5, 0.5, 8))
    made.latents_std.copy_(torch.linspace(0.5, 1.5, 8))
    return made.eval()


def language() -> Qwen2_5_VLTextModel:
    return Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(**qwen_config())).eval()


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for each byte, and Qwen's special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(BPE({letter: place for place, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    made.chat_template = CHAT
    return made
