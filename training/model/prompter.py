"""From scenes and captions to Qwen's tokens: the paper's prompt within Qwen's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nextscene.common.errors import UsageError
from nextscene.prompts import load
from nextscene.training.config import PromptForm
from nextscene.training.model.language import TokenBatch

_TEMPLATES: dict[PromptForm, tuple[str, str]] = {
    "nsp": ("next_scene", "scene_description"),
    "t2v": ("text_to_video", "caption"),
}


class Prompter:
    """Makes the words that the queries follow.

    `most` bounds the tokens of a text (the paper's 1,024 less the queries): of a longer one its end is cut off, not the
    template's. Batches are padded to the next multiple of `bucket`, never to the bound. Raises UsageError where
    the template alone is too long.
    """

    def __init__(self, tokenizer: Any, most: int, bucket: int = 16) -> None:
        self._tokenizer = tokenizer
        self._most, self._bucket = most, bucket
        self._padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        for form in _TEMPLATES:
            if (least := len(self._chat(form, ""))) > most:
                raise UsageError(
                    f"no text fits: the template {form!r} alone has {least} tokens, and model.max_tokens less"
                    f" model.queries leaves {most}"
                )

    def tokenize(self, texts: Sequence[str], forms: Sequence[PromptForm]) -> TokenBatch:
        """An empty text gives the instruction alone, which is what guidance goes away from (paper: unspecified)."""
        rows = [self._bounded(form, text) for form, text in zip(forms, texts, strict=True)]
        length = -(-max(map(len, rows)) // self._bucket) * self._bucket
        ids = torch.full((len(rows), length), self._padding)
        mask = torch.zeros((len(rows), length), dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
        return TokenBatch(ids, mask)

    def _bounded(self, form: PromptForm, text: str) -> list[int]:
        ids = self._chat(form, text)
        while len(ids) > self._most:
            kept = self._tokenizer(text, add_special_tokens=False)["input_ids"][: self._most - len(ids)]
            text = self._tokenizer.decode(kept).rstrip("\ufffd")  # what is left of a letter whose bytes were cut apart
            ids = self._chat(form, text)
        return ids

    def _chat(self, form: PromptForm, text: str) -> list[int]:
        name, field = _TEMPLATES[form]
        text = text.replace("<|", "< |")  # a text from data is never a turn of the chat
        turns = [{"role": "user", "content": load(name).fill(**{field: text})}]
        chat = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return list(self._tokenizer(chat, add_special_tokens=False)["input_ids"])
