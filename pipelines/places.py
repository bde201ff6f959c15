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
from shards.storage import Storage


class Place(click.Path):
    """A local path to write to, which neither an address is nor a variable that the shell did not know."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value).strip():
            self.fail("it is empty; name a place", param, ctx)
        if "://" in str(value):
            self.fail(f"{value} is no local folder; name one, and copy it from there", param, ctx)
        return super().convert(value, param, ctx)


def check_out(out: str | Path, kind: str, *data: str) -> None:
    """Early, before anything is loaded: raises NotOurs where --out cannot be claimed as one of `kind`, UsageMistake
    where it is --data or lies in it, since a dataset holds nothing else.
    """
    place = Storage.at(out)
    for dataset in map(Storage.at, data):
        if lies_in(place, dataset):
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
