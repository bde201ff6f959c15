"""The captioner `qwen`: the whole Qwen2.5-VL describes videos. It shares its language model with the trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLTextModel,
    Qwen2VLImageProcessorPil,
)

from nextscene.common.errors import UsageError
from nextscene.prompts import load
from nextscene.training.generation.shared import inference_dtype
from nextscene.training.model.pretrained import open_pretrained
from nextscene.training.rewards.frames import Pictures

_MOST_TOKENS = 128
_PICTURE, _BEFORE, _AFTER = "<|image_pad|>", "<|vision_start|>", "<|vision_end|>"


class QwenCaptioner:
    """A captioner that is given the same pictures and prompt as Claude. It decodes greedily.

    Of the published model, 16.6 GB in bfloat16, it loads vision tower and head, 2.4 GB, if it can share the language
    model, and else all.
    """

    def __init__(self, qwen: Path, device: torch.device, language: Qwen2_5_VLTextModel | None = None) -> None:
        """Share the frozen `language`, if it holds whole weights of `qwen` in the precision of the captions.

        Raise UsageError if the model cannot be opened, lacks weights, or does not accept pictures.
        """
        self._device = device
        self._tokenizer = open_pretrained(AutoTokenizer, qwen)
        config = open_pretrained(AutoConfig, qwen)
        if not hasattr(config, "vision_config") or _PICTURE not in self._tokenizer.get_vocab():
            raise UsageError(f"{qwen} cannot be shown pictures; take Qwen2.5-VL whole, or `reward.captioner` claude")
        shared = language if language is not None and _can_share(language, config, inference_dtype(device)) else None
        kind = Qwen2_5_VLForConditionalGeneration if shared is None else _WithoutLanguage
        model, found = open_pretrained(kind, qwen, dtype=inference_dtype(device), output_loading_info=True)
        if missing := sorted(found["missing_keys"]):
            raise UsageError(f"{qwen} lacks {len(missing)} weights of Qwen2.5-VL, {missing[0]} for one")
        if shared is not None:
            model.model.language_model = shared
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
    def __call__(self, videos: Sequence[Pictures]) -> list[str]:
        """Return a caption of each video, in one line. They are described together."""
        seen = self._processor(images=[image for video in videos for _, image in video], return_tensors="pt")
        counts = iter((seen["image_grid_thw"].prod(1) // self._processor.merge_size**2).tolist())
        turns = [self._asked([(at, next(counts)) for at, _ in video]) for video in videos]
        given = self._tokenizer(turns, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
        ids = given["input_ids"]
        asked = {
            "input_ids": ids,
            "attention_mask": given["attention_mask"],
            "mm_token_type_ids": (ids == self._tokenizer.convert_tokens_to_ids(_PICTURE)).int(),
            "pixel_values": seen["pixel_values"].to(self._model.dtype),
            "image_grid_thw": seen["image_grid_thw"],
        }
        answers = self._model.generate(
            **{name: value.to(self._device) for name, value in asked.items()}, generation_config=self._how
        )
        said = self._tokenizer.batch_decode(answers[:, ids.shape[1] :], skip_special_tokens=True)
        return [" ".join(caption.split()) for caption in said]

    def _asked(self, pictures: Sequence[tuple[float, int]]) -> str:
        """Return the chat turn: each picture after its time, as so many tokens, and then the prompt."""
        shown = "".join(f"{at:.2f} s:{_BEFORE}{_PICTURE * count}{_AFTER}" for at, count in pictures)
        turns = [{"role": "user", "content": shown + load("caption").text}]
        text: str = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return text


def _can_share(language: Qwen2_5_VLTextModel, config: Any, dtype: torch.dtype) -> bool:
    """Return True if captions are the same with these weights. A head that is tied to the embedding needs its own."""
    whole = not any(isinstance(parameter, DTensor) for parameter in language.parameters())
    return whole and language.dtype == dtype and not config.tie_word_embeddings


class _WithoutLanguage(Qwen2_5_VLForConditionalGeneration):  # type: ignore[misc]
    """Qwen2.5-VL with a gap in place of its language model, whose weights are not loaded."""

    _keys_to_ignore_on_load_unexpected = (r"^model\.language_model\.",)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model.language_model = nn.Identity()
