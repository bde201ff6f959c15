"""Hostile input for tests: text that cannot be stored in a file, and numbers that do not fit a column."""

from __future__ import annotations

from hypothesis import strategies as st

HALF = "\ud83d"
BYTE = "\udce9"
STEERING = "\x1b[31mred\x1b[0m \u202eback\u202c \r\x07"
NASTY = (HALF, BYTE, "\0", STEERING, "\x85", "\ufffe", "é中🎬", "x" * 5000, "</script>", "|\n|", "-->")

texts = st.text(
    st.one_of(st.characters(), st.sampled_from("\ud83d\udce9\0\x1b\u202e\n")), max_size=30
) | st.sampled_from(NASTY)
integers = st.integers() | st.sampled_from([2**63, -(2**63) - 1, 10**400, -1])
floats = st.floats() | st.sampled_from([float("nan"), float("inf"), -1.0, 1e300])
