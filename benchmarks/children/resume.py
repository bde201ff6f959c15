"""Start like a run that resumes: `resume judge|segments|index OUT`; print seconds and peak memory as JSON.

`judge` opens the judge's client over the stored answers in OUT, up to the moment at which it can ask, and closes it.
The two others are the necessary part of that, alone: reading and decompressing every segment, and loading the index
with numpy.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

from benchmarks.children.memory import peak_bytes
from nextscene.common.local_state import local_state
from nextscene.common.storage import Storage
from nextscene.judge.api.backoff import RetryPolicy
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.spending.answer_index import INDEX
from nextscene.judge.spending.answer_segments import CALLS, SEGMENT_SUFFIX
from nextscene.judge.spending.cached_client import CachedClient
from nextscene.judge.spending.call_journal import JOURNALS
from nextscene.judge.spending.prices import Prices


async def judge(out: str) -> Callable[[], Awaitable[None]]:
    files = Storage.at(out)
    price = Prices.load().for_model(ClaudeConfig().model)
    client = await CachedClient.open(files, local_state(files, JOURNALS), price, RetryPolicy(), None)
    return client.close


def segments(out: str) -> None:
    for path in Path(out, CALLS).rglob(f"*{SEGMENT_SUFFIX}"):
        gzip.decompress(path.read_bytes())


def index(out: str) -> None:
    with np.load(io.BytesIO(Path(out, INDEX).read_bytes()), allow_pickle=False) as arrays:
        for name in arrays.files:
            arrays[name]


async def main(mode: str, out: str) -> None:
    begun = time.monotonic()
    end = await judge(out) if mode == "judge" else None
    if mode == "segments":
        segments(out)
    elif mode == "index":
        index(out)
    print(json.dumps({"seconds": time.monotonic() - begun, "peak": peak_bytes()}))
    if end:
        await end()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
