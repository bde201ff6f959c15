"""Rendering of a page: one HTML file that loads nothing from outside; its content security policy forbids that."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_SHARED = Path(__file__).parent
_UNITS = ("kB", "MB", "GB", "TB")


def render_page(folder: Path, styles: Iterable[str], scripts: Iterable[str], videos: bool = False, **data: Any) -> str:
    """Return `page.html.jinja` of `folder` with `data`, as text. The same data give the same page.

    `styles` and `scripts` name files in `folder` or among the shared parts, which the page gets in this order. With
    `videos` the page may play video files that lie beside it or below.
    """
    environment = Environment(
        loader=FileSystemLoader([folder, _SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "clock": clock, "size": size}
    style, script = _assets(folder, styles), _assets(folder, scripts)
    return environment.get_template("page.html.jinja").render(
        **data, style=style, script=script, policy=_policy(style, script, videos)
    )


def _assets(folder: Path, names: Iterable[str]) -> Markup:
    paths = (folder / name if (folder / name).exists() else _SHARED / name for name in names)
    return Markup("".join(path.read_text("utf-8") for path in paths))  # noqa: S704 our own files, hashed in the policy


def _policy(style: str, script: str, videos: bool) -> str:
    """Return the content security policy: only our own style and script, pictures only from the page itself."""
    allowed = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": _hash(style),
        "script-src": _hash(script),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    if videos:
        allowed["media-src"] = "'self'"
    return "; ".join(f"{directive} {source}" for directive, source in allowed.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def percent(share: float) -> str:
    """Return a percentage as text. A share that is only nearly 0 % or 100 % is not rounded to that."""
    if 0 < share < 0.1:
        return "< 0.1%"
    if 99.9 < share < 100:
        return "> 99.9%"
    return f"{share:.1f}%".replace(".0%", "%")


def clock(seconds: float) -> str:
    """Return a duration in seconds as readable text."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{seconds:.1f} s"


def size(count: int) -> str:
    """Return a number of bytes as readable text."""
    if count < 1000:
        return f"{count:,} bytes"
    power = min((len(str(count)) - 1) // 3, len(_UNITS))
    return f"{count / 1000**power:,.1f} {_UNITS[power - 1]}"
