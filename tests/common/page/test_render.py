"""Rendering: our style and script are allowed, and nothing else is."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest
from selectolax.lexbor import LexborHTMLParser

from nextscene.common.page.render import clock, percent, render_page, size

TEMPLATE = """{% from "macros.html.jinja" import head with context %}<html><head>{{ head(title) }}</head>
<body>{{ text }}<script>{{ script }}</script></body></html>"""


def rendered(folder: Path, videos: bool = False) -> LexborHTMLParser:
    (folder / "page.html.jinja").write_text(TEMPLATE)
    (folder / "own.css").write_text("p { color: red; }")
    (folder / "own.js").write_text("'use strict';")
    page = render_page(
        folder,
        ("page.css", "own.css"),
        ("own.js", "chart.js"),
        videos,
        title="<b>",
        text="<img src=x onerror=alert(1)>",
    )
    return LexborHTMLParser(page)


def policy(page: LexborHTMLParser) -> dict[str, str]:
    (meta,) = page.css("meta[http-equiv]")
    return dict(part.strip().split(" ", 1) for part in (meta.attributes["content"] or "").split(";"))


@pytest.mark.parametrize(("element", "directive"), [("style", "style-src"), ("script", "script-src")])
def test_the_policy_allows_what_is_in_the_page_by_its_hash(tmp_path: Path, element: str, directive: str) -> None:
    page = rendered(tmp_path)
    (node,) = page.css(element)
    digest = base64.b64encode(hashlib.sha256(node.text().encode()).digest()).decode()
    assert policy(page)[directive] == f"'sha256-{digest}'"


def test_nothing_comes_from_elsewhere_and_videos_only_if_they_may(tmp_path: Path) -> None:
    page = policy(rendered(tmp_path))
    assert page["default-src"] == "'none'" and page["img-src"] == "data:" and "media-src" not in page
    assert policy(rendered(tmp_path, videos=True))["media-src"] == "'self'"


def test_data_is_text_and_parts_of_our_own_are_not(tmp_path: Path) -> None:
    page = rendered(tmp_path)
    assert page.css("img") == [] and page.css_first("title").text() == "<b>"
    assert re.search(r"color: red", page.css_first("style").text())


def test_numbers_in_words() -> None:
    assert [percent(share) for share in (0, 0.04, 50, 99.95, 100)] == ["0%", "< 0.1%", "50%", "> 99.9%", "100%"]
    assert [clock(seconds) for seconds in (4.25, 75, 7300)] == ["4.2 s", "1 min 15 s", "2 h 1 min"]
    assert [size(count) for count in (12, 4000, 5_300_000)] == ["12 bytes", "4.0 kB", "5.3 MB"]
