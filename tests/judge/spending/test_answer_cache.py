"""The cache of answers: what was paid for is there, whenever the process ended, whichever version stored it."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
from collections.abc import Coroutine
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nextscene.common.storage import Storage
from nextscene.judge.api.answer import Answer
from nextscene.judge.errors import JudgeStopped
from nextscene.judge.spending.answer_cache import AnswerCache
from nextscene.judge.spending.answer_index import INDEX
from nextscene.judge.spending.answer_segments import list_segments
from nextscene.judge.spending.stored_answers import StoredAnswers
from tests.judge.support import USD, MemoryFiles, answer, in_no_time, without_threads

pytestmark = pytest.mark.slow

T = TypeVar("T")


def at_once(work: Coroutine[Any, Any, T]) -> T:
    with without_threads():
        return in_no_time(work)


def key(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def paid(name: object, text: str = "A dog barks.", **changes: Any) -> Answer:
    """The answer to a question of this name, of a call of its own."""
    return replace(answer(key(name), text), **{"message_id": f"msg {name} {text}", **changes})


def lines(*answers: Answer) -> bytes:
    return gzip.compress(b"".join(one.to_line() for one in answers), mtime=0)


def stored(files: MemoryFiles | Storage) -> dict[str, Answer]:
    """Key → answer, as a new process finds them."""
    found = StoredAnswers(files)
    keys = {one.key for path in list_segments(files) for one in map(Answer.from_line, unpacked(files, path))}
    return {name: one for name in keys if (one := found.get(name))}


def unpacked(files: MemoryFiles | Storage, path: str) -> list[bytes]:
    return gzip.decompress(files.read(path)).splitlines()


# ---- durability ------------------------------------------------------------------------------------------------


def test_once_stored_an_answer_is_there_for_another_process(tmp_path: Path) -> None:
    async def work() -> None:
        files = Storage.at(tmp_path)
        cache = AnswerCache(files, tmp_path / "journals")
        assert await cache.get(key("a")) is None
        cache.add(paid("a"))
        assert await cache.get(key("a")) == paid("a")
        await cache.store()
        cache.add(paid("b", "Another."))
        await cache.close()
        assert stored(Storage.at(tmp_path)) == {key("a"): paid("a"), key("b"): paid("b", "Another.")}
        assert (cache.spent, cache.answers) == (2 * USD, 2)

    asyncio.run(work())


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(st.sampled_from(["add", "store", "die", "twice"]), max_size=24), keeps_index=st.booleans())
def test_however_often_it_dies_each_answer_is_there_and_counted_once(
    events: list[str], keeps_index: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("journals")

    async def work() -> None:
        files, known = MemoryFiles(), dict[str, Answer]()
        cache = AnswerCache(files, folder)
        for number, event in enumerate(events):
            if event == "add":
                known[key(number)] = paid(number)
                cache.add(known[key(number)])
            elif event == "twice":
                cache.add_new(known.values())
            elif event == "store":
                await cache.store()
            else:
                cache.journal.close()
                if keeps_index:
                    files.data[INDEX] = cache._stored.index.to_bytes()
                cache = AnswerCache(files, folder)
                await cache.store()
                cache.delete_recovered_journals()
            assert (cache.spent, cache.answers) == (len(known) * USD, len(known))
            assert {name: await cache.get(name) for name in known} == known
        await cache.close()
        cache.journal.close()
        assert stored(files) == known and not list(folder.iterdir())
        again = StoredAnswers(files)
        assert (again.spent, again.count, again.newly_indexed) == (len(known) * USD, len(known), 0)

    at_once(work())


def test_a_disk_that_fails_keeps_the_answers_on_the_journal(tmp_path: Path) -> None:
    async def work() -> None:
        files = MemoryFiles()
        cache = AnswerCache(files, tmp_path)
        files.full = True
        cache.add(paid("a"))
        with pytest.raises(OSError, match="No space left"):
            await cache.store()
        assert await cache.get(key("a")) == paid("a") and not list_segments(files)
        cache.journal.close()
        files.full = False
        after = AnswerCache(files, tmp_path)
        await after.store()
        assert stored(files) == {key("a"): paid("a")}

    at_once(work())


def test_an_answer_that_finds_no_room_on_the_journal_is_stored_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    async def work() -> None:
        files = MemoryFiles()
        cache = AnswerCache(files, tmp_path)
        with monkeypatch.context() as patch, pytest.raises(JudgeStopped, match="make room there"):
            patch.setattr("nextscene.judge.spending.call_journal._write", full)
            cache.add(paid("a"))
        await cache.store()
        assert stored(files) == {key("a"): paid("a")} and cache.spent == USD

    at_once(work())


def test_simultaneous_answers_share_a_segment_of_at_most_a_thousand(tmp_path: Path) -> None:
    async def work() -> None:
        files = MemoryFiles()
        cache = AnswerCache(files, tmp_path)
        for number in range(2500):
            cache.add(paid(number))
        await asyncio.gather(*(cache.store() for _ in range(50)))
        assert [len(unpacked(files, path)) for path in list_segments(files)] == [1000, 1000, 500]
        assert len(stored(files)) == 2500

    at_once(work())


def test_an_answer_is_also_found_by_its_alias_and_counted_once(tmp_path: Path) -> None:
    async def work() -> None:
        files = MemoryFiles()
        cache = AnswerCache(files, tmp_path)
        cache.add(paid("a", alias=key("the clip")))
        assert await cache.get(key("the clip")) == await cache.get(key("a")) != None  # noqa: E711
        await cache.close()
        found = StoredAnswers(files)
        assert found.get(key("the clip")) == found.get(key("a")) == paid("a", alias=key("the clip"))
        assert (found.spent, found.count) == (USD, 1)

    at_once(work())


# ---- what older versions left ----------------------------------------------------------------------------------


def test_answers_of_older_versions_are_found_and_stay_as_they_lie(tmp_path: Path) -> None:
    """A folder for each unit, names by chance or by time; a copy for another unit says that it is shared."""
    drawers = tmp_path / "calls" / "train" / "000"
    old = {
        "000007/0123456789ab.jsonl.gz": lines(paid("a"), paid("b")),
        "000007/00000000018b.jsonl.gz": lines(paid("b")),  # put together, and the other was not deleted yet
        "000008/fedcba987654.jsonl.gz": lines(replace(paid("a"), shared=True, usd=Decimal(0)), paid("c")),
    }
    for name, data in old.items():
        (drawers / name).parent.mkdir(parents=True, exist_ok=True)
        (drawers / name).write_bytes(data)
        os.utime(drawers / name, (1, 1))

    async def work() -> None:
        files = Storage.at(tmp_path)
        for _ in range(2):
            cache = AnswerCache(files, tmp_path / "calls" / "journals")
            assert {name: await cache.get(key(name)) for name in "abc"} == {name: paid(name) for name in "abc"}
            assert (cache.spent, cache.answers) == (3 * USD, 3)
            await cache.close()

    asyncio.run(work())
    assert {name: (drawers / name).read_bytes() for name in old} == old
    assert {(drawers / name).stat().st_mtime for name in old} == {1.0}


def test_of_two_answers_to_one_question_the_first_counts_and_both_were_paid_for(tmp_path: Path) -> None:
    files = MemoryFiles()
    for number, text in enumerate(["first", "second", "third"]):
        files.data[f"calls/answers/{number:016x}.jsonl.gz"] = lines(paid("a", text))
    for found in (StoredAnswers(files), StoredAnswers(files)):
        assert found.get(key("a")) == paid("a", "first")
        assert (found.spent, found.count) == (3 * USD, 3)
        files.data[INDEX] = found.index.to_bytes()


# ---- damage ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_a_damaged_segment_is_named_or_still_reads_the_same(drawn: st.DataObject) -> None:
    data = lines(*(paid(number) for number in range(5)))
    path = f"calls/answers/{0:016x}-{hashlib.sha256(data).hexdigest()[:16]}.jsonl.gz"
    changed = bytearray(data)
    at = drawn.draw(st.integers(0, len(data) - 1))
    if drawn.draw(st.booleans()):
        changed = changed[:at]
    else:
        changed[at] ^= drawn.draw(st.integers(1, 255))
    with pytest.raises(JudgeStopped, match=path) as stop:
        StoredAnswers(MemoryFiles({path: bytes(changed)}))
    assert "delete it" in str(stop.value) and "\n" not in str(stop.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x1f",
        gzip.compress(b"")[:-1],
        b"not gzip",
        gzip.compress(b"[]\n"),
        gzip.compress(b"{}\n"),
        gzip.compress(paid("a").to_line()[:-5]),
        gzip.compress(b'{"usage": {}, "usd": "x"}\n'),
        gzip.compress(b"\xff"),
        lines(replace(paid("a"), key="no digest")),
        lines(replace(paid("a"), key="no digest", shared=True)),
        lines(paid("a", alias="no digest")),
    ],
    ids=[
        "empty",
        "one byte",
        "cut short",
        "no gzip",
        "a list",
        "no fields",
        "half a line",
        "other fields",
        "no text",
        "no key",
        "no key of a shared one",
        "no alias",
    ],
)
def test_a_segment_that_holds_something_else_is_named_with_the_way_out(content: bytes, tmp_path: Path) -> None:
    path = "calls/train/000/000007/0123456789ab.jsonl.gz"
    with pytest.raises(JudgeStopped, match=rf"^{path} is damaged .* delete it"):
        AnswerCache(MemoryFiles({path: content}), tmp_path)
    told: list[str] = []
    found = StoredAnswers(MemoryFiles({path: content, "calls/answers/a.jsonl.gz": lines(paid("a"))}), told.append)
    assert found.get(key("a")) == paid("a") and len(told) == 1 and path in told[0]


@pytest.mark.parametrize("index", ["empty", "no index", "of other segments", "cut short"])
def test_an_index_that_cannot_be_used_is_made_again(index: str) -> None:
    files = MemoryFiles({f"calls/answers/{number}.jsonl.gz": lines(paid(number)) for number in range(3)})
    whole = StoredAnswers(files).index.to_bytes()
    others = StoredAnswers(MemoryFiles({"calls/answers/x.jsonl.gz": lines(paid("x"))})).index.to_bytes()
    files.data[INDEX] = {"empty": b"", "no index": b"no index", "of other segments": others, "cut short": whole[:-9]}[
        index
    ]
    found = StoredAnswers(files)
    assert (found.spent, found.count) == (3 * USD, 3)
    assert found.get(key(1)) == paid(1) and found.get(key("x")) is None


def test_a_segment_that_was_deleted_is_asked_again_and_was_not_spent(tmp_path: Path) -> None:
    files = MemoryFiles({f"calls/answers/{number}.jsonl.gz": lines(paid(number)) for number in range(3)})
    files.data[INDEX] = StoredAnswers(files).index.to_bytes()
    del files.data["calls/answers/1.jsonl.gz"]
    found = StoredAnswers(files)
    assert [found.get(key(number)) for number in range(3)] == [paid(0), None, paid(2)]
    assert (found.spent, found.count, found.newly_indexed) == (2 * USD, 2, 0)
