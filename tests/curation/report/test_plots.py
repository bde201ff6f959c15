"""Plots draw the numbers that were counted, the same every time, and leave the colors to the page."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene.curation.report.counts import MAX_WORDS, Counts
from nextscene.curation.report.plots import Plot, _quartiles, plots

SVG = "{http://www.w3.org/2000/svg}"


def some_counts() -> Counts:
    counts = Counts()
    counts.frames = Counter({16: 3, 40: 12, 81: 6})
    counts.short_sides = Counter({(480, False): 5, (720, True): 20, (1080, True): 1})
    counts.scene_words = Counter({7: 4, 9: 8, 12: 2})
    counts.caption_words = Counter({3: 1, MAX_WORDS: 2})
    return counts


def drawn(plot: Plot, kind: str = "bar") -> list[float]:
    """The heights of the bars that are drawn, from left to right."""
    heights = []
    for path in ET.fromstring(plot.svg).iter(f"{SVG}path"):
        if path.get("class") == kind:
            ys = [float(y) for _, y in re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", path.get("d", ""))]
            heights.append(max(ys) - min(ys))
    return heights


def test_bars_are_as_high_as_their_counts() -> None:
    lengths, sides, scenes, captions = plots(some_counts(), 16)
    assert shares(drawn(lengths)) == pytest.approx(shares([3, 12, 6]), abs=1e-4)
    assert shares(drawn(sides)) == pytest.approx(shares([0, 0, 0, 20, 1, 0, 0]), abs=1e-4)
    assert shares([*drawn(sides, "pale"), *drawn(sides)]) == pytest.approx(
        shares([0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 20, 1, 0, 0]), abs=1e-4
    )
    assert shares(drawn(scenes)) == pytest.approx(shares([4, 8, 2]), abs=1e-4)
    assert shares(drawn(captions)) == pytest.approx(shares([1, 2]), abs=1e-4)


def shares(values: list[float]) -> list[float]:
    return [value / sum(values) for value in values]


def test_words_say_what_the_bars_show() -> None:
    lengths, sides, scenes, captions = plots(some_counts(), 16)
    assert lengths.summary == "Half of the clips last 2.5 to 5.1 seconds, the middle one 2.5, the longest 5.1."
    assert sides.summary == (
        "Most common: 720 pixels, of 20 of the 26 clips that could be measured. Pale: clips that were not kept."
    )
    assert scenes.summary == "Half of the texts have 7 to 9 words, the middle one 9, the longest 12."
    assert captions.summary.endswith(f"the longest {MAX_WORDS} or more.")


def test_one_size_of_all_clips_is_said_once() -> None:
    counts = Counts()
    counts.short_sides = Counter({(720, True): 3})
    assert [plot.summary for plot in plots(counts, 16)] == ["720 pixels, of every clip that could be measured."]


def test_the_same_counts_give_the_same_bytes() -> None:
    assert plots(some_counts(), 16) == plots(some_counts(), 16)


def test_a_plot_has_no_color_style_or_script_of_its_own_and_no_id_twice() -> None:
    ids: list[str] = []
    for plot in plots(some_counts(), 16):
        root = ET.fromstring(plot.svg)
        for element in root.iter():
            assert element.tag not in {f"{SVG}style", f"{SVG}script", f"{SVG}metadata"}
            assert "style" not in element.attrib
            assert not any(re.match(r"#[0-9a-f]{6}|rgb", value) for value in element.attrib.values())
        ids += [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        assert len(set(ids)) == len(ids)
        assert not re.search(r'(?:href|src)="(?!#)', plot.svg)


def test_there_is_no_plot_of_nothing() -> None:
    assert plots(Counts(), 16) == []


@given(st.dictionaries(st.integers(0, 200), st.integers(1, 50), min_size=1))
def test_quartiles_are_numpys(counted: dict[int, int]) -> None:
    every = np.repeat(list(counted), list(counted.values()))
    expected = np.percentile(every, [25, 50, 75], method="inverted_cdf")
    assert _quartiles(Counter(counted)) == tuple(expected)
