"""The captioner `qwen`: the whole Qwen2.5-VL, loaded next to the trained model, describes a video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from nextscene.common.errors import UsageError
from nextscene.judge.config import ClaudeConfig
from nextscene.prompts import load
from nextscene.training.generation.shared import inference_dtype
from nextscene.training.model.pretrained import open_pretrained
from nextscene.training.rewards.frames import sampled_images

_MOST_TOKENS = 128
_PICTURE, _BEFORE, _AFTER = "<|image_pad|>", "<|vision_start|>", "<|vision_end|>"


class QwenCaptioner:
    """A captioner that is given the same pictures and prompt as Claude. It decodes greedily.

    It loads all weights of `qwen`, 16.6 GB in bfloat16 for the published model. Only the number and the height of the
    pictures are taken from `settings`.
    """

    def __init__(self, qwen: Path, settings: ClaudeConfig, device: torch.device) -> None:
        """Raise UsageError if the model cannot be opened, lacks weights, or does not accept pictures."""
        self._settings, self._device = settings, device
        self._tokenizer = open_pretrained(AutoTokenizer, qwen)
        sees = hasattr(open_pretrained(AutoConfig, qwen), "vision_config")
        if not sees or _PICTURE not in self._tokenizer.get_vocab():
            raise UsageError(f"{qwen} cannot be shown pictures; take Qwen2.5-VL whole, or `reward.captioner` claude")
        model, found = open_pretrained(
            Qwen2_5_VLForConditionalGeneration, qwen, dtype=inference_dtype(device), output_loading_info=True
        )
        if missing := sorted(found["missing_keys"]):
            raise UsageError(f"{qwen} lacks {len(missing)} weights of Qwen2.5-VL, {missing[0]} for one")
        self._model = model.to(device).eval()
        seen = model.config.vision_config
        # Its other settings are those of the published processor. This implementation does not need torchvision.
        self._processor = Qwen2VLImageProcessorPil(
            patch_size=seen.patch_size, temporal_patch_size=seen.temporal_patch_size, merge_size=seen.spatial_merge_size
        )
        self._how = GenerationConfig(
            max_new_tokens=_MOST_TOKENS,
            do_sample=False,
            repetition_penalty=1.0,
            eos_token_id=self._tokenizer.eos_token_id,
            pad_token_id=self._tokenizer.pad_token_id,
        )

    @torch.no_grad()
    def __call__(self, video: Tensor, fps: float) -> str:
        """Return a caption of a video, uint8 [F, H, W, RGB], in one line."""
        seconds, images = zip(
            *sampled_images(video, fps, self._settings.frames, self._settings.frame_height), strict=True
        )
        seen = self._processor(images=list(images), return_tensors="pt")
        counts = (seen["image_grid_thw"].prod(1) // self._processor.merge_size**2).tolist()
        ids = self._tokenizer(self._asked(seconds, counts), add_special_tokens=False, return_tensors="pt")["input_ids"]
        asked = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": (ids == self._tokenizer.convert_tokens_to_ids(_PICTURE)).int(),
            "pixel_values": seen["pixel_values"].to(self._model.dtype),
            "image_grid_thw": seen["image_grid_thw"],
        }
        given = self._model.generate(
            **{name: value.to(self._device) for name, value in asked.items()}, generation_config=self._how
        )
        said = self._tokenizer.decode(given[0, ids.shape[1] :], skip_special_tokens=True)
        return " ".join(said.split())

    def _asked(self, seconds: Sequence[float], counts: Sequence[int]) -> str:
        """Return the chat turn: each picture after its time, as `counts` tokens, and then the prompt."""
        shown = "".join(
            f"{at:.2f} s:{_BEFORE}{_PICTURE * count}{_AFTER}" for at, count in zip(seconds, counts, strict=True)
        )
        turns = [{"role": "user", "content": shown + load("caption").text}]
        text: str = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return text
