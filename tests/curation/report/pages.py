"""Reading a page back with a parser that follows the HTML standard, and making rows to order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selectolax.lexbor import LexborHTMLParser, LexborNode

from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.ledger import Row
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.report.make import write_report
from nextscene.curation.sources import Source
from nextscene.shards.format.layout import REPORT

HOSTILE = (
    "<script>alert('caption')</script>",
    "\"><img src=x onerror=alert('quote')>",
    "</title></style></script><svg onload=alert(1)>",
    "' onmouseover='alert(2)",
    "{{ 7 * 7 }} {% raw %} &lt;b&gt; &amp;",
    "separators \u2028 and \u2029, a bell \x07, an override \u202e ton",
    "ארנב גדול עומד באחו צהוב 🐇",
    "x" * 10_000,
    "long words " * 900,
)
"""Captions that would break out of an element, an attribute, a script or a line, and of every size."""


def row(number: int, outcome: str = "kept", reason: str = "", **values: Any) -> Row:
    """A row of a made-up ledger, another clip for each number; units of 512 rows, 16 of them a shard."""
    plain: dict[str, Any] = {
        "position": number,
        "clip_id": f"{number * 0x9E3779B97F4A7C15 % 2**96:024x}",
        "split": "train",
        "unit": number // 512,
        "shard": number // 8192,
        "source": "film.mp4",
        "start_ms": 1000 * number,
        "end_ms": 1000 * number + 1000,
        "outcome": outcome,
        "reason": reason,
        "caption": f"caption {number}",
    }
    return Row(**{**plain, **values})


def report(out: Path | str, config: BuildConfig, source: Path | str | None = None) -> Page:
    """The page that is written about OUT."""
    place = Storage.at(out)
    recorded = RecordedConfig.read(place)
    assert recorded is not None
    write_report(place, config, recorded.fingerprint, Source.at(str(source)).root if source else None)
    return Page(place.read(REPORT).decode())


class Page:
    """A report, parsed."""

    def __init__(self, html: str) -> None:
        self.html = html
        self.tree = LexborHTMLParser(html)

    def nodes(self, selector: str) -> list[LexborNode]:
        return self.tree.css(selector)

    def text(self, selector: str) -> str:
        """The text of the one element that a selector finds, white space folded."""
        (node,) = self.nodes(selector)
        return folded(node)

    def outcomes(self) -> dict[tuple[str, str], int]:
        """(outcome, reason) → clips, as the table shows them."""
        found = {}
        for line in self.nodes("#outcomes tbody tr"):
            outcome, _, clips, _ = (folded(cell) for cell in line.css("td"))
            found[outcome, line.attributes["data-reason"] or ""] = int(clips.replace(",", ""))
        return found

    def number(self, selector: str) -> float:
        return float(self.text(selector).replace(",", "").removeprefix("$"))

    def rounds(self) -> dict[str, int]:
        lines = ([folded(cell) for cell in line.css("th, td")] for line in self.nodes("#rounds tr"))
        return {name: int(clips.replace(",", "")) for name, _, clips in lines}

    def cards(self) -> dict[str, LexborNode]:
        """Clip id → its card."""
        return {card.attributes["data-clip"] or "": card for card in self.nodes(".card")}


def folded(node: LexborNode) -> str:
    return " ".join(node.text().split())


def pictures(card: LexborNode) -> int:
    return len(card.css("img"))
