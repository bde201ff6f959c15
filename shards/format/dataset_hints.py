"""Hints for a folder that is not a dataset: what it contains instead, or a dataset nearby.

Tested in tests/pipelines/test_wrong_inputs.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from nextscene.common.storage import Storage, StorageFault
from nextscene.shards.format.folder_mark import KIND_NAMES
from nextscene.shards.format.layout import CONFIG, MANIFEST, MARK
from nextscene.shards.format.unmarked_folders import (
    DATASET,
    LATENTS,
    UNMARKED_KINDS,
    json_fields,
    list_names,
    read_piece,
)

_PARENTS = 4
_CHILDREN = 200
_MAX_SUGGESTIONS = 3
_MODEL = "a trained model"
_MODEL_FILES = {"about.json": "a checkpoint", "model_index.json": "a model", "config.json": "a model"}


def describe_folder(out: Storage) -> str:
    """Return a phrase for what a folder contains, if this package writes or reads such things; "" if unknown."""
    data = read_piece(out, MARK)
    fields = json_fields(data)
    if {"recipe", "determining"} <= fields:
        return _MODEL
    if "kind" in fields and (words := KIND_NAMES.get(str(json.loads(data)["kind"]))):
        return words
    for kind in (LATENTS, *UNMARKED_KINDS):
        if UNMARKED_KINDS[kind].is_held(out):
            return KIND_NAMES[kind]
    return next((words for file, words in _MODEL_FILES.items() if out.stat(file)), "")


def explain_missing_dataset(out: Storage) -> str:
    """Return why a folder is not a dataset, as a phrase that follows its name, and the dataset that may be meant."""
    local = out.local_path("")
    if local is not None and not local.exists():
        return f"holds no dataset: it is not there; name one that a build made{_suggestion(local)}"
    if local is not None and local.is_file():
        return f"is a file, and holds no dataset; name the folder of one{_suggestion(local)}"
    if held := describe_folder(out):
        return f"holds no dataset, but {held}; name one that a build made{_suggestion(local)}"
    return f"holds no dataset: there is no {MANIFEST} and no {CONFIG} in it; build one first{_suggestion(local)}"


def _suggestion(local: Path | None) -> str:
    if local is None:
        return ""
    near = suggest_folders(local, _is_dataset)
    return f"; is {' or '.join(map(str, near))} meant?" if near else ""


def suggest_folders(local: Path, is_meant: Callable[[Path], bool]) -> list[Path]:
    """Return folders that may be meant: a few of the parents and of the subfolders of a folder."""
    return list(islice(filter(is_meant, (*local.parents[:_PARENTS], *_children(local))), _MAX_SUGGESTIONS))


def _children(local: Path) -> Iterable[Path]:
    out = Storage.at(local)
    return [local / name for name in islice(list_names(out), _CHILDREN) if name.endswith("/")]


def _is_dataset(folder: Path) -> bool:
    try:
        return UNMARKED_KINDS[DATASET].is_held(Storage.at(folder))
    except StorageFault:  # the folder would only be a suggestion
        return False
