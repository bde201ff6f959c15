"""Chromium for tests of pages: what went wrong on a page, and what it fetched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")


def executable(playwright: Playwright) -> str:
    """Playwright's own Chromium, or one of the system."""
    own = playwright.chromium.executable_path
    found = own if Path(own).exists() else next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser: neither Playwright's own nor any of {', '.join(NAMES)}")
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(playwright))
        yield browser
        browser.close()


@dataclass
class Shown:
    """A page in a window, and all that went wrong or over the network since it was opened."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def is_no_wider_than(self, width: int) -> bool:
        """Whether everything fits, with all details open."""
        self.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        return bool(self.page.evaluate("document.documentElement.scrollWidth") <= width)


PLAYS = """(video) => new Promise((done) => {
  const look = () => (video.currentTime > 0 ? done(true) : setTimeout(look, 50));
  look();
})"""
"""Script that waits until a video plays. Playwright's own waiting evaluates text, which the pages' policy forbids."""


@contextmanager
def show(browser: Browser, file: Path, width: int) -> Iterator[Shown]:
    page = browser.new_page(viewport={"width": width, "height": 800})
    shown = Shown(page)
    page.on("console", lambda message: shown.complaints.append(message.text))
    page.on("pageerror", lambda error: shown.complaints.append(str(error)))
    page.on("dialog", lambda dialog: shown.complaints.append(dialog.message))
    page.on("requestfailed", lambda asked: shown.complaints.append(asked.url[:80]))
    page.on("request", lambda asked: shown.fetched.append(asked.url[:200]))
    page.goto(file.as_uri())
    yield shown
    page.close()


def luminance(color: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, as WCAG 2 defines it."""
    channels = [int(part) / 255 for part in color.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """Contrast of two colors, as WCAG 2 defines it."""
    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)
