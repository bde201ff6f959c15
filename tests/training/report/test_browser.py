"""The page of a run in a real browser, on a desk and on a phone: charts are read, groups opened, videos played."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from nextscene.common.storage import Storage
from nextscene.shards.format.layout import REPORT
from nextscene.training.report.make import write_run_report
from tests.browser import PLAYS, Shown, chromium, contrast, luminance, show

pytestmark = pytest.mark.slow

WIDTHS = (1280, 420)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(params=WIDTHS)
def shown(browser: Browser, run: Path, request: pytest.FixtureRequest) -> Iterator[Shown]:
    write_run_report(Storage.at(run))
    with show(browser, run / REPORT, request.param) as shown:
        yield shown
    assert shown.complaints == []


def test_nothing_is_fetched_but_the_page_and_nothing_is_wider_than_the_window(shown: Shown, run: Path) -> None:
    width = shown.page.evaluate("window.innerWidth")
    assert shown.is_no_wider_than(width)
    for image in shown.page.locator("img").all():
        image.scroll_into_view_if_needed()
    assert shown.page.evaluate("Promise.all([...document.images].map((i) => i.decode())).then((a) => a.length)") > 20
    assert [url for url in shown.fetched if not url.startswith("data:image/jpeg")] == [(run / REPORT).as_uri()]


def test_a_chart_tells_its_numbers_under_the_pointer_and_by_keys(shown: Shown) -> None:
    chart = shown.page.locator(".chart[data-chart='sft-loss']")
    reading = chart.locator(".reading")
    chart.locator("svg").scroll_into_view_if_needed()
    box = chart.locator("svg").bounding_box()
    assert box
    shown.page.mouse.move(box["x"] + box["width"] - 10, box["y"] + box["height"] / 2)
    assert reading.inner_text().startswith("step 40: loss 0.0")
    shown.page.mouse.move(5, 5)
    assert reading.inner_text() == ""
    chart.locator("svg").focus()
    shown.page.keyboard.press("ArrowLeft")
    assert reading.inner_text().startswith("step 39: loss")


def test_a_video_is_fetched_once_it_is_to_be_played_and_plays(shown: Shown, run: Path) -> None:
    strip = shown.page.locator(".film-card").nth(1)
    strip.locator(".play").nth(1).click()
    assert shown.page.locator("video").evaluate(PLAYS)
    assert shown.page.evaluate(
        "[document.querySelector('video').videoWidth, document.querySelector('video').loop]"
    ) == [32, True]
    key = strip.get_attribute("data-key")
    assert (run / f"sft/samples/step-0/{key}.mp4").as_uri() in shown.fetched


def test_a_video_that_is_not_beside_the_page_is_named(browser: Browser, run: Path, tmp_path: Path) -> None:
    write_run_report(Storage.at(run))
    (tmp_path / REPORT).write_bytes((run / REPORT).read_bytes())
    with show(browser, tmp_path / REPORT, 1280) as alone:
        alone.page.locator(".play").first.click()
        alone.page.get_by_text("The video is not beside this page.").wait_for()


def test_a_group_opens_and_its_candidates_are_sorted(shown: Shown) -> None:
    group = shown.page.locator("details.group").first
    assert not group.locator(".candidates").is_visible()
    group.locator("summary").first.click()
    assert group.locator(".candidates").is_visible()
    numbers = "(list) => [...list.children].map((card) => Number(card.dataset.number))"
    assert group.locator(".candidates").evaluate(numbers) == [0, 3, 1, 4, 5, 2]
    shown.page.locator("select[name=by]").select_option("number")
    assert group.locator(".candidates").evaluate(numbers) == [0, 1, 2, 3, 4, 5]
    shown.page.locator("select[name=by]").select_option("advantage")
    assert group.locator(".candidates").evaluate(numbers) == [0, 3, 1, 4, 5, 2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_curves_stand_out_from_the_paper(browser: Browser, run: Path, scheme: str) -> None:
    write_run_report(Storage.at(run))
    page = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto((run / REPORT).as_uri())
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(paper) > 0.5) == (scheme == "light")
    for selector, least in {"body": 4.5, ".chart text": 4.5, ".legend": 4.5, ".film-label": 4.5, ".curve": 3.0}.items():
        color = page.locator(selector).first.evaluate("(element) => getComputedStyle(element).color")
        assert contrast(paper, color) >= least, selector
    page.close()
