"""Histograms as SVG that takes its colors from the page, for light and dark mode."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from xml.etree import ElementTree as ET

from markupsafe import Markup
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nextscene.curation.report.counts import MAX_WORDS, Counts

# Plots are drawn in these placeholder colors, which then become classes that page.css gives a color.
_COLORS = {"#000001": "ink", "#000002": "quiet", "#000003": "line", "#000004": "bar", "#000005": "pale"}
_INK, _QUIET, _LINE, _BAR, _PALE = _COLORS
_STYLE: dict[str, str | float | bool] = {
    "svg.fonttype": "none",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _QUIET,
    "text.color": _INK,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
    "ytick.major.size": 0.0,
}
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_KEPT_ATTRIBUTES = frozenset(
    "fill stroke stroke-width stroke-linecap stroke-linejoin stroke-dasharray opacity text-anchor font-size".split()
)
_WORD_BINS = 40
_LENGTH_BINS = 20
_SIDES = (0, 360, 480, 720, 1080, 1440, 2160)


@dataclass(frozen=True)
class Plot:
    """One figure: the SVG, its title, and a summary of it in words."""

    title: str
    summary: str
    svg: Markup


def plots(counts: Counts, fps: int) -> list[Plot]:
    """Return plots of the distributions that have data. The same counts give the same bytes."""
    with style.context(["default", _STYLE]):  # without the user's own style
        found = [
            _lengths(counts.frames, fps),
            _short_sides(counts.short_sides),
            _words("Words in the scene", counts.scene_words),
            _words("Words in the caption", counts.caption_words),
        ]
    return [plot for plot in found if plot]


def _lengths(frames: Counter[int], fps: int) -> Plot | None:
    if not frames:
        return None
    title = "Length of a clip"
    longest = max(frames) / fps
    width = max(1, round(max(frames) / _LENGTH_BINS))
    bins: Counter[int] = Counter()
    for value, clips in frames.items():
        bins[(value - 1) // width] += clips
    svg = _histogram(
        [(place * width / fps, clips) for place, clips in sorted(bins.items())], width / fps, "seconds", title
    )
    low, middle, high = (f"{value / fps:.1f}" for value in _quartiles(frames))
    summary = f"Half of the clips last {low} to {high} seconds, the middle one {middle}, the longest {longest:.1f}."
    return Plot(title, summary, svg)


def _words(title: str, counted: Counter[int]) -> Plot | None:
    if not counted:
        return None
    width = -(-(max(counted) + 1) // _WORD_BINS)
    bins: Counter[int] = Counter()
    for value, texts in counted.items():
        bins[value // width] += texts
    svg = _histogram([(place * width - 0.5, texts) for place, texts in sorted(bins.items())], width, "words", title)
    low, middle, high = _quartiles(counted)
    longest = f"{MAX_WORDS} or more" if counted[MAX_WORDS] else f"{max(counted)}"
    return Plot(
        title, f"Half of the texts have {low} to {high} words, the middle one {middle}, the longest {longest}.", svg
    )


def _short_sides(sides: Counter[tuple[int, bool]]) -> Plot | None:
    if not sides:
        return None
    kept, others = [0] * len(_SIDES), [0] * len(_SIDES)
    for (side, is_kept), clips in sides.items():
        place = sum(side >= edge for edge in _SIDES) - 1
        (kept if is_kept else others)[place] += clips
    title = "Shorter side of the source"
    places = range(len(_SIDES))
    figure, axes = _axes()
    axes.bar(places, kept, 0.9, align="edge", color=_BAR)
    axes.bar(places, others, 0.9, bottom=kept, align="edge", color=_PALE)
    axes.set_xticks(places, [f"{edge:,}" for edge in _SIDES])
    axes.set_xlim(0, len(_SIDES))
    axes.set_xlabel("pixels")
    of_side: Counter[int] = Counter()
    for (side, _), clips in sides.items():
        of_side[side] += clips
    common = max(of_side, key=lambda side: (of_side[side], -side))
    measured = of_side.total()
    summary = (
        f"Most common: {common:,} pixels, of {of_side[common]:,} of the {measured:,} clips that could be measured."
    )
    if len(of_side) == 1:
        summary = f"{common:,} pixels, of every clip that could be measured."
    if any(others):
        summary += " Pale: clips that were not kept."
    return Plot(title, summary, _svg(figure, title))


def _histogram(bins: Sequence[tuple[float, int]], width: float, unit: str, name: str) -> Markup:
    figure, axes = _axes()
    axes.bar([left for left, _ in bins], [count for _, count in bins], width * 0.9, align="edge", color=_BAR)
    axes.set_xlim(left=min(0.0, bins[0][0]))
    axes.set_xlabel(unit)
    return _svg(figure, name)


def _quartiles(counted: Counter[int]) -> tuple[int, int, int]:
    """Return the lower quartile, the median and the upper quartile; each is a value that was counted."""
    values = sorted(counted)
    sums = list(accumulate(counted[value] for value in values))
    low, middle, high = (
        next(value for value, upto in zip(values, sums, strict=True) if 4 * upto >= part * sums[-1])
        for part in (1, 2, 3)
    )
    return low, middle, high


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.8, 2.1), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(axis="y", color=_LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_title("clips", loc="left", fontsize=10, color=_QUIET)
    return figure, axes


def _svg(figure: Figure, name: str) -> Markup:
    file = io.StringIO()
    with style.context({"svg.hashsalt": name}):  # makes ids that differ from those of the page's other figures
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(file.getvalue())


def _for_page(svg: str) -> Markup:
    """Return the figure without style sheets, fixed colors and unused ids. The page's policy forbids style sheets."""
    root = ET.fromstring(svg)  # noqa: S314 matplotlib wrote it, from numbers
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in {f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"}:
                parent.remove(child)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))
    for element in root.iter():
        _plain_attributes(element, used)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.set("aria-hidden", "true")
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 matplotlib wrote it, from numbers


def _plain_attributes(element: ET.Element, used: set[str]) -> None:
    style = element.attrib.pop("style", "")
    for declaration in filter(None, (part.strip() for part in style.split(";"))):
        name, _, value = (piece.strip() for piece in declaration.partition(":"))
        if name == "font":
            name, value = "font-size", value.split()[0]
        if name in _KEPT_ATTRIBUTES:
            element.set(name, value)
    for name in ("fill", "stroke"):
        if found := _COLORS.get(element.get(name, "")):
            element.set(name, "currentColor")
            element.set("class", found)
    if element.get("id") not in used:
        element.attrib.pop("id", None)
