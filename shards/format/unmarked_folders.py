"""What folders hold that have no mark: those of versions before it, those of runs that were killed as they began, and
what does not count.
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

# ---- what does not count -----------------------------------------------------------------------------------------

_OF_SYSTEMS = re.compile(
    r"lost\+found/|@eaDir/|\.snapshots?/|\.Trash-\d+/|\.nfs[0-9a-f]+|\.directory|\.gitignore|\.gitkeep"
    r"|\.Trashes/|\.fseventsd/|\.Spotlight-V100/|\.TemporaryItems/|\.DS_Store|\._.*|\.localized"
    r"|System Volume Information/|\$RECYCLE\.BIN/|Thumbs\.db|desktop\.ini"
)
"""What file systems, desktops and git leave in folders that are empty for people."""


def is_ignored(out: Storage, name: str) -> bool:
    """Return whether a name in a folder means nothing: a system's, or what a run leaves that was killed as it began."""
    if _OF_SYSTEMS.fullmatch(name):
        return True
    if name.endswith("/"):
        return not any(out.names(name))
    if (final := final_name_of_draft(name)) is not None:
        return owns(final) or final == _RECORDS
    if not owns(name):
        return False
    data = read_piece(out, name)
    return not data or name.startswith(".probe-") or (name == LOCK and b'"run_id"' in data)


# ---- versions before the mark ------------------------------------------------------------------------------------

PIECE = 1 << 16
_RECORDS = "videos.jsonl"
_STEP = re.compile(r"step-\d+(\.unfinished)?/")
_OF_CHECKPOINT = ("recipe", "stage", "step", "samples", "world", "model", "bridge")  # it begins so, and may be long
_OF_JOURNAL = {"event", "step", "lr"}


@dataclass(frozen=True)
class UnmarkedKind:
    """How a folder of a kind is known that has no mark.

    `left` says whether it holds such; `begun`, of a name in it, whether a run of this kind may have left that which was
    killed before it came to anything.
    """

    left: Callable[[Storage], bool]
    begun: Callable[[Storage, str], bool] = lambda _out, _name: False


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
    """A checkpoint of ours, or before the first what is written of the steps."""
    if not out.is_folder(f"{folder}checkpoints"):
        return False
    if json_fields(read_piece(out, f"{folder}metrics.jsonl").partition(b"\n")[0]) >= _OF_JOURNAL:
        return True
    steps = filter(_STEP.fullmatch, out.names(f"{folder}checkpoints"))
    abouts = (read_piece(out, f"{folder}checkpoints/{step}about.json") for step in steps)
    return any(all(f'"{name}":'.encode() in about for name in _OF_CHECKPOINT) for about in abouts)


def _holds_videos(out: Storage, folder: str = "") -> bool:
    """The first record, or what claims the file of one that is to come."""
    fields = json_fields(read_piece(out, f"{folder}{_RECORDS}").partition(b"\n")[0])
    return fields == {"file"} or {"file", "scene"} <= fields


def _holds_evaluation(out: Storage) -> bool:
    return any(_holds_videos(out, name) and out.is_folder(f"{name}videos") for name in _folders(out))


def _holds_toys(out: Storage, folder: str = "") -> bool:
    return {"version", "steps", "shards"} <= json_fields(read_piece(out, f"{folder}made.json"))


def _is_account(out: Storage, name: str) -> bool:
    """Paid answers: with their account, or before the first."""
    return name == f"{CALLS}/" and (out.stat(f"{CALLS}/account.json") is not None or not any(out.names(CALLS)))


def _is_ours(out: Storage, name: str) -> bool:
    """A folder with a mark of its own, as `make train` makes the toy checkpoints below the run, and before it; or a
    stage before its first step.
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
}


def _folders(out: Storage) -> Iterator[str]:
    if out.is_local:  # none of those that are asked for lies in an object store
        yield from (name for name in list_names(out) if name.endswith("/"))


def list_names(out: Storage) -> Iterator[str]:
    """The names in the folder; none where there is none, or where a start that failed removes it meanwhile."""
    try:
        yield from out.names("") if out.is_folder() else ()
    except StorageFault as fault:
        if not isinstance(fault.__cause__, FileNotFoundError):
            raise
    except FileNotFoundError:
        pass


def read_piece(out: Storage, path: str, from_end: bool = False) -> bytes:
    """The begin or the end of a file; nothing where there is none."""
    entry = out.stat(path)
    if entry is None:
        return b""
    try:
        return out.read(path, max(0, entry.size - PIECE) if from_end else 0, min(entry.size, PIECE))
    except FileNotFoundError:  # gone since
        return b""


def json_fields(data: bytes) -> set[str]:
    """The names in a JSON object; none of what is not one."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return set()
    return set(value) if isinstance(value, dict) else set()
