"""Training of the toy language model to say what happens next, so that its states carry what a scene means.

Tested in tests/training/tiny/test_language_training.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from nextscene.training.model.export_pipeline import chat_tokens
from nextscene.training.model.prompter import prompt_templates

END = "<|im_end|>"

_BATCH = 16
_RATE = 2e-3
_IGNORED = -100  # the label of tokens that are not learned
_DEVIATION = 0.05
_EMBEDDING_DEVIATION = 0.02


class ScenePair(NamedTuple):
    """A scene and the caption of the clip that follows it."""

    scene: str
    caption: str


def train_language(
    whole: Qwen2_5_VLForConditionalGeneration,
    tokenizer: Any,
    pairs: Sequence[ScenePair],
    steps: int,
    tick: Callable[[], None],
) -> None:
    """Train the language model in place to answer the two prompts of training, each with the caption.

    After a scene in the prompt `nsp` it has to say what happens next, after a caption in the prompt `t2v` to repeat it.
    `tick` is called after each step.
    """
    texts = _dialogs(tokenizer, pairs)
    language, head = whole.model.language_model, whole.lm_head
    parameters = [*language.parameters(), *head.parameters()]
    for parameter in language.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=_DEVIATION)
    for table in (language.embed_tokens.weight, head.weight):
        torch.nn.init.normal_(table, std=_EMBEDDING_DEVIATION)
    optimizer = torch.optim.AdamW(parameters, lr=_RATE, betas=(0.9, 0.99), fused=True)
    falling = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=max(steps, 2), pct_start=0.1)
    for _ in range(steps):
        ids, mask, labels = _batch([texts[int(number)] for number in torch.randint(len(texts), (_BATCH,))])
        states = language(input_ids=ids, attention_mask=mask).last_hidden_state[:, :-1]
        learned = labels[:, 1:] != _IGNORED
        loss = torch.nn.functional.cross_entropy(head(states[learned]), labels[:, 1:][learned])
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        falling.step()
        optimizer.zero_grad()
        tick()


class _Dialog(NamedTuple):
    """A prompt and its answer as tokens. The first `prompt` of them are not learned."""

    ids: list[int]
    prompt: int


def _dialogs(tokenizer: Any, pairs: Sequence[ScenePair]) -> list[_Dialog]:
    templates = prompt_templates()
    found = []
    for pair in pairs:
        answer = tokenizer(pair.caption + END, add_special_tokens=False)["input_ids"]
        for prompt in (
            chat_tokens(tokenizer, templates["nsp"], pair.scene),
            chat_tokens(tokenizer, templates["t2v"], pair.caption),
        ):
            found.append(_Dialog(prompt + answer, len(prompt)))
    return found


def _batch(dialogs: Sequence[_Dialog]) -> tuple[Tensor, Tensor, Tensor]:
    """Return token ids, a mask that is 0 for padding, and labels, each [dialogs, tokens]."""
    shape = (len(dialogs), max(len(dialog.ids) for dialog in dialogs))
    ids, mask = torch.zeros(2, *shape, dtype=torch.long)
    labels = torch.full(shape, _IGNORED)
    for row, dialog in enumerate(dialogs):
        count = len(dialog.ids)
        ids[row, :count] = torch.tensor(dialog.ids)
        mask[row, :count] = 1
        labels[row, dialog.prompt : count] = ids[row, dialog.prompt : count]
    return ids, mask, labels
