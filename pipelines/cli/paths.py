"""Checks of the paths given to the commands: local output folders outside the data, and datasets.

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
    """Click type: a local path, with `~` expanded. URIs and paths with typing mistakes are rejected."""

    def __init__(self, **kind: bool) -> None:
        super().__init__(path_type=Path, **kind)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in str(value):
            self.fail(f"{value} is not a local path; name one, and copy what is there to it or from it", param, ctx)
        try:
            return super().convert(Path(check_typed_path(str(value))).expanduser(), param, ctx)
        except (BadLocation, RuntimeError) as error:
            self.fail(str(error) if isinstance(error, BadLocation) else f"{value}: {error}", param, ctx)


EXISTING_FILE = LocalPath(exists=True, dir_okay=False)


def located(flag: str, location: str | Path) -> Storage:
    """Return the storage at a location. Raise UsageError, with the flag's name, if the location is not valid."""
    try:
        return Storage.at(check_typed_path(str(location)))
    except BadLocation as mistake:
        raise UsageError(f"{flag} {mistake}") from mistake


def check_out(out: str | Path, kind: str, *data: str, but: str = "") -> None:
    """Check --out early, before anything is loaded.

    Raise NotOurs if --out cannot be claimed as a folder of `kind`, StorageFault if it is not writable, and UsageError
    if it is --data or inside it: a dataset contains nothing else. Folders inside `but` are allowed.
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
    """Raise StorageFault if the folder, or its nearest existing parent if it does not exist, is not writable."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(there, os.W_OK):
        raise StorageFault(
            f"cannot write in {folder}: {there} is read-only, or another user's; make it writable, or name another"
            " folder"
        )


def check_dataset(flag: str, location: str, split: str = "") -> None:
    """Check a dataset early, before anything is loaded.

    Raise UsageError if there is no dataset of clips at the location, or it lacks the split that is named. Raise
    DamagedRecord or StorageFault if it cannot be read.
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
    """Check the folder of a single output file, and create it if it is missing.

    Raise UsageError if it cannot be created or contains a dataset, StorageFault if it is not writable.
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
