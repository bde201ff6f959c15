"""Where the commands of the trainer write: a local folder, apart from the data."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from curation.errors import UsageMistake
from shards.layout import CONFIG, MANIFEST
from shards.location import lies_in
from shards.mark import check
from shards.storage import BadLocation, Storage


class Place(click.Path):
    """A local path to write to, which neither an address is nor a variable that the shell did not know."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value).strip():
            self.fail("it is empty; name a place", param, ctx)
        if "://" in str(value):
            self.fail(f"{value} is no local folder; name one, and copy it from there", param, ctx)
        try:
            return super().convert(Path(value).expanduser(), param, ctx)
        except RuntimeError as error:
            self.fail(f"{value}: {error}", param, ctx)


def located(flag: str, location: str | Path) -> Storage:
    """Raises UsageMistake for a location that cannot be one."""
    try:
        return Storage.at(location)
    except BadLocation as mistake:
        raise UsageMistake(f"{flag} {mistake}") from mistake


def check_out(out: str | Path, kind: str, *data: str, but: str = "") -> None:
    """Early, before anything is loaded: raises NotOurs where --out cannot be claimed as one of `kind`, UsageMistake
    where it is --data or lies in it, since a dataset holds nothing else, `but` in that one place.
    """
    place = located("--out", out)
    for location in data:
        dataset = located("--data", location)
        if lies_in(place, dataset) and not (but and lies_in(place, Storage.at(but))):
            raise UsageMistake(f"--out {place.shown} lies inside --data {dataset.shown}; name a folder elsewhere")
    check(place, kind)


def check_writable(folder: Path) -> None:
    """For a single file: makes its folder where there is none. Raises UsageMistake where it cannot be written to, or a
    dataset lies there.
    """
    if (folder / CONFIG).exists() or (folder / MANIFEST).exists():
        raise UsageMistake(f"--out {folder} holds a dataset; name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageMistake(f"--out: {folder} cannot be written to: {error.strerror}") from error
