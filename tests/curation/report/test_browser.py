"""The page in a real browser, on a desk and on a phone: nothing fails, nothing is fetched, filters work by keyboard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from nextscene.shards.format.layout import REPORT
from tests.browser import Shown, chromium, contrast, luminance, show
from tests.curation.report.made import Made

pytestmark = pytest.mark.slow

WIDTHS = (1280, 390)
RIGHTMOST = "(card) => Math.max(...[...card.querySelectorAll('*')].map((part) => part.getBoundingClientRect().right))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def visible(shown: Shown) -> list[str]:
    """The ids of the clips that are shown."""
    cards = shown.page.locator(".card:not([hidden])")
    return [card.get_attribute("data-clip") or "" for card in cards.all()]


@pytest.fixture(params=WIDTHS)
def shown(browser: Browser, made: Made, request: pytest.FixtureRequest) -> Iterator[Shown]:
    with show(browser, made.out / REPORT, request.param) as shown:
        yield shown


def test_nothing_complains_and_nothing_is_fetched_but_the_page(shown: Shown, made: Made) -> None:
    for image in shown.page.locator("img").all():
        image.scroll_into_view_if_needed()
    assert (
        shown.page.evaluate("Promise.all([...document.images].map((i) => i.decode())).then((all) => all.length)") > 20
    )
    assert shown.complaints == []
    assert [url for url in shown.fetched if not url.startswith("data:image/jpeg")] == [(made.out / REPORT).as_uri()]


def test_nothing_is_wider_than_the_window(shown: Shown) -> None:
    for details in shown.page.locator("details").all():
        details.evaluate("(element) => { element.open = true; }")
    width = shown.page.evaluate("window.innerWidth")
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
    # Cards that are off the screen are not laid out until then.
    for card in shown.page.locator(".card").all():
        card.scroll_into_view_if_needed()
        assert (
            card.evaluate(
                "(c) => Math.max(...[...c.querySelectorAll('*')].map((e) => e.getBoundingClientRect().right))"
            )
            <= width
        )


def test_a_search_shows_the_clips_that_hold_every_word_of_it(shown: Shown, made: Made) -> None:
    shown.page.get_by_role("searchbox").fill("CLIP  fail1")
    expected = {row.clip_id for row in made.rows if "FAIL1" in row.caption}
    assert set(visible(shown)) == expected
    assert shown.page.locator("#matches").inner_text() == f"{len(expected)} of {len(made.rows)}"
    shown.page.get_by_role("searchbox").fill("no clip says this")
    assert visible(shown) == []
    assert shown.page.locator("#nothing").is_visible()
    shown.page.get_by_role("button", name="Show all").click()
    assert len(visible(shown)) == len(made.rows)


@pytest.mark.parametrize("column", ["outcome", "reason", "split", "source"])
def test_a_filter_shows_the_clips_of_that_kind(shown: Shown, made: Made, column: str) -> None:
    choice = shown.page.locator(f"select[name={column}]")
    for value in {getattr(row, column) for row in made.rows} - {""}:
        choice.select_option(value)
        assert set(visible(shown)) == {row.clip_id for row in made.rows if getattr(row, column) == value}


def test_the_filters_can_be_reached_and_used_by_keyboard(shown: Shown, made: Made) -> None:
    shown.page.get_by_role("searchbox").focus()
    shown.page.keyboard.press("Tab")
    shown.page.keyboard.type("d")  # more letters count as one word only if they come fast
    assert set(visible(shown)) == {row.clip_id for row in made.rows if row.outcome == "dropped"}
    for _ in range(4):
        shown.page.keyboard.press("Tab")
    shown.page.keyboard.press("Enter")
    assert len(visible(shown)) == len(made.rows)


def test_a_caption_that_is_script_is_read_and_not_run(shown: Shown, made: Made) -> None:
    clip_id = next(row.clip_id for row in made.rows if "<script>" in row.caption)
    card = shown.page.locator(f"[data-clip='{clip_id}']")
    assert card.locator(".caption").text_content() == "<script>alert('caption')</script>"
    assert shown.complaints == []


def test_without_javascript_counts_and_clips_are_there(browser: Browser, made: Made) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((made.out / REPORT).as_uri())
    assert page.locator("#outcomes").is_visible()
    assert page.locator("#sum").inner_text().endswith(f"= {len(made.rows)} planned.")
    assert page.locator(".card").count() == len(made.rows)
    assert not page.locator("#filters").is_visible()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_plots_stand_out_from_the_paper(browser: Browser, made: Made, scheme: str) -> None:
    page = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto((made.out / REPORT).as_uri())
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(paper) > 0.5) == (scheme == "light")
    for selector in ("body", ".note", ".plot text", ".plot .bar", ".card .caption", ".card .place", ".card .ended"):
        color = page.locator(selector).first.evaluate("(element) => getComputedStyle(element).color")
        assert contrast(paper, color) >= 4.5, selector
    page.close()
