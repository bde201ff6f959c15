"""The meeting of the processes of one start: those of an earlier start, which left their keys, are not met."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import HashStore, Store

from nextscene.training.distributed.meeting import fresh_store

PATIENCE = timedelta(seconds=20)


def start(store: Store, order: Sequence[int], pause: float = 0.0) -> list[Store]:
    """The store that each rank gets, of ranks that arrive in this order, `pause` seconds apart."""
    with ThreadPoolExecutor(len(order)) as pool:
        arrived = {}
        for rank in order:
            arrived[rank] = pool.submit(fresh_store, store, rank, len(order), PATIENCE)
            time.sleep(pause)
        return [arrived[rank].result() for rank in sorted(order)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_all_ranks_of_a_start_share_a_store_that_no_earlier_start_wrote_to(order: tuple[int, ...]) -> None:
    kept = HashStore()
    starts = [start(kept, range(3)), start(kept, order, pause=0.1)]
    for number, stores in enumerate(starts):
        stores[0].set("address", str(number))
        assert [store.get("address") for store in stores] == [str(number).encode()] * 3
    assert starts[0][1].get("address") == b"0"


def test_a_rank_that_has_died_before_it_met_the_others_is_not_waited_for() -> None:
    """Its restarted process has another word, whenever that comes."""
    kept = HashStore()
    for rank in range(2):
        kept.set(f"start/{rank}", "dead")
    first, second = start(kept, (0, 1), pause=0.3)
    first.set("address", "here")
    assert second.get("address") == b"here"


def test_a_missing_process_is_told() -> None:
    with pytest.raises(RuntimeError, match=r"not all 2 processes arrived within 0\.2 s"):
        fresh_store(HashStore(), 0, 2, timedelta(seconds=0.2))
