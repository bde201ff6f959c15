"""Prompts for Qwen: scenes and captions as tokens, in the paper's prompt within Qwen's own chat template."""

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
    """A tokenizer of texts in their prompts. The queries follow these tokens.

    `most` is the maximum number of tokens of a prompt (the paper's 1,024 minus the queries). The end of a longer text
    is cut off, never the end of the template. Batches are padded to the next multiple of `bucket`, not to the maximum.
    """

    def __init__(self, tokenizer: Any, most: int, bucket: int = 16) -> None:
        """Raise UsageError if a template alone is too long."""
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
        """Return the tokens of texts, each in the prompt of its form.

        An empty text gives the instruction alone, which is the unconditional prompt of guidance (paper: unspecified).
        """
        full = [self._chat(form, text) for form, text in zip(forms, texts, strict=True)]
        rows = [self._bounded(*given) for given in zip(full, forms, texts, strict=True)]
        length = -(-max(map(len, rows)) // self._bucket) * self._bucket
        ids = torch.full((len(rows), length), self._padding)
        mask = torch.zeros((len(rows), length), dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
        return TokenBatch(ids, mask, cut=sum(len(one) > self._most for one in full))

    def _bounded(self, ids: list[int], form: PromptForm, text: str) -> list[int]:
        while len(ids) > self._most:
            kept = self._tokenizer(text, add_special_tokens=False)["input_ids"][: self._most - len(ids)]
            text = self._tokenizer.decode(kept).rstrip(
                "\ufffd"
            )  # the remains of a character that was cut between its bytes
            ids = self._chat(form, text)
        return ids

    def _chat(self, form: PromptForm, text: str) -> list[int]:
        name, field = _TEMPLATES[form]
        text = text.replace("<|", "< |")  # so that text from data cannot start a turn of the chat
        turns = [{"role": "user", "content": load(name).fill(**{field: text})}]
        chat = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return list(self._tokenizer(chat, add_special_tokens=False)["input_ids"])
