"""The paper's prompt in Qwen's chat form: every byte of it, and of too long a text as much as fits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from nextscene.common.errors import UsageError
from nextscene.training.config import PromptForm
from nextscene.training.model.prompter import Prompter
from tests.training import pretrained

# Written out: the system's turn that Qwen's published template puts first, the user's with the paper's sentence, and
# the beginning of the answer.
BEFORE: dict[PromptForm, str] = {
    "nsp": (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nPlease generate a video showing what happens after this scene: "
    ),
    "t2v": (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nPlease generate a video of this: "
    ),
}
AFTER = "<|im_end|>\n<|im_start|>assistant\n"
FORMS: list[PromptForm] = ["nsp", "t2v"]

TOKENIZER = pretrained.tokenizer()


def template(form: PromptForm) -> int:
    """Tokens of it, without a text."""
    return len(TOKENIZER(BEFORE[form] + AFTER)["input_ids"])


def texts_of(prompter: Prompter, texts: list[str], forms: list[PromptForm]) -> list[str]:
    """What the tokens say that are not padding."""
    words = prompter.tokenize(texts, forms)
    return [TOKENIZER.decode(ids[: int(length)]) for ids, length in zip(words.ids, words.lengths.tolist(), strict=True)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "scene", ["A glass wobbles near the edge of the table.", "", "Zwölf Boxkämpfer 🥊,\nsagt sie."]
)
def test_the_prompt_is_the_papers_sentence_in_qwens_published_chat_form(form: PromptForm, scene: str) -> None:
    assert texts_of(Prompter(TOKENIZER, 768), [scene], [form]) == [BEFORE[form] + scene + AFTER]


def test_turns_begin_and_end_with_single_special_tokens() -> None:
    words = Prompter(TOKENIZER, 768).tokenize(["A dog."], ["nsp"])
    start, end = TOKENIZER.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert [int((words.ids == token).sum()) for token in (start, end)] == [3, 2]
    assert words.ids[0, 0] == start


def test_each_text_of_a_batch_has_its_own_form_and_place() -> None:
    texts, forms = ["A dog runs.", "", "Rain falls on the roof of a shed."], ["t2v", "nsp", "nsp"]
    expected = [BEFORE[form] + text + AFTER for text, form in zip(texts, forms, strict=True)]
    assert texts_of(Prompter(TOKENIZER, 768), texts, forms) == expected
    with pytest.raises(ValueError, match="zip"):
        Prompter(TOKENIZER, 768).tokenize(texts, forms[:2])


def test_an_empty_text_is_the_instruction_alone_the_same_in_any_batch() -> None:
    prompter = Prompter(TOKENIZER, 768)
    alone, batch = prompter.tokenize([""], ["nsp"]), prompter.tokenize(["A dog. " * 20, ""], ["nsp", "nsp"])
    length = int(alone.lengths)
    assert length == template("nsp")
    assert torch.equal(batch.ids[1, :length], alone.ids[0, :length]) and int(batch.lengths[1]) == length


# ---- padded to buckets ---------------------------------------------------------------------------------------------


@given(st.lists(st.text("ab ", max_size=60), min_size=1, max_size=4), st.sampled_from([1, 8, 16, 64]))
def test_a_batch_is_padded_on_the_right_to_the_next_multiple_of_the_bucket(texts: list[str], bucket: int) -> None:
    words = Prompter(TOKENIZER, 768, bucket).tokenize(texts, ["nsp"] * len(texts))
    lengths = [template("nsp") + len(text) for text in texts]
    assert words.lengths.tolist() == lengths
    width = words.ids.shape[1]
    assert words.mask.shape == words.ids.shape == (len(texts), width)
    assert width % bucket == 0 and width - bucket < max(lengths) <= width
    for ids, mask, length in zip(words.ids, words.mask, lengths, strict=True):
        assert mask.tolist() == [1] * length + [0] * (width - length)
        assert set(ids[length:].tolist()) <= {TOKENIZER.pad_token_id}


def test_a_tokenizer_without_padding_of_its_own_pads_with_its_last_token() -> None:
    tokenizer = pretrained.tokenizer()
    tokenizer.pad_token = None
    words = Prompter(tokenizer, 768, 1).tokenize(["", "A dog."], ["nsp", "nsp"])
    assert set(words.ids[0, -6:].tolist()) == {tokenizer.eos_token_id}


# ---- cut to the bound ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("room", [0, 1, 7, 43, 44, 45])
def test_of_too_long_a_text_the_end_is_cut_off_and_not_the_templates(form: PromptForm, room: int) -> None:
    text = "The quick brown fox jumps over the lazy dog."
    assert len(text) == 44
    most = max(template(form) + room, max(map(template, FORMS)))
    (found,) = texts_of(Prompter(TOKENIZER, most), [text], [form])
    assert found == BEFORE[form] + text[: most - template(form)] + AFTER


@given(st.text(min_size=1), st.integers(0, 40))
def test_a_cut_text_is_a_beginning_that_fits_whatever_its_letters_are(text: str, room: int) -> None:
    text = text.replace("\ufffd", "")  # what a letter that is cut apart would be decoded to
    (found,) = texts_of(Prompter(TOKENIZER, template("nsp") + room), [text], ["nsp"])
    assert found.startswith(BEFORE["nsp"]) and found.endswith(AFTER)
    kept = found.removeprefix(BEFORE["nsp"]).removesuffix(AFTER)
    assert text.startswith(kept)
    assert room - 3 <= len(kept.encode()) <= room or kept == text  # a letter has up to four bytes


def test_a_long_text_beside_a_short_one_is_cut_to_the_bound_of_the_paper() -> None:
    words = Prompter(TOKENIZER, 1024 - 256).tokenize(["word " * 1000, "short"], ["nsp", "nsp"])
    assert words.lengths.tolist() == [768, template("nsp") + len("short")]
    assert words.ids.shape == (2, 768)
    assert words.cut == words.to(torch.device("cpu")).cut == 1


def test_a_text_that_just_fits_is_not_counted_as_cut() -> None:
    text = "A dog."
    for room, cut in ((0, 0), (-1, 2)):
        prompter = Prompter(TOKENIZER, template("nsp") + len(text) + room)
        assert prompter.tokenize([text] * 2, ["nsp"] * 2).cut == cut


def test_a_bound_that_not_even_the_template_fits_is_refused() -> None:
    longest = max(map(template, FORMS))
    Prompter(TOKENIZER, longest)
    with pytest.raises(
        UsageError, match=f"no text fits: the template 'nsp' alone has {longest} tokens, .* leaves {longest - 1}"
    ):
        Prompter(TOKENIZER, longest - 1)


def test_the_tokenizer_of_these_tests_has_a_token_for_each_byte() -> None:
    assert isinstance(TOKENIZER, PreTrainedTokenizerFast)
    assert len(TOKENIZER("wörd 🥊", add_special_tokens=False)["input_ids"]) == len("wörd 🥊".encode())
