"""Folders without a mark: those of older versions, those of runs killed as they began, and names to ignore.

Tested in tests/shards/format/test_folder_mark.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nextscene.common.atomic import final_name_of_draft
from nextscene.common.errors import DamagedRecord
from nextscene.common.fence import LOCK
from nextscene.common.storage import Storage, StorageFault
from nextscene.shards.format.layout import CALLS, CARD, CONFIG, MARK, PLAN, owns
from nextscene.shards.format.manifest import Manifest

DATASET = "dataset"
LATENTS = "latents"
RUN = "run"
VIDEOS = "videos"
EVALUATION = "evaluation"
TOYS = "toys"
SHAPES = "shapes"

# ---- names to ignore -----------------------------------------------------------------------------------------

_SYSTEM_NAMES = re.compile(
    r"lost\+found/|@eaDir/|\.snapshots?/|\.Trash-\d+/|\.nfs[0-9a-f]+|\.directory|\.gitignore|\.gitkeep"
    r"|\.Trashes/|\.fseventsd/|\.Spotlight-V100/|\.TemporaryItems/|\.DS_Store|\._.*|\.localized"
    r"|System Volume Information/|\$RECYCLE\.BIN/|Thumbs\.db|desktop\.ini"
)
"""Names that file systems, desktops and git leave in folders that people call empty."""


def is_ignored(out: Storage, name: str) -> bool:
    """Return whether a name in a folder does not count: one of a system, or one that a run killed at its start left."""
    if _SYSTEM_NAMES.fullmatch(name):
        return True
    if name.endswith("/"):
        return not any(out.names(name))
    if (final := final_name_of_draft(name)) is not None:
        return owns(final) or final == _RECORDS
    if not owns(name):
        return False
    data = read_piece(out, name)
    return not data or name.startswith(".probe-") or (name == LOCK and b'"run_id"' in data)


# ---- older versions ------------------------------------------------------------------------------------

PIECE = 1 << 16
_RECORDS = "videos.jsonl"
_STEP = re.compile(r"step-\d+(\.unfinished)?/")
_CHECKPOINT_FIELDS = (
    "recipe",
    "stage",
    "step",
    "samples",
    "world",
    "model",
    "bridge",
)  # the first fields of a file that may be long
_METRICS_FIELDS = {"event", "step", "lr"}


@dataclass(frozen=True)
class UnmarkedKind:
    """The tests by which a folder without a mark is known as one of a kind.

    `is_held` returns whether the folder holds content of this kind; `may_be_begun`, whether a run of this kind may have
    left a name in it before it wrote any content.
    """

    is_held: Callable[[Storage], bool]
    may_be_begun: Callable[[Storage, str], bool] = lambda _out, _name: False


def _holds_dataset(out: Storage) -> bool:
    return b"plan_sha256" in read_piece(out, CONFIG) or b"nextscene." in read_piece(out, PLAN, from_end=True)


def _holds_latents(out: Storage) -> bool:
    if read_piece(out, CARD).startswith(b"Latents of the clips of a dataset"):
        return True
    try:
        shards = Manifest.read(out).shards
        return bool(shards) and shards[0].receipt(out).members == ("json", "latent")
    except (FileNotFoundError, DamagedRecord):
        return False


def _holds_run(out: Storage) -> bool:
    return any(_is_export(out, name) or _is_stage(out, name) for name in _folders(out))


def _is_export(out: Storage, folder: str) -> bool:
    return folder == "export/" and {"recipe", "determining"} <= json_fields(read_piece(out, f"{folder}{MARK}"))


def _is_stage(out: Storage, folder: str) -> bool:
    """Return whether a folder is that of a training stage: it has a checkpoint, or metrics before the first one."""
    if not out.is_folder(f"{folder}checkpoints"):
        return False
    if json_fields(read_piece(out, f"{folder}metrics.jsonl").partition(b"\n")[0]) >= _METRICS_FIELDS:
        return True
    steps = filter(_STEP.fullmatch, out.names(f"{folder}checkpoints"))
    abouts = (read_piece(out, f"{folder}checkpoints/{step}about.json") for step in steps)
    return any(all(f'"{name}":'.encode() in about for name in _CHECKPOINT_FIELDS) for about in abouts)


def _holds_videos(out: Storage, folder: str = "") -> bool:
    """Return whether there is a record of a video, or the claim of a file to come."""
    fields = json_fields(read_piece(out, f"{folder}{_RECORDS}").partition(b"\n")[0])
    return fields == {"file"} or {"file", "scene"} <= fields


def _holds_evaluation(out: Storage) -> bool:
    return any(_holds_videos(out, name) and out.is_folder(f"{name}videos") for name in _folders(out))


def _holds_toys(out: Storage, folder: str = "") -> bool:
    return {"version", "steps", "shards"} <= json_fields(read_piece(out, f"{folder}made.json"))


def _holds_shapes(out: Storage) -> bool:
    is_listed = read_piece(out, "clips.csv").startswith(b"video,caption,scene\n")
    return is_listed and {"clips/", "held_out.txt", "rare.txt"} <= {*list_names(out)}


def _is_account(out: Storage, name: str) -> bool:
    """Return whether a folder holds paid answers: with their account, or before the first answer."""
    return name == f"{CALLS}/" and (out.stat(f"{CALLS}/account.json") is not None or not any(out.names(CALLS)))


def _is_ours(out: Storage, name: str) -> bool:
    """Return whether a folder has a mark, holds toy checkpoints, or is a stage before its first step.

    `make train` makes the toy checkpoints below the run's folder, before the run itself.
    """
    if not name.endswith("/"):
        return False
    return (
        "kind" in json_fields(read_piece(out, f"{name}{MARK}"))
        or _holds_toys(out, name)
        or _is_waiting_for_steps(out, name)
    )


def _is_waiting_for_steps(out: Storage, name: str) -> bool:
    if not {"checkpoints/"} <= {*out.names(name)} <= {"checkpoints/", "metrics.jsonl", "tensorboard/"}:
        return False
    return not any(out.names(f"{name}checkpoints")) and not read_piece(out, f"{name}metrics.jsonl")


def _is_waiting_for_videos(out: Storage, name: str) -> bool:
    if not name.endswith("/"):
        return False
    inside = [inner for inner in out.names(name) if final_name_of_draft(inner) != _RECORDS]
    return _is_account(out, name) or (inside == ["videos/"] and not any(out.names(f"{name}videos")))


UNMARKED_KINDS = {
    DATASET: UnmarkedKind(_holds_dataset, _is_account),
    LATENTS: UnmarkedKind(_holds_latents),
    RUN: UnmarkedKind(_holds_run, _is_ours),
    VIDEOS: UnmarkedKind(_holds_videos),
    EVALUATION: UnmarkedKind(_holds_evaluation, _is_waiting_for_videos),
    TOYS: UnmarkedKind(_holds_toys),
    SHAPES: UnmarkedKind(_holds_shapes),
}


def _folders(out: Storage) -> Iterator[str]:
    if out.is_local:  # none of these kinds was written to object stores
        yield from (name for name in list_names(out) if name.endswith("/"))


def list_names(out: Storage) -> Iterator[str]:
    """Yield the names in the folder; none if there is no folder, or if it is being removed."""
    try:
        yield from out.names("") if out.is_folder() else ()
    except StorageFault as fault:
        if not isinstance(fault.__cause__, FileNotFoundError):
            raise
    except FileNotFoundError:
        pass


def read_piece(out: Storage, path: str, from_end: bool = False) -> bytes:
    """Return the beginning or the end of a file, or b"" if there is no such file."""
    entry = out.stat(path)
    if entry is None:
        return b""
    try:
        return out.read(path, max(0, entry.size - PIECE) if from_end else 0, min(entry.size, PIECE))
    except FileNotFoundError:  # deleted meanwhile
        return b""


def json_fields(data: bytes) -> set[str]:
    """Return the names in a JSON object, or none if the data is not one."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return set()
    return set(value) if isinstance(value, dict) else set()
