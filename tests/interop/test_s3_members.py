"""Archives in an object store: listed by few requests, few bytes of long members, and read in place."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nextscene.common.storage import Storage
from nextscene.curation.sources.members import Member, archives
from tests.curation.sources.members.reading import contents, listed_until_damage
from tests.faults.object_store import CREDENTIALS, Fate, Store, store

pytestmark = pytest.mark.slow


class Place:
    """A folder in a store, whose requests are counted."""

    def __init__(self, made: Store) -> None:
        self._store = made
        self.direct = Storage.at(made.uri("a"))
        self.counted = Storage.at(made.through_proxy("a"))
        self.requests: list[str] = []

        def note(method: str, path: str) -> Fate:
            self.requests.append(method)
            return ""

        made.proxy.fate = note

    def listed(self, location: str) -> list[Member]:
        self.requests.clear()
        found, bad = listed_until_damage(self.counted, location)
        assert bad is None
        return found


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        with store() as made:
            yield Place(made)


def zipped(count: int, size: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(count):
            archive.writestr(f"OpenVid_part0/{number:08}_with_a_long_name.mp4", bytes(size))
    return out.getvalue()


def tarred(count: int, size: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(count):
            for suffix, length in ((".mp4", size), (".txt", 300)):
                info = tarfile.TarInfo(f"{number:06}{suffix}")
                info.size = length
                tar.addfile(info, io.BytesIO(bytes(length)))
    return out.getvalue()


@pytest.mark.parametrize(("count", "size"), [(3, 10), (3, 1 << 20), (30_000, 100)])
def test_a_zip_is_listed_by_four_requests(count: int, size: int, place: Place) -> None:
    place.direct.write("a.zip", zipped(count, size))
    assert len(place.listed("a.zip")) == count
    assert len(place.requests) <= 4


def test_a_tar_of_short_members_is_listed_by_a_request_for_100_samples(place: Place) -> None:
    place.direct.write("a.tar", tarred(3000, 30_000))
    assert len(place.listed("a.tar")) == 6000
    assert len(place.requests) <= 30


def test_a_tar_of_long_members_is_listed_by_a_request_for_each(place: Place) -> None:
    place.direct.write("a.tar", tarred(40, 2 << 20))
    assert len(place.listed("a.tar")) == 80
    assert len(place.requests) <= 44


def test_members_are_read_in_place_and_in_pieces(place: Place) -> None:
    data = {f"{number}.mp4": os.urandom(200_000) for number in range(5)}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number, (name, content) in enumerate(data.items()):
            archive.writestr(name, content, zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED)
    for mark, begin, end in (("aa", 0, 300_000), ("ab", 300_000, 600_000), ("ac", 600_000, None)):
        place.direct.write(f"p/x_part{mark}", out.getvalue()[begin:end])
    (location,) = archives(place.direct, ["p/*"])
    found = place.listed(location)
    assert {one.name: contents(place.direct, one) for one in found} == data
    assert len(place.requests) <= 12


def test_a_folder_in_a_store_is_searched_as_one_on_a_disk(place: Place, tmp_path: Path) -> None:
    for name in ("s/a.zip", "s/b/c.tar.split.000", "s/b/c.tar.split.001", "s/b/d.txt"):
        place.direct.write(name, b"x")
        Storage.at(tmp_path).write(name, b"x")
    for patterns in (["s/**/*"], ["s/*/c*"], ["s/a.zip", "s/b/*"]):
        assert archives(place.direct, patterns) == archives(Storage.at(tmp_path), patterns)
