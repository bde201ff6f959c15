"""Claim: reading the text once without gradient makes the language model's part of a training step cheaper.

Measured: the CPU time of `training.model.language`, forward and backward to the queries, for 2 texts of 128 tokens and
256 queries, on a Qwen2.5-VL language model of random weights that is large enough (512 wide, 6 layers) for its matrix
products to dominate. By its FLOPs the gain over the plain form should be 1.19, over one padded to 1,024 tokens 3.2.

Compared with: the same model run on text and queries as one sequence, unpadded, and padded to the paper's 1,024 tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

from benchmarks.one_sequence import states_of_queries
from benchmarks.support import Result, run_alone
from nextscene.training.model.language import TokenBatch, encode_queries, encode_text

ROUNDS = 5
OVER_PLAIN = 1.1
OVER_PADDED = 2.5
_TEXTS, _TEXT, _QUERIES, _PADDED = 2, 128, 256, 1024


def benchmark(rounds: int | None = None) -> list[Result]:
    torch.manual_seed(0)
    language = _language()
    queries = (0.02 * torch.randn(_TEXTS, _QUERIES, language.config.hidden_size)).requires_grad_()
    ids = torch.randint(language.config.vocab_size, (_TEXTS, _TEXT))
    words = TokenBatch(ids, torch.ones_like(ids))
    ways: list[Callable[[], Tensor]] = [
        lambda: encode_queries(language, encode_text(language, words), queries),
        lambda: states_of_queries(language, ids, queries, 0),
        lambda: states_of_queries(language, ids, queries, _PADDED - _TEXT - _QUERIES),
    ]
    done = [[_seconds(way, queries) for way in ways] for _ in range((rounds or ROUNDS) + 1)][1:]  # the first warms up
    return [
        Result(
            "CPU of text and queries as one sequence, over the text read once",
            [plain / reused for reused, plain, _ in done],
            OVER_PLAIN,
            at_most=False,
        ),
        Result(
            "… as one sequence of 1,024 tokens, padded",
            [padded / reused for reused, _, padded in done],
            OVER_PADDED,
            at_most=False,
        ),
    ]


def _language() -> Qwen2_5_VLTextModel:
    config = Qwen2_5_VLTextConfig(
        hidden_size=512,
        intermediate_size=2706,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=2,
        vocab_size=1000,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
        bos_token_id=None,
        eos_token_id=None,
    )
    return Qwen2_5_VLTextModel(config).eval().requires_grad_(requires_grad=False)


def _seconds(way: Callable[[], Tensor], queries: Tensor) -> float:
    queries.grad = None
    begun = time.process_time()
    torch.autograd.backward(way().square().sum())
    return time.process_time() - begun


if __name__ == "__main__":
    run_alone(benchmark)
