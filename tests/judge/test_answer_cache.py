"""The store of finished calls: what was paid for is there, whenever the process ended."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judge.store import CallStore, read_drawer

from judge.answer import Answer
from judge.errors import JudgeStopped
from shards.storage import Storage
from tests.judge.asking import Entry, MemoryFiles, answer, in_no_time, without_threads

T = TypeVar("T")
DRAWER = "train/000/000007"
FOLDER = f"calls/{DRAWER}"


def at_once(work: Coroutine[Any, Any, T]) -> T:
    with without_threads():
        return in_no_time(work)


def segments(files: MemoryFiles | Storage, drawer: str = DRAWER) -> list[str]:
    return [entry.path for entry in files.files(f"calls/{drawer}")]


async def stored(files: MemoryFiles | Storage, drawer: str = DRAWER) -> CallStore:
    """A new store with an open drawer, as a new process would have it."""
    store = CallStore(files)
    await store.open(drawer)
    return store


# ---- durability ------------------------------------------------------------------------------------------------


def test_once_put_returned_the_answer_is_there_for_another_process(tmp_path: Path) -> None:
    async def work() -> None:
        files = Storage.at(tmp_path)
        store = CallStore(files)
        await store.open(DRAWER)
        assert store.get(DRAWER, "a") is None
        await store.put(DRAWER, [answer("a"), answer("b", "Another.")])
        assert store.get(DRAWER, "a") == answer("a")
        after = await stored(Storage.at(tmp_path))
        assert after.get(DRAWER, "a") == answer("a") and after.get(DRAWER, "b") == answer("b", "Another.")
        assert after.get(DRAWER, "c") is None

    asyncio.run(work())


def test_the_process_may_end_at_any_write_and_all_that_was_returned_for_is_there() -> None:
    async def work() -> None:
        files = MemoryFiles()
        store = CallStore(files)
        returned: set[tuple[str, str]] = set()
        seen: list[tuple[dict[str, bytes], set[tuple[str, str]]]] = []

        async def put(number: int) -> None:
            await asyncio.sleep(number * 0.04)
            drawer, key = f"train/{number % 3}", f"k{number}"
            await store.put(drawer, [answer(key)])
            returned.add((drawer, key))
            seen.append((dict(files.data), set(returned)))

        await asyncio.gather(*map(put, range(60)))
        for data, promised in seen:
            after = {drawer: read_drawer(MemoryFiles(data), drawer) for drawer, _ in promised}
            assert all(key in after[drawer] for drawer, key in promised)

    at_once(work())


def test_an_answer_is_seen_only_once_it_is_on_file() -> None:
    async def work() -> None:
        files = MemoryFiles()
        store = await stored(files)
        putting = asyncio.create_task(store.put(DRAWER, [answer("a")]))
        while not putting.done():
            await asyncio.sleep(0.01)
            assert store.get(DRAWER, "a") is None or segments(files)
        assert store.get(DRAWER, "a") == answer("a")

    at_once(work())


def test_a_put_that_is_cancelled_takes_nobody_elses_answers_along() -> None:
    async def work() -> None:
        files = MemoryFiles()
        store = CallStore(files)
        one, other = (asyncio.create_task(store.put(DRAWER, [answer(key)])) for key in "ab")
        await asyncio.sleep(0.01)
        one.cancel()
        await other
        assert set(read_drawer(files, DRAWER)) == {"a", "b"}

    at_once(work())


def test_a_segment_s_name_proves_its_contents_and_an_older_name_proves_nothing(tmp_path: Path) -> None:
    asyncio.run(CallStore(Storage.at(tmp_path)).put(DRAWER, [answer("a")]))
    (path,) = (tmp_path / FOLDER).iterdir()
    assert path.name.endswith(f"-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.jsonl.gz")
    path.write_bytes(gzip.compress(answer("a", "Other words.").to_line(), mtime=0))
    with pytest.raises(JudgeStopped, match="its name is that of other contents"):
        read_drawer(Storage.at(tmp_path), DRAWER)
    path.rename(path.with_name(f"{path.name[:17]}01234567.jsonl.gz"))
    assert read_drawer(Storage.at(tmp_path), DRAWER) == {"a": answer("a", "Other words.")}


# ---- commits ---------------------------------------------------------------------------------------------------


def test_all_answers_of_a_moment_share_one_segment_a_drawer() -> None:
    async def work() -> None:
        files = MemoryFiles()
        store = CallStore(files)
        await asyncio.gather(*(store.put(f"train/{i % 2}", [answer(f"k{i}")]) for i in range(500)))
        assert files.writes == 2
        assert len(read_drawer(files, "train/0")) == len(read_drawer(files, "train/1")) == 250

    at_once(work())


def test_a_stream_of_answers_makes_a_few_segments_a_second() -> None:
    async def work() -> None:
        files = MemoryFiles()
        store = CallStore(files)

        async def later(number: int) -> None:
            await asyncio.sleep(number / 100)
            await store.put(DRAWER, [answer(f"k{number}")])

        await asyncio.gather(*map(later, range(1000)))
        assert len(read_drawer(files, DRAWER)) == 1000
        assert files.writes <= 41

    at_once(work())


def test_a_disk_that_fails_is_told_to_everyone_who_waits_and_nothing_counts_as_stored() -> None:
    async def work() -> None:
        files = MemoryFiles()
        store = await stored(files)
        files.full = True
        puts = (store.put(drawer, [answer(f"k{i}")]) for i, drawer in enumerate([DRAWER, "other", DRAWER, "third"]))
        told = await asyncio.gather(*puts, return_exceptions=True)
        assert [type(error) for error in told] == [OSError] * 4
        assert store.get(DRAWER, "k0") is None
        files.full = False
        await store.put(DRAWER, [answer("k0")])
        assert set(read_drawer(files, DRAWER)) == {"k0"}

    at_once(work())


def test_a_drawer_is_opened_while_answers_are_written_to_it() -> None:
    async def work() -> None:
        files = MemoryFiles()
        await CallStore(files).put(DRAWER, [answer("before")])
        store = CallStore(files)
        putting = asyncio.create_task(store.put(DRAWER, [answer("during")]))
        for _ in range(3):
            await store.open(DRAWER)
            await asyncio.sleep(0.12)
        await putting
        assert {key: store.get(DRAWER, key) for key in ("before", "during")} == read_drawer(files, DRAWER)

    at_once(work())


def test_an_answer_stored_while_its_drawer_is_being_read_is_not_lost() -> None:
    class Slow(MemoryFiles):
        def files(self, folder: str, recursive: bool = False) -> list[Entry]:
            listed = super().files(folder, recursive)
            reading.set()
            assert go_on.wait(10)
            return listed

    reading, go_on = threading.Event(), threading.Event()

    async def work() -> None:
        store = CallStore(Slow())
        opening = asyncio.create_task(store.open(DRAWER))
        await asyncio.to_thread(reading.wait, 10)
        await store.put(DRAWER, [answer("a")])
        go_on.set()
        await opening
        assert store.get(DRAWER, "a") == answer("a")

    asyncio.run(work())


# ---- closing ---------------------------------------------------------------------------------------------------


def filled(*groups: list[Answer]) -> MemoryFiles:
    """A drawer with one segment for each group, in this order."""
    files = MemoryFiles()

    async def work() -> None:
        store = CallStore(files)
        for group in groups:
            await store.put(DRAWER, group)

    at_once(work())
    assert len(segments(files)) == len(groups)
    return files


def test_closing_puts_the_segments_together_without_loss(tmp_path: Path) -> None:
    async def work() -> None:
        files = Storage.at(tmp_path)
        store = await stored(files)
        for key in "abc":
            await store.put(DRAWER, [answer(key)])
        before = read_drawer(files, DRAWER)
        await store.close(DRAWER)
        assert len(segments(files)) == 1 and read_drawer(files, DRAWER) == before
        (only,) = segments(files)
        await store.close(DRAWER)
        assert segments(files) == [only]

    asyncio.run(work())


def test_a_drawer_without_answers_is_closed_without_a_trace() -> None:
    files = MemoryFiles()

    async def work() -> None:
        await (await stored(files)).close(DRAWER)

    at_once(work())
    assert files.data == {}


def test_what_is_put_after_a_close_is_kept_too() -> None:
    files = filled([answer("a")], [answer("b")])

    async def work() -> None:
        store = await stored(files)
        late = asyncio.create_task(store.put(DRAWER, [answer("c")]))
        await asyncio.sleep(0.1)
        await store.close(DRAWER)
        await late

    at_once(work())
    assert set(read_drawer(files, DRAWER)) == {"a", "b", "c"}


class _Killed(Exception):
    pass


class Dying(MemoryFiles):
    """Dies before the change after the next `left` ones."""

    def __init__(self, data: dict[str, bytes], left: int) -> None:
        super().__init__(data)
        self.left = left

    def _live(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise _Killed

    def write(self, path: str, data: bytes) -> None:
        self._live()
        super().write(path, data)

    def delete(self, path: str) -> None:
        self._live()
        super().delete(path)


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=3), min_size=2, max_size=4), st.integers(0, 5))
def test_a_close_that_is_cut_off_anywhere_changes_no_answer_also_where_a_question_has_two(
    groups: list[list[str]], left: int
) -> None:
    whole = filled(*([answer(key, f"{i}") for key in group] for i, group in enumerate(groups)))
    before = read_drawer(whole, DRAWER)
    files = Dying(whole.data, left)

    async def work() -> None:
        store = await stored(files)
        try:
            await store.close(DRAWER)
        except _Killed:
            return

    at_once(work())
    assert read_drawer(files, DRAWER) == before
    files.left = 100
    at_once(work())
    assert read_drawer(files, DRAWER) == before and len(segments(files)) == 1


def test_of_two_answers_to_one_question_the_first_counts_for_all_readers() -> None:
    files = MemoryFiles()

    async def work() -> None:
        store = await stored(files)
        for text in ("first", "second", "third"):
            await store.put(DRAWER, [answer("a", text)])
        await asyncio.gather(*(store.put(DRAWER, [answer("b", text)]) for text in ("first", "second")))
        for reader in (store, await stored(files)):
            for key in "ab":
                assert reader.get(DRAWER, key) == answer(key, "first")

    at_once(work())


# ---- damage ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_segment_with_a_changed_byte_or_a_missing_end_is_named_or_still_says_the_same(drawn: st.DataObject) -> None:
    files = filled([answer(f"k{i}", f"text {i}") for i in range(5)])
    before = read_drawer(files, DRAWER)
    (path,) = segments(files)
    data = bytearray(files.data[path])
    at = drawn.draw(st.integers(0, len(data) - 1))
    if drawn.draw(st.booleans()):
        data = data[:at]
    else:
        data[at] ^= drawn.draw(st.integers(1, 255))
    files.data[path] = bytes(data)
    try:
        assert read_drawer(files, DRAWER) == before
    except JudgeStopped as stop:
        assert path in str(stop) and "delete it" in str(stop) and "\n" not in str(stop)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x1f", gzip.compress(b"")[:-1], b"not gzip", gzip.compress(b"[]\n"), gzip.compress(b"{}\n"),
     gzip.compress(answer("a").to_line()[:-5]), gzip.compress(b'{"usage": {}, "usd": "x"}\n'), gzip.compress(b"\xff")],
    ids=["empty", "one byte", "cut short", "no gzip", "a list", "no fields", "half a line", "other fields", "no text"],
)  # fmt: skip
def test_a_segment_that_holds_something_else_is_named_with_the_way_out(content: bytes) -> None:
    files = MemoryFiles({f"{FOLDER}/0123456789ab.jsonl.gz": content})
    with pytest.raises(JudgeStopped, match=rf"^{FOLDER}/0123456789ab\.jsonl\.gz is damaged .* delete it"):
        at_once(CallStore(files).open(DRAWER))


def test_a_damaged_segment_is_not_put_together_with_others() -> None:
    files = filled([answer("a")], [answer("b")])
    path = segments(files)[1]
    files.data[path] = files.data[path][:-3]
    before = dict(files.data)
    with pytest.raises(JudgeStopped, match=path):
        at_once(CallStore(files).close(DRAWER))
    assert files.data == before


def test_a_reader_who_is_overtaken_by_a_close_finds_all_answers() -> None:
    class Overtaken(MemoryFiles):
        def files(self, folder: str, recursive: bool = False) -> list[Entry]:
            listed = super().files(folder, recursive)
            if len(listed) > 1:
                self.data = closed.data
            return listed

    before = filled([answer("a")], [answer("b")])
    closed = MemoryFiles(before.data)
    at_once(CallStore(closed).close(DRAWER))
    assert not set(closed.data) & set(before.data)
    assert set(read_drawer(Overtaken(before.data), DRAWER)) == {"a", "b"}
