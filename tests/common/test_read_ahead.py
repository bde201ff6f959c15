"""Reading ahead: the same bytes, few requests for short parts, and few bytes for long ones."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.common.read_ahead import ReadAhead

KIB = 1 << 10


class Counted(io.BytesIO):
    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.requests, self.bytes = 0, 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.requests, self.bytes = self.requests + 1, self.bytes + len(data)
        return data


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300_000), st.integers(0, 5000)), max_size=20))
def test_bytes_are_those_of_the_file(reads: list[tuple[int, int]]) -> None:
    data = bytes(range(251)) * 1200
    file = ReadAhead(io.BytesIO(data), len(data))
    for offset, size in reads:
        file.seek(offset)
        assert file.read(size) == data[offset : offset + size]


@pytest.mark.parametrize(
    ("part", "count", "most_requests", "most_share"),
    [(48 * KIB, 2000, 11, 1.01), (10 * KIB, 2000, 6, 1.01), (300 * KIB, 300, 301, 0.05), (2048 * KIB, 40, 41, 0.05)],
)
def test_headers_cost_few_requests_or_few_bytes(part: int, count: int, most_requests: int, most_share: float) -> None:
    data = Counted(bytes(part * count))
    file = ReadAhead(data, part * count)
    for number in range(count):
        file.seek(number * part)
        file.read(512)
    assert data.requests <= most_requests and data.bytes <= most_share * part * count + 64 * KIB
