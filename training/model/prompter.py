"""Prompts for Qwen: scenes and captions as tokens, in the paper's prompt within Qwen's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nextscene.common.errors import UsageError
from nextscene.prompts import load
from nextscene.training.config import PromptForm
from nextscene.training.model.export_pipeline import TEXT, chat_tokens, prompt_tokens
from nextscene.training.model.language import TokenBatch

_TEMPLATES: dict[PromptForm, tuple[str, str]] = {
    "nsp": ("next_scene", "scene_description"),
    "t2v": ("text_to_video", "caption"),
}


def prompt_templates() -> dict[PromptForm, str]:
    """Return the template of each form, with the mark of `export_pipeline` in the place of the text."""
    return {form: load(name).fill(**{field: TEXT}) for form, (name, field) in _TEMPLATES.items()}


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
        self._templates = prompt_templates()
        for form, template in self._templates.items():
            if (least := len(chat_tokens(tokenizer, template, ""))) > most:
                raise UsageError(
                    f"no text fits: the template {form!r} alone has {least} tokens, and model.max_tokens less"
                    f" model.queries leaves {most}"
                )

    def tokenize(self, texts: Sequence[str], forms: Sequence[PromptForm]) -> TokenBatch:
        """Return the tokens of texts, each in the prompt of its form.

        An empty text gives the instruction alone, which is the unconditional prompt of guidance (paper: unspecified).
        """
        rows, cut = zip(
            *(
                prompt_tokens(self._tokenizer, self._templates[form], text, self._most)
                for form, text in zip(forms, texts, strict=True)
            ),
            strict=True,
        )
        length = -(-max(map(len, rows)) // self._bucket) * self._bucket
        ids = torch.full((len(rows), length), self._padding)
        mask = torch.zeros((len(rows), length), dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
        return TokenBatch(ids, mask, sum(cut))
