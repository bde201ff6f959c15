"""Excerpts of texts that are too long for a page. Tested in tests/curation/report/test_page.py."""

from __future__ import annotations

from dataclasses import dataclass

MAX_TEXT = 1500


@dataclass(frozen=True)
class Excerpt:
    """The beginning of a text, and the number of its characters that the page leaves out."""

    text: str
    left_out: int = 0

    @staticmethod
    def of(text: str, most: int = MAX_TEXT) -> Excerpt:
        if len(text) <= most:
            return Excerpt(text)
        return Excerpt(text[:most].rstrip(), len(text) - most)
