"""Flags of the commands that generate videos, and reading of files of scenes.

Tested in tests/pipelines/test_generate.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from nextscene.common.config_loader import leaves
from nextscene.common.errors import UsageError
from nextscene.common.text import many
from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.options import Finite, in_toml, setting_option
from nextscene.training.generation.base import ORIGINAL_FPS, Sampling

F = TypeVar("F", bound=Callable[..., Any])

MOST_SEED = 2**63 - 1
SAMPLES, _SIDE = click.IntRange(1, 10_000), click.IntRange(1, 16_384)
_LONGEST_SCENE = 16 << 10
"""In bytes: several times the longest text that a model reads."""
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")

_TYPES = {
    "frames": click.IntRange(1, 100_000),
    "width": _SIDE,
    "height": _SIDE,
    "fps": Finite(1, 240),
    "steps": click.IntRange(2),
    "guidance": Finite(1),
}
_AS_TRAINED = ("frames", "width", "height")


def sampling_options(command: F) -> F:
    """Add --batch and the flags of `Sampling` to a command. Flags of `Sampling` that are not given are None."""
    for one in reversed(list(leaves(Sampling))):
        default = in_toml(one.default)
        if one.name in _AS_TRAINED:
            default = f"as it was trained, else {default}"
        elif one.name == "fps":
            default = f"{default}; {in_toml(ORIGINAL_FPS)} for the original LTX-Video"
        command = setting_option(one, _TYPES[one.name], default)(command)
    batch = click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Videos made at once.")
    return batch(command)


def scenes_in(flag: str, file: Path) -> list[str]:
    """Return a scene for each line of the file. Skip blank lines, and print how many there were.

    Raise UsageError if the file is not UTF-8, contains no scene, or has a line that cannot be a scene.
    """
    data = file.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = ", but in UTF-16" if data.startswith(_UTF_16) else ""
        raise UsageError(f"{flag} {file} is not text in UTF-8{what}; save it as UTF-8") from error
    lines = [line.strip() for line in text.rstrip().split("\n")]
    for number, line in enumerate(lines, 1):
        if wrong := wrong_with(line):
            raise UsageError(f"{flag} {file}: line {number} {wrong}; give one scene on each line")
    scenes = list(filter(None, lines))
    if not scenes:
        raise UsageError(f"{flag} {file} holds no scene; give one on each line")
    if blank := len(lines) - len(scenes):
        console.err.print(f"{flag} {file}: {many(blank, 'blank line')} skipped", markup=False)
    return scenes


def wrong_with(scene: str) -> str:
    """Return a phrase that says why a text cannot be a scene; "" if it can."""
    if "\0" in scene:
        return "holds a zero byte, and is not text"
    size = len(scene.encode())
    return f"has {size:,} bytes, and {_LONGEST_SCENE:,} are the most" if size > _LONGEST_SCENE else ""
