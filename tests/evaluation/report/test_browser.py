"""The page of an evaluation in a real browser, on a desk and on a phone: it is sorted, filtered, and plays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from nextscene.common.storage import Storage
from nextscene.evaluation.report.make import write_evaluation_report
from nextscene.shards.format.layout import REPORT
from tests.browser import Shown, chromium, show

pytestmark = pytest.mark.slow

WIDTHS = (1280, 420)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(params=WIDTHS)
def shown(browser: Browser, evaluated: Path, request: pytest.FixtureRequest) -> Iterator[Shown]:
    write_evaluation_report(Storage.at(evaluated))
    with show(browser, evaluated / REPORT, request.param) as shown:
        yield shown
    assert shown.complaints == []


def numbers(shown: Shown) -> list[int]:
    cards = shown.page.locator(".scene-card:not([hidden])")
    return [int(card.get_attribute("data-number") or "") for card in cards.all()]


def test_nothing_is_fetched_but_the_page_and_nothing_is_wider_than_the_window(shown: Shown, evaluated: Path) -> None:
    assert shown.is_no_wider_than(shown.page.evaluate("window.innerWidth"))
    for image in shown.page.locator("img").all():
        image.scroll_into_view_if_needed()
    assert [url for url in shown.fetched if not url.startswith("data:image/jpeg")] == [(evaluated / REPORT).as_uri()]


def test_scenes_are_sorted_as_one_likes(shown: Shown) -> None:
    order = shown.page.locator("select[name=by]")
    assert numbers(shown) == [1, 2, 0, 3]
    for choice, expected in {
        "number": [0, 1, 2, 3],
        "worst 0": [2, 0, 1, 3],
        "best 1": [0, 2, 3, 1],
        "difference": [1, 2, 0, 3],
    }.items():
        order.select_option(choice)
        assert numbers(shown) == expected, choice


def test_scenes_are_filtered_and_searched(shown: Shown) -> None:
    which = shown.page.locator("select[name=which]")
    which.select_option("differ")
    assert numbers(shown) == [1, 2]
    which.select_option("missing")
    assert numbers(shown) == [3]
    which.select_option("")
    shown.page.get_by_role("searchbox").fill("GLASS wobbles")
    assert numbers(shown) == [0] and shown.page.locator("#matches").inner_text() == "1 of 4"
    shown.page.get_by_role("searchbox").fill("nothing has this")
    assert shown.page.locator("#nothing").is_visible()


def test_videos_play_side_by_side(shown: Shown) -> None:
    card = shown.page.locator(".scene-card").first
    for button in card.locator(".play").all()[::-1]:
        button.click()
    shown.page.wait_for_function(
        "[...document.querySelectorAll('video')].filter((v) => v.currentTime > 0).length === 2"
    )
