"""What to say where a dataset was meant and none is: what is there instead, or where one lies nearby."""

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
_MOST_OFFERED = 3
_MODEL = "a trained model"
_OF_MODELS = {"about.json": "a checkpoint", "model_index.json": "a model", "config.json": "a model"}


def describe_folder(out: Storage) -> str:
    """What a folder holds of the things that the commands make or read, in words; "" where that is not known."""
    data = read_piece(out, MARK)
    fields = json_fields(data)
    if {"recipe", "determining"} <= fields:
        return _MODEL
    if "kind" in fields and (words := KIND_NAMES.get(str(json.loads(data)["kind"]))):
        return words
    for kind in (LATENTS, *UNMARKED_KINDS):
        if UNMARKED_KINDS[kind].left(out):
            return KIND_NAMES[kind]
    return next((words for file, words in _OF_MODELS.items() if out.stat(file)), "")


def explain_missing_dataset(out: Storage) -> str:
    """Why a place is not a dataset, as a phrase that follows its name, with the one that may be meant."""
    local = out.local_path("")
    if local is not None and not local.exists():
        return f"holds no dataset: it is not there; name one that build_nsp.py made{_meant(local)}"
    if local is not None and local.is_file():
        return f"is a file, and holds no dataset; name the folder of one{_meant(local)}"
    if held := describe_folder(out):
        return f"holds no dataset, but {held}; name one that build_nsp.py made{_meant(local)}"
    return f"holds no dataset: there is no {MANIFEST} and no {CONFIG} in it; build one first{_meant(local)}"


def _meant(local: Path | None) -> str:
    if local is None:
        return ""
    near = suggest_folders(local, _is_dataset)
    return f"; is {' or '.join(map(str, near))} meant?" if near else ""


def suggest_folders(local: Path, is_meant: Callable[[Path], bool]) -> list[Path]:
    """Folders that may be meant: what a place lies in, or a few that lie in it."""
    return list(islice(filter(is_meant, (*local.parents[:_PARENTS], *_children(local))), _MOST_OFFERED))


def _children(local: Path) -> Iterable[Path]:
    out = Storage.at(local)
    return [local / name for name in islice(list_names(out), _CHILDREN) if name.endswith("/")]


def _is_dataset(folder: Path) -> bool:
    try:
        return UNMARKED_KINDS[DATASET].left(Storage.at(folder))
    except StorageFault:  # it is only looked at to be offered
        return False
