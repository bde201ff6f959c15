"""Where the commands of the trainer write: a local folder, apart from the data.

Tested in tests/pipelines/test_wrong_models.py.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import click

from nextscene.common.errors import UsageError
from nextscene.common.location import is_inside
from nextscene.common.storage import BadLocation, Storage, StorageFault
from nextscene.common.typed_path import check_typed_path
from nextscene.shards.format.dataset_hints import describe_folder, explain_missing_dataset
from nextscene.shards.format.folder_mark import KIND_NAMES, LATENTS, NotOurs, check, check_folder
from nextscene.shards.format.layout import CONFIG, MANIFEST
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.loading.reader import DatasetNotFound, open_split


class LocalPath(click.Path):
    """A local path: no address, and none that a slip made. A `~` is the home that it stands for."""

    def __init__(self, **kind: bool) -> None:
        super().__init__(path_type=Path, **kind)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in str(value):
            self.fail(f"{value} is no local path; name one, and copy what is there to it or from it", param, ctx)
        try:
            return super().convert(Path(check_typed_path(str(value))).expanduser(), param, ctx)
        except (BadLocation, RuntimeError) as error:
            self.fail(str(error) if isinstance(error, BadLocation) else f"{value}: {error}", param, ctx)


def located(flag: str, location: str | Path) -> Storage:
    """Raises UsageError for a location that cannot be one."""
    try:
        return Storage.at(check_typed_path(str(location)))
    except BadLocation as mistake:
        raise UsageError(f"{flag} {mistake}") from mistake


def check_out(out: str | Path, kind: str, *data: str, but: str = "") -> None:
    """Early, before anything is loaded: raises NotOurs where --out cannot be claimed as one of `kind`, UsageError
    where it is --data or lies in it, since a dataset holds nothing else, `but` in that one place.
    """
    place = located("--out", out)
    for location in data:
        dataset = located("--data", location)
        if is_inside(place, dataset) and not (but and is_inside(place, Storage.at(but))):
            raise UsageError(
                f"--out {place.display_uri} lies inside --data {dataset.display_uri}; name a folder elsewhere"
            )
    check(place, kind)
    if (folder := place.local_path("")) is not None:
        check_free(folder)


def check_free(folder: Path) -> None:
    """Raises StorageFault where neither the folder nor what it is to lie in can be written to."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(there, os.W_OK):
        raise StorageFault(
            f"cannot write in {folder}: {there} is read-only, or another user's; make it writable, or name another"
            " folder"
        )


def check_dataset(flag: str, location: str, split: str = "") -> None:
    """Early, before anything is loaded: raises UsageError where there is no dataset of clips, or none of that split,
    if one is named; DamagedRecord, StorageFault.
    """
    place = located(flag, location)
    try:
        check_folder(place)
        if split:
            open_split(place.uri, split)
        else:
            Manifest.read(place)
    except (NotOurs, DatasetNotFound, FileNotFoundError) as mistake:
        said = (
            mistake
            if not isinstance(mistake, FileNotFoundError)
            else f"{place.display_uri} {explain_missing_dataset(place)}"
        )
        raise UsageError(f"{flag} {said}") from mistake
    if describe_folder(place) == KIND_NAMES[LATENTS]:
        raise UsageError(f"{flag} {place.display_uri} holds latents; name the dataset of clips that they are of")


def check_writable(folder: Path) -> None:
    """For a single file: makes its folder where there is none. Raises UsageError where none can be, or a dataset lies
    there; StorageFault where it cannot be written to.
    """
    if (folder / CONFIG).exists() or (folder / MANIFEST).exists():
        raise UsageError(f"--out {folder} holds a dataset; name another folder")
    check_free(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
        raise UsageError(f"--out: {folder} cannot be written to: {error.strerror}") from error
