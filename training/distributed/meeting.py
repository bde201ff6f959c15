"""The meeting of the processes of one start of torchrun, in a store that may hold the keys of an earlier start.

torchrun keeps one store over all its restarts, and torch's process groups find each other by fixed keys in it. So a
restarted process may read the address of one that has ended. Each start therefore agrees on a name of its own, and
works below it.

    each process    start/RANK   a random word, new in each process
    the leader      starts       the words of all ranks, as it last read them; its own is the name
    each process    met/RANK     the name, once `starts` has this process's own word

Tested in tests/training/distributed/test_meeting.py.
"""

from __future__ import annotations

import json
import time
import uuid
from datetime import timedelta

from torch._C._distributed_c10d import PrefixStore, Store

_POLL_SECONDS = 0.05


def fresh_store(store: Store, rank: int, world: int, timeout: timedelta) -> Store:
    """Return a part of `store` that all `world` processes of this start share, and that no earlier start used.

    Raise RuntimeError if they have not all arrived after `timeout`.
    """
    deadline = time.monotonic() + timeout.total_seconds()
    me = uuid.uuid4().hex
    store.set(f"start/{rank}", me)
    while time.monotonic() < deadline:
        name = _lead(store, me, world) if rank == 0 else _follow(store, rank, me)
        if name:
            return PrefixStore(f"start-{name}", store)
        time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"not all {world} processes arrived within {timeout.total_seconds():g} s")


def _lead(store: Store, me: str, world: int) -> str:
    """Publish the words of all ranks, of which some may be of an earlier start. Return the name once all have it."""
    words = [_read(store, f"start/{rank}") for rank in range(world)]
    store.set("starts", json.dumps(words))
    met = [_read(store, f"met/{rank}") for rank in range(1, world)]
    return me if all(name == me for name in met) else ""


def _follow(store: Store, rank: int, me: str) -> str:
    words = json.loads(_read(store, "starts") or "[]")
    if words[rank : rank + 1] != [me]:
        return ""
    store.set(f"met/{rank}", words[0])
    return str(words[0])


def _read(store: Store, key: str) -> str:
    """Return the value of a key, "" if there is none yet."""
    return store.get(key).decode() if store.check([key]) else ""
