"""The training of the toy language model: what follows from a scene can be read in what it would say next."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from nextscene.training.model.export_pipeline import TEXT, chat_tokens
from nextscene.training.model.prompter import prompt_templates
from nextscene.training.tiny.language import save_qwen
from nextscene.training.tiny.language_training import END, ScenePair, train_language

pytestmark = pytest.mark.slow

STEPS = 60
PAIRS = [
    ScenePair("A log is pushed.", "It rolls."),
    ScenePair("A log is cut.", "It falls."),
    ScenePair("A bird is called.", "It flies."),
]


def answer(whole: Qwen2_5_VLForConditionalGeneration, prompt: list[int]) -> list[int]:
    """The most likely next tokens, up to the end of the turn or ten of them."""
    ids = torch.tensor([prompt])
    for _ in range(10):
        states = whole.model.language_model(input_ids=ids).last_hidden_state[:, -1]
        ids = torch.cat([ids, whole.lm_head(states).argmax(-1)[None]], 1)
    return [int(one) for one in ids[0, len(prompt) :]]


def test_after_a_scene_it_says_what_follows_and_after_a_caption_the_caption(tmp_path: Path) -> None:
    torch.manual_seed(0)
    told: list[None] = []
    prompts = [prompt.replace(TEXT, "") for prompt in prompt_templates().values()]
    texts = [text for pair in PAIRS for text in pair] * 20 + prompts * 20
    save_qwen(
        tmp_path,
        texts,
        lambda whole, tokenizer: train_language(whole, tokenizer, PAIRS, STEPS, lambda: told.append(None)),
    )
    assert len(told) == STEPS
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    whole = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32).eval()
    templates = prompt_templates()
    for pair in PAIRS:
        expected = tokenizer(pair.caption + END)["input_ids"]
        for template, text in ((templates["nsp"], pair.scene), (templates["t2v"], pair.caption)):
            said = answer(whole, chat_tokens(tokenizer, template, text))
            assert said[: len(expected)] == expected
