"""Line charts as SVG that takes its colors from the page, for light and dark mode. `chart.js` shows values on hover."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from nextscene.common.page.series import Point

MAX_LINES = 6
_WIDTH, _HEIGHT = 480.0, 210.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 54.0, 8.0, 8.0, 26.0
_TICKS = 4
_LOG_FROM = 300.0
_OUTLIERS = 0.08
_BEYOND = 0.3
_CONSTANT = 1e-3
_MAX_DOTS = 40


@dataclass(frozen=True)
class Line:
    """A line of a chart. A `smoothed` one is drawn as a moving average, with the numbers themselves faintly behind."""

    name: str
    points: Sequence[Point]
    smoothed: bool = True
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart with its legend. `notes` explain the names: pairs of a name and a sentence."""

    key: str
    title: str
    lines: tuple[Line, ...]
    svg: Markup
    notes: tuple[tuple[str, str], ...] = ()


def line_chart(
    key: str,
    title: str,
    lines: Iterable[Line],
    x_name: str = "step",
    notes: Iterable[tuple[str, str]] = (),
    may_be_log: bool = False,
) -> Chart | None:
    """Return a chart of the lines that have points; None if there are none. The same numbers give the same bytes.

    With `may_be_log` the axis of values is logarithmic if they differ by orders of magnitude.
    """
    drawn = tuple(line for line in lines if line.points)[:MAX_LINES]
    if not drawn:
        return None
    return Chart(key, title, drawn, _Drawing(drawn, x_name, may_be_log).svg(title), tuple(notes))


@dataclass(frozen=True)
class _Axis:
    """A scale from numbers to a range of pixels, linear or logarithmic, and its ticks."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False
    ticks: list[float] = field(default_factory=list)

    def at(self, value: float) -> float:
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.begin + (value - low) / (high - low) * (self.end - self.begin)


class _Drawing:
    def __init__(self, lines: Sequence[Line], x_name: str, may_be_log: bool) -> None:
        self._lines, self._x_name = lines, x_name
        steps = [point.x for line in lines for point in line.points]
        first, last = min(steps), max(steps)
        if first == last:
            first, last = first - 0.5, last + 0.5
        whole = [tick for tick in _ticks(first, last, _TICKS + 1) if first <= tick <= last]
        self._x = _Axis(first, last, _LEFT, _WIDTH - _RIGHT, ticks=whole)
        self._y = _value_axis(lines, may_be_log)

    def svg(self, title: str) -> Markup:
        parts = [*self._grid(), *(part for place, line in enumerate(self._lines) for part in self._line(place, line))]
        guide = f'<line class="guide" x1="0" x2="0" y1="{_TOP:g}" y2="{_HEIGHT - _BOTTOM:g}" visibility="hidden"/>'
        return Markup(  # noqa: S704 numbers, and text that is escaped
            f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{escape(title)}" tabindex="0"'
            f' data-box="{_LEFT:g} {_WIDTH - _RIGHT:g}" data-range="{self._x.low:g} {self._x.high:g}"'
            f' data-x="{escape(self._x_name)}" data-lines="{escape(self._data())}">{"".join(parts)}{guide}</svg>'
        )

    def _data(self) -> str:
        """Return what `chart.js` shows: for each line its name, and steps with value, minimum and maximum."""
        return json.dumps(
            [
                {
                    "name": line.name,
                    "at": [[point.x, *(_short(value) for value in _shown(line, point))] for point in line.points],
                }
                for line in self._lines
            ],
            separators=(",", ":"),
        )

    def _grid(self) -> Iterable[str]:
        bottom = _HEIGHT - _BOTTOM
        for tick in self._y.ticks:
            y = self._y.at(tick)
            yield f'<line class="line" x1="{_LEFT:g}" x2="{_WIDTH - _RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text class="quiet" x="{_LEFT - 6:g}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>'
        for place, tick in enumerate(self._x.ticks):
            x = self._x.at(tick)
            anchor = "end" if x > _WIDTH - _RIGHT - 14 else "middle"
            name = f" {escape(self._x_name)}" if place == 0 and self._x_name != "step" else ""
            at = f'x="{x:.1f}" y="{bottom + 18:g}" text-anchor="{anchor}"'
            yield f'<text class="quiet" {at}>{number(tick)}{name}</text>'

    def _line(self, place: int, line: Line) -> Iterable[str]:
        color = f"s{place}"
        if line.smoothed and any(point.mean != point.smooth for point in line.points):
            yield f'<path class="raw {color}" d="{self._raw(line.points)}"/>'
        dashed = " dashed" if line.dashed else ""
        yield f'<path class="curve {color}{dashed}" d="{self._path((p.x, _shown(line, p)[0]) for p in line.points)}"/>'
        if len(line.points) == 1 or (not line.smoothed and len(line.points) <= _MAX_DOTS):
            for point in line.points:
                at = f'cx="{self._x.at(point.x):.1f}" cy="{self._y.at(point.mean):.1f}"'
                yield f'<circle class="{color}" {at} r="2.5"/>'

    def _raw(self, points: Sequence[Point]) -> str:
        return self._path((point.x, value) for point in points for value in dict.fromkeys((point.low, point.high)))

    def _path(self, places: Iterable[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{self._x.at(x):.1f} {self._y.at(y):.1f}" for x, y in places)


def _shown(line: Line, point: Point) -> tuple[float, float, float]:
    return (point.smooth if line.smoothed else point.mean), point.low, point.high


def _value_axis(lines: Sequence[Line], may_be_log: bool) -> _Axis:
    """Return the axis of the values. Single values far away from all others do not stretch it."""
    curves = [_shown(line, point)[0] for line in lines for point in line.points]
    raw = sorted(value for line in lines for point in line.points for value in (point.low, point.high))
    cut = int(len(raw) * _OUTLIERS)
    usual_low, usual_high = raw[cut], raw[-1 - cut]
    beyond = _BEYOND * (usual_high - usual_low)
    low = min(*curves, max(raw[0], usual_low - beyond))
    high = max(*curves, min(raw[-1], usual_high + beyond))
    top, bottom = _TOP, _HEIGHT - _BOTTOM
    if may_be_log and low > 0 and max(curves) / min(curves) >= _LOG_FROM:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        every = -(-len(decades) // (_TICKS + 1))
        ticks = [10.0**decade for decade in decades if decade % every == 0 and low <= 10.0**decade <= high]
        return _Axis(low, high, bottom, top, log=True, ticks=ticks)
    if high - low <= _CONSTANT * max(abs(low), abs(high)):
        low, high = low - (abs(low) * 0.1 or 0.5), high + (abs(high) * 0.1 or 0.5)
    ticks = _ticks(low, high, _TICKS)
    return _Axis(min(low, ticks[0]), max(high, ticks[-1]), bottom, top, ticks=ticks)


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round numbers that enclose the range."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [place * step for place in range(first, last + 1)]


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def number(value: float) -> str:
    """Return a number in few characters: 0.25, 1,200, 40k, 2e-06."""
    value = float(f"{value:.6g}")
    size = abs(value)
    if size >= 1e9 or 0 < size < 1e-3:
        return f"{value:.3g}"
    for limit, unit in ((1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / limit if unit == 'M' else value / 1e3:.4g}{unit}"
    return f"{value:,.4g}" if size < 1000 else f"{value:,.0f}"
