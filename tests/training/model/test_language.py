"""The text read once and the queries after it are what one pass over both would give, and so are the gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import Qwen2_5_VLTextModel

from nextscene.training.distributed.parallelize import _checkpoint_activations
from nextscene.training.model.language import TokenBatch, encode_queries, encode_text
from tests.training import pretrained

LAYOUTS = {
    "one text": [7],
    "one token": [1],
    "one padded text": [5],
    "no padding": [6, 6, 6],
    "padding": [3, 8, 1, 8],
    "padding in every row": [5, 2],
}
LENGTHS = {"one padded text": 12, "padding in every row": 11}
"""Of the rows, where it is not that of the longest text."""
COUNT = 4


class Answer(NamedTuple):
    """States at the queries, and the queries' gradient of a random weighting of them; both [B, Q, width]."""

    states: Tensor
    gradient: Tensor


@pytest.fixture(scope="module")
def language() -> Qwen2_5_VLTextModel:
    torch.manual_seed(0)
    return pretrained.language().requires_grad_(requires_grad=False)


@pytest.fixture(scope="module", params=["none", "selective", "full"])
def recomputing(request: pytest.FixtureRequest, language: Qwen2_5_VLTextModel) -> Qwen2_5_VLTextModel:
    """The same weights, with the activations of its layers computed again in the backward pass, or not."""
    model = pretrained.language().requires_grad_(requires_grad=False)
    model.load_state_dict(language.state_dict())
    if request.param != "none":
        for layer in model.layers:
            _checkpoint_activations(layer, request.param == "selective")
    return model


def texts_of(lengths: Sequence[int]) -> list[Tensor]:
    draw = torch.Generator().manual_seed(7)
    return [torch.randint(1, 300, (length,), generator=draw) for length in lengths]


def padded(texts: Sequence[Tensor], length: int = 0) -> TokenBatch:
    length = length or max(map(len, texts))
    ids, mask = (torch.zeros(len(texts), length, dtype=torch.long) for _ in range(2))
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return TokenBatch(ids, mask)


def some(batch: int, seed: int) -> Tensor:
    return torch.randn(batch, COUNT, 32, generator=torch.Generator().manual_seed(seed))


def backward(states: Tensor, queries: Tensor) -> Answer:
    (gradient,) = torch.autograd.grad((states * some(len(states), 9)).sum(), queries)
    return Answer(states.detach(), gradient)


def reused(language: Qwen2_5_VLTextModel, words: TokenBatch) -> Answer:
    queries = some(len(words.ids), 8).requires_grad_()
    return backward(encode_queries(language, encode_text(language, words), queries), queries)


def as_one(language: Qwen2_5_VLTextModel, texts: Sequence[Tensor]) -> Answer:
    """Each text by itself, without a cache and without padding, with its queries behind it."""
    queries = some(len(texts), 8).requires_grad_()
    rows = []
    for row, text in enumerate(texts):
        sequence = torch.cat([language.embed_tokens(text), queries[row]])[None]
        positions = torch.arange(len(text) + COUNT).expand(3, 1, -1)
        mask = torch.ones(1, len(text) + COUNT, dtype=torch.long)
        states = language(inputs_embeds=sequence, attention_mask=mask, position_ids=positions, use_cache=False)
        rows.append(states.last_hidden_state[0, -COUNT:])
    return backward(torch.stack(rows), queries)


def assert_close(found: Answer, expected: Answer) -> None:
    assert expected.states.abs().mean() > 0.1 and expected.gradient.abs().mean() > 0.01
    torch.testing.assert_close(found.states, expected.states, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.gradient, expected.gradient, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reading_the_text_first_is_one_pass_over_text_and_queries(
    language: Qwen2_5_VLTextModel, recomputing: Qwen2_5_VLTextModel, layout: str
) -> None:
    texts = texts_of(LAYOUTS[layout])
    assert_close(reused(recomputing, padded(texts, LENGTHS.get(layout, 0))), as_one(language, texts))


def test_attention_that_is_written_out_gives_the_same(language: Qwen2_5_VLTextModel) -> None:
    """transformers' fused attention takes other ways with a mask than without; the plain one has but one."""
    plain = pretrained.language().requires_grad_(requires_grad=False)
    plain.load_state_dict(language.state_dict())
    plain.set_attn_implementation("eager")
    for layout in LAYOUTS:
        words = padded(texts_of(LAYOUTS[layout]), LENGTHS.get(layout, 0))
        assert_close(reused(language, words), reused(plain, words))


def test_a_row_is_the_same_alone_in_a_padded_batch_and_in_another_bucket(language: Qwen2_5_VLTextModel) -> None:
    texts = texts_of([5, 16, 2])
    batch = reused(language, padded(texts)).states
    wider = reused(language, padded(texts, 48)).states
    for row, text in enumerate(texts):
        alone = encode_queries(language, encode_text(language, padded([text])), some(3, 8)[row : row + 1])
        for found in (batch, wider):
            torch.testing.assert_close(found[row : row + 1], alone, atol=1e-5, rtol=0)


def test_what_stands_in_the_padding_is_never_seen(language: Qwen2_5_VLTextModel) -> None:
    words = padded(texts_of([5, 16, 2]))
    other = TokenBatch(torch.where(words.mask == 1, words.ids, 299), words.mask)
    assert torch.equal(reused(language, other).states, reused(language, words).states)


def test_the_text_decides_what_the_queries_read(language: Qwen2_5_VLTextModel) -> None:
    """Each token of it, so that nothing above is equal because nothing is seen."""
    (text,) = texts_of([6])
    states = reused(language, padded([text])).states
    for place in range(len(text)):
        other = text.clone()
        other[place] = (text[place] + 1) % 300
        assert (reused(language, padded([other])).states - states).abs().max() > 1e-3


def test_a_query_sees_those_before_it_and_none_behind_it(language: Qwen2_5_VLTextModel) -> None:
    prefix, queries = encode_text(language, padded(texts_of([5, 3]))), some(2, 8)
    states = encode_queries(language, prefix, queries)
    for place in range(COUNT):
        other = queries.clone()
        other[:, place] += 1
        changed = (encode_queries(language, prefix, other) - states).abs().amax((0, 2)) > 1e-4
        assert changed.tolist() == [at >= place for at in range(COUNT)]


def test_asking_leaves_what_was_read_as_it_was(recomputing: Qwen2_5_VLTextModel) -> None:
    prefix = encode_text(recomputing, padded(texts_of([5, 3])))
    before = [(layer.keys.clone(), layer.values.clone()) for layer in prefix.cache.layers]
    queries = some(2, 8).requires_grad_()
    first, second = (backward(encode_queries(recomputing, prefix, queries), queries) for _ in range(2))
    assert prefix.cache.get_seq_length() == 5
    for layer, (keys, values) in zip(prefix.cache.layers, before, strict=True):
        assert torch.equal(layer.keys, keys) and torch.equal(layer.values, values)
    assert torch.equal(first.states, second.states) and torch.equal(first.gradient, second.gradient)


def test_no_gradient_goes_through_the_text_or_into_the_model() -> None:
    language = pretrained.language()
    language.requires_grad_(requires_grad=False)
    prefix = encode_text(language, padded(texts_of([5, 3])))
    assert not any(layer.keys.requires_grad or layer.values.requires_grad for layer in prefix.cache.layers)
    encode_queries(language, prefix, some(2, 8).requires_grad_()).sum().backward()
    assert all(parameter.grad is None for parameter in language.parameters())
