"""The whole history of one clip, from the plan to its sample in a shard.

Tested in tests/curation/inspect/test_inspect.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from nextscene.common.errors import DamagedRecord
from nextscene.curation.inspect.find import ClipLocation
from nextscene.curation.inspect.open_dataset import OpenDataset
from nextscene.curation.inspect.sample import SampleFound, SampleReader
from nextscene.curation.ledger import Row, read_ledger
from nextscene.curation.plan import PlannedClip
from nextscene.curation.stages.replay import Replay
from nextscene.judge.errors import JudgeStopped, JudgeUsageError
from nextscene.judge.spending.answer_segments import CALLS
from nextscene.judge.spending.prices import Prices
from nextscene.judge.spending.stored_answers import StoredAnswers
from nextscene.shards.format.layout import ShardName, UnitName
from nextscene.shards.format.receipt import Receipt

Standing = Literal["sealed", "committed", "waiting"]


@dataclass(frozen=True)
class Round:
    """A scene, and the judge's verdict on it with its reason."""

    number: int
    verdict: str
    scene: str
    reason: str


@dataclass(frozen=True)
class ClipHistory:
    """The history of one clip.

    `standing` is "sealed" in a sealed shard, "committed" if decided but not sealed yet, else "waiting".
    `planned`, `ledger` and `sample` are None if no file has them, or if they do not exist yet. `calls` are as in the
    ledger, each with its `answer` if that is stored. `missing` names the files and folders that a whole dataset would
    have in addition.
    """

    clip_id: str
    shard: str
    standing: Standing
    planned: PlannedClip | None
    ledger: Row | None
    rounds: tuple[Round, ...]
    calls: tuple[dict[str, Any], ...]
    sample: SampleFound | None
    missing: tuple[str, ...]


def clip_history(opened: OpenDataset, spot: ClipLocation) -> ClipHistory:
    """Return the history of the clip at `spot`.

    Raise DamagedRecord if records contradict each other or are damaged, FileNotFoundError if one is gone.
    """
    sealed = opened.state.sealed.get((spot.shard.split, spot.shard.index))
    unit = UnitName(spot.shard.split, spot.unit)
    is_partial = sealed in opened.state.partial
    row = None
    if opened.has_ledger and (sealed or unit in opened.state.committed):
        row = _row(opened, sealed.ledger if sealed else unit.ledger, spot.clip_id, is_partial)
        if row is None:
            sealed = None  # the shard was sealed without this clip
    standing: Standing = "sealed" if sealed else "committed" if row else "waiting"
    calls = _calls(opened, row) if row else _calls_so_far(opened, spot)
    unstored = any("answer" not in call for call in calls)
    return ClipHistory(
        spot.clip_id,
        str(sealed or spot.shard),
        standing,
        spot.planned,
        row,
        _rounds(row),
        calls,
        _sample(opened, sealed, spot.clip_id, row) if sealed else None,
        opened.missing + ((CALLS,) if unstored else ()),
    )


def _row(opened: OpenDataset, path: str, clip_id: str, is_partial: bool) -> Row | None:
    for row in read_ledger(opened.out, path):
        if row.clip_id == clip_id:
            return row
    if is_partial:
        return None
    raise DamagedRecord(f"{path} has no row for clip {clip_id}; `verify` names all that is wrong")


def _rounds(row: Row | None) -> tuple[Round, ...]:
    if row is None:
        return ()
    failed = [("Fail", attempt["scene"], attempt["reason"]) for attempt in _listed(row, "turned_down")]
    passed = [("Pass", row.scene_description, row.verdict_reason)] if row.verdict == "Pass" else []
    return tuple(Round(number, *told) for number, told in enumerate([*failed, *passed], 1))


def _listed(row: Row, column: str) -> list[dict[str, Any]]:
    """Return the JSON list in a column of the ledger. Raise DamagedRecord for anything else."""
    wanted = {"turned_down": {"scene", "reason"}, "calls": {"task", "key"}}[column]
    try:
        values = json.loads(getattr(row, column) or "[]")
        if isinstance(values, list) and all(isinstance(value, dict) and wanted <= value.keys() for value in values):
            return values
    except ValueError:
        pass
    raise DamagedRecord(f"the ledger's `{column}` of clip {row.clip_id} is not a list of what it should be")


def _calls(opened: OpenDataset, row: Row) -> tuple[dict[str, Any], ...]:
    calls = _listed(row, "calls")
    if not calls or not opened.has_calls:
        return tuple(calls)
    try:
        stored = StoredAnswers(opened.out)
        for call in calls:
            if answer := stored.get(call["key"]):
                call |= {"answer": answer.text, "explanation": answer.explanation}
    except JudgeStopped as damage:
        raise DamagedRecord(str(damage)) from damage
    return tuple(calls)


def _calls_so_far(opened: OpenDataset, spot: ClipLocation) -> tuple[dict[str, Any], ...]:
    """Return the calls already paid for a clip that is not decided."""
    config, planned = opened.config, spot.planned
    if config is None or planned is None or not config.judge_kind.pays or not opened.has_calls:
        return ()
    try:
        calls = Replay(
            StoredAnswers(opened.out).get, config, Prices.load().for_model(config.claude.model), planned
        ).calls
    except JudgeUsageError:
        return ()  # for example, a model whose prices are no longer known
    except JudgeStopped as damage:
        raise DamagedRecord(str(damage)) from damage
    return tuple(call.record() | {"answer": call.answer.text, "explanation": call.answer.explanation} for call in calls)


def _sample(opened: OpenDataset, name: ShardName, clip_id: str, row: Row | None) -> SampleFound | None:
    receipt = Receipt.read(opened.out, name)
    is_there = clip_id in receipt.clip_ids
    if row is not None and row.kept != is_there:
        says = "does not name it" if row.kept else "names it"
        raise DamagedRecord(f"the ledger ends clip {clip_id} in {row.outcome!r}, and {name.receipt} {says}")
    return SampleReader(opened.out, receipt).find(receipt.clip_ids.index(clip_id)) if is_there else None
