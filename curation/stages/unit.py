"""Processing of one unit: screening its clips and, after their scenes are decided, cutting and committing them.

These are plain functions of a context and a unit. The engine runs them on Ray; a test can call them directly.
Tested in tests/curation/stages/test_parallel_clips.py and tests/curation/run/test_resume.py.
"""

from __future__ import annotations

import hashlib
import json
import socket
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from nextscene.common import ffmpeg
from nextscene.common.errors import RunStopped
from nextscene.common.scratch import scratch_folder
from nextscene.common.storage import Storage, StorageFault
from nextscene.common.text import readable_text
from nextscene.curation.clip_record import conditioning_text, record_of
from nextscene.curation.config import CUT_VERSION, BuildConfig
from nextscene.curation.judge_budget import JudgeBudget
from nextscene.curation.ledger import RETIMED, Row, write_ledger
from nextscene.curation.media.probe import Measured
from nextscene.curation.media.seek import Span
from nextscene.curation.outcome import UNDECIDED, ClipOutcome, Undecided
from nextscene.curation.paid_calls import with_calls
from nextscene.curation.plan import PlannedClip, Unit
from nextscene.curation.rules.base import ClipFacts
from nextscene.curation.rules.registry import active_rules, first_rejection
from nextscene.curation.run.source_sentinels import planned_in
from nextscene.curation.sources.reader import SentinelFile, SourceChanged, SourceReader
from nextscene.curation.stages.cut import Cut, cut
from nextscene.curation.stages.describe import DescribedScene
from nextscene.curation.stages.keyframes import extract_keyframes, frames_for_rules
from nextscene.curation.stages.keyframes_v1 import extract_keyframes_v1
from nextscene.curation.stages.parallel_clips import ClipWorkspace, map_clips
from nextscene.curation.stages.previous_revision import PreviousRevision
from nextscene.curation.stages.screen import Screened, ScreenResult, screen
from nextscene.curation.storable_row import storable, storable_columns
from nextscene.judge.api.api_identity import ApiIdentity
from nextscene.judge.api.request import Frame
from nextscene.shards.format.layout import CONFIG
from nextscene.shards.format.sample import Sample

T = TypeVar("T")

Counted = Callable[[int], None]
"""Called with the number of clips of a unit that are done."""


def _ignore_count(_: int) -> None: ...


@dataclass(frozen=True)
class UnitContext:
    """All facts about the run that a worker needs. It can be pickled, and has neither key nor credentials.

    `begun_with_cut` is the version of the cut with which work on the dataset began. `api_identity` is checked on the
    node that asks the judge.
    """

    config: BuildConfig
    root: Storage
    out: Storage
    ffmpeg_build: str
    run_id: str
    judge_budget: JudgeBudget | None = None
    begun_with_cut: int = CUT_VERSION
    sentinels: tuple[SentinelFile, ...] = ()
    api_identity: ApiIdentity | None = None

    def reader(self, scratch: Path) -> SourceReader:
        """Return a reader of clips, which writes its copies to `scratch`."""
        return SourceReader(self.root, scratch, self.sentinels, partial(planned_in, self.out))

    def check_worker(self) -> None:
        """Raise RunStopped if this machine does not see OUT or has another ffmpeg, which would make other bytes."""
        if self.out.stat(CONFIG) is None:
            if not self.out.is_local:
                self.out.check_anchor(remotely=True)
            raise RunStopped(
                f"{socket.gethostname()} does not see `out` {self.out.display_uri}; mount it there, or use s3://…"
            )
        if (here := ffmpeg.build()) != self.ffmpeg_build:
            raise RunStopped(
                f"{socket.gethostname()} has ffmpeg {here}, the plan was made with {self.ffmpeg_build};"
                " install the same imageio-ffmpeg on every node"
            )


def screen_unit(
    context: UnitContext, unit: Unit, at_once: int = 1, counted: Counted = _ignore_count
) -> list[ScreenResult]:
    """Return each clip's screening result or outcome; None if the clip keeps its earlier outcome. Raise StorageFault.

    `at_once` clips are worked on in parallel. Those in `unit.deferred` are not opened. After each clip, `counted` is
    called with the number done.
    """
    context.check_worker()
    earlier = PreviousRevision(context.out, unit)
    step = partial(_screened, context, unit, earlier)
    found = []
    for one in map_clips(context.reader, step, unit.clips, at_once):
        found.append(one)
        counted(len(found))
    return found


def _screened(
    context: UnitContext, unit: Unit, earlier: PreviousRevision, clip: PlannedClip, workspace: ClipWorkspace
) -> ScreenResult:
    if not unit.redoes(clip):
        return None
    if clip.clip_id in unit.deferred:
        return UNDECIDED
    if clip.clip_id in unit.quarantined:
        return ClipOutcome(
            "quarantined", "kills_worker", "it ended its worker process twice while nothing else ran there"
        )
    found = _screen_clip(context, clip, workspace)
    return found if isinstance(found, ClipOutcome) else replace(found, sample=earlier.next_sample(clip.clip_id))


def _screen_clip(context: UnitContext, clip: PlannedClip, workspace: ClipWorkspace) -> Screened | ClipOutcome:
    if outcome := clip.source_outcome:
        return outcome
    return replace(_screen_and_extract(context, clip, workspace), retimed=workspace.reader.was_retimed(clip))


def _screen_and_extract(context: UnitContext, clip: PlannedClip, workspace: ClipWorkspace) -> Screened | ClipOutcome:
    measured = _outcome_of_error(lambda: screen(clip, workspace.reader, context.config))
    if isinstance(measured, ClipOutcome):
        return measured
    if rejection := _rejected_by_frames(context, clip, measured, workspace):
        return replace(rejection, measured=measured)
    if clip.caption or not context.config.judge_kind.can_caption:
        return Screened(measured)
    frames = _run_on_file(
        clip,
        workspace,
        lambda source: extract_keyframes(source, _span(clip), measured, context.config, workspace.scratch),
    )
    if isinstance(frames, ClipOutcome):
        return replace(frames, measured=measured)
    earlier: tuple[Frame, ...] | ClipOutcome = ()
    if context.begun_with_cut < CUT_VERSION:
        earlier = _run_on_file(
            clip,
            workspace,
            lambda source: extract_keyframes_v1(source, _span(clip), measured, context.config, workspace.scratch),
        )
    return Screened(measured, frames, earlier_frames=() if isinstance(earlier, ClipOutcome) else earlier)


def _rejected_by_frames(
    context: UnitContext, clip: PlannedClip, measured: Measured, workspace: ClipWorkspace
) -> ClipOutcome | None:
    """Return the outcome from the first rule on frames that a clip does not pass; None if it passes all.

    Nothing is decoded if no such rule is in force.
    """
    rules = active_rules(context.config.rules, needs_frames=True)
    if not rules:
        return None
    frames = _run_on_file(
        clip,
        workspace,
        lambda source: frames_for_rules(source, _span(clip), measured, context.config, workspace.scratch),
    )
    if isinstance(frames, ClipOutcome):
        return frames
    return _outcome_of_error(lambda: first_rejection(rules, ClipFacts(clip, measured, context.config, frames)))


def cut_unit(
    context: UnitContext,
    unit: Unit,
    screened: Sequence[ScreenResult],
    scenes: Sequence[DescribedScene | Undecided | None],
    at_once: int = 1,
    counted: Counted = _ignore_count,
) -> list[tuple[str, str]]:
    """Cut the clips to keep, `at_once` in parallel, publish the unit's part, then commit it by writing its ledger.

    With undecided clips the unit is not committed: the rows of the other clips are written to its partial ledger. After
    each decided clip, `counted` is called with the number done.

    Return (outcome, reason) of each decided clip. Raise StorageFault; the unit is then unchanged.
    """
    context.check_worker()
    earlier = PreviousRevision(context.out, unit)
    rows = []
    known = list(zip(unit.clips, screened, scenes, strict=True))
    decided = [(clip, found, scene) for clip, found, scene in known if not isinstance(scene, str)]
    with context.out.atomic_writer(unit.name.part) as part:
        all_made = map_clips(context.reader, partial(_make_row, context), decided, at_once)
        for (clip, _, _), made in zip(decided, all_made, strict=True):
            row, sample = made or earlier.row_and_sample(clip.clip_id)
            row = earlier.with_its_calls(row)
            rows.append(row)
            counted(len(rows))
            if sample is not None:
                part.write(sample.to_bytes())
    is_whole = len(decided) == len(known)
    write_ledger(context.out, unit.name.ledger if is_whole else unit.name.partial_ledger, rows)
    return [(row.outcome, row.reason) for row in rows]


def try_clip(context: UnitContext, clip: PlannedClip) -> None:
    """Process one clip and discard the result, to find out whether it kills its worker while it runs alone."""
    with scratch_folder() as scratch:
        workspace = ClipWorkspace(context.reader(scratch), scratch)
        found = _screen_clip(context, clip, workspace)
        if isinstance(found, Screened):
            _cut_clip(context, clip, found.measured, workspace)


def _make_row(
    context: UnitContext, known: tuple[PlannedClip, ScreenResult, DescribedScene | None], workspace: ClipWorkspace
) -> tuple[Row, Sample | None] | None:
    """Return the clip's row, cleaned so that it can be stored, and its sample if the clip is kept.

    Return None if the clip keeps its earlier outcome.
    """
    clip, found, scene = known
    if found is None or isinstance(found, str):
        return None
    made = _outcome_of_error(lambda: _finish_clip(context, clip, found, scene, workspace))
    row, sample = (
        (_with_outcome(_row_before_cut(context, clip, found, scene), made), None)
        if isinstance(made, ClipOutcome)
        else made
    )
    return storable(row), sample


def _finish_clip(
    context: UnitContext,
    clip: PlannedClip,
    found: Screened | ClipOutcome,
    scene: DescribedScene | None,
    workspace: ClipWorkspace,
) -> tuple[Row, Sample | None]:
    row = _row_before_cut(context, clip, found, scene)
    if isinstance(found, ClipOutcome):
        return _with_outcome(row, found), None
    if scene and scene.outcome:
        return _with_outcome(row, scene.outcome), None
    made = _cut_clip(context, clip, found.measured, workspace)
    if isinstance(made, ClipOutcome):
        return _with_outcome(row, made), None
    row = storable(
        replace(
            row,
            outcome="kept",
            frames=made.frames,
            width=made.width,
            height=made.height,
            bytes=len(made.mp4),
            mp4_sha256=hashlib.sha256(made.mp4).hexdigest(),
            cut_cpu_seconds=round(made.cpu_seconds, 3),
        )
    )
    if not row.kept:
        return row, None
    record = record_of(context.config, clip, row)
    return row, Sample(row.clip_id, record.to_bytes(), made.mp4, conditioning_text(row).encode())


def _row_before_cut(
    context: UnitContext, clip: PlannedClip, found: Screened | ClipOutcome, scene: DescribedScene | None
) -> Row:
    """Return the row of a clip as known before the cut, with the calls that were paid for it in any case."""
    row = _planned_row(context, clip, found)
    columns: dict[str, Any] = {}
    if measured := found.measured:
        columns = {
            "source_width": measured.width,
            "source_height": measured.height,
            "duration": measured.duration,
            "codec": measured.codec,
        }
    if isinstance(found, ClipOutcome):
        row = replace(row, **storable_columns(columns))  # a wrong header must not change the clip's outcome
        return with_calls(row, [call.record() for call in scene.calls]) if scene else row
    return _with_scene(replace(row, sample=found.sample, **columns), scene or DescribedScene(clip.caption))


def _with_scene(row: Row, scene: DescribedScene) -> Row:
    captioned_by = [call.answer.model_served for call in scene.calls if call.task == "caption"]
    row = replace(
        row,
        caption=scene.caption,
        captioned_by=captioned_by[-1] if captioned_by else "",
        scene_description=scene.text,
        verdict=scene.verdict,
        verdict_reason=scene.verdict_reason,
        rounds=scene.rounds,
        judge_model=scene.judge_model,
        prompt_sha256=scene.prompt_sha256,
        turned_down=_json([{"scene": one.scene, "reason": readable_text(one.reason)} for one in scene.turned_down]),
    )
    return with_calls(row, [call.record() for call in scene.calls])


def _json(values: list[dict[str, Any]]) -> str:
    return json.dumps(values, ensure_ascii=False) if values else ""


def _cut_clip(
    context: UnitContext, clip: PlannedClip, measured: Measured, workspace: ClipWorkspace
) -> Cut | ClipOutcome:
    return _run_on_file(
        clip, workspace, lambda source: cut(source, _span(clip), measured, context.config, workspace.scratch)
    )


def _run_on_file(
    clip: PlannedClip, workspace: ClipWorkspace, step: Callable[[Path], T | ClipOutcome]
) -> T | ClipOutcome:
    """Run a step on the clip's file. If it fails, read the whole file, to distinguish a storage fault from a bad clip.

    Raise StorageFault.
    """

    def attempt() -> T | ClipOutcome:
        try:
            made = step(workspace.reader.fetch(clip))
            if isinstance(made, ClipOutcome):
                workspace.reader.read_through(clip)
        except SourceChanged as change:
            return ClipOutcome("failed", "source_changed", str(change))
        return made

    return _outcome_of_error(attempt)


def _span(clip: PlannedClip) -> Span:
    return Span.of(clip.start_ms, clip.end_ms)


def _outcome_of_error(step: Callable[[], T]) -> T | ClipOutcome:
    """Run a step. An unexpected error fails this clip, with the error's place in the code, and not the whole run.

    Raise StorageFault, also for an OSError or a lack of memory, and RunStopped.
    """
    try:
        return step()
    except (StorageFault, RunStopped):
        raise
    except (OSError, MemoryError) as fault:
        raise StorageFault(f"{socket.gethostname()}: {fault or type(fault).__name__}") from fault
    except Exception as error:  # noqa: BLE001
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return ClipOutcome("failed", "unexpected", f"{type(error).__name__} at {where}: {error}")


def _planned_row(context: UnitContext, clip: PlannedClip, found: Screened | ClipOutcome) -> Row:
    return Row(
        position=clip.position,
        clip_id=clip.clip_id,
        split=clip.split,
        unit=clip.unit,
        shard=clip.shard,
        source=clip.name,
        start_ms=clip.start_ms,
        end_ms=clip.end_ms,
        outcome="",
        caption=clip.caption,
        judge=context.config.judge,
        remark=RETIMED if found.retimed else "",
        run_id=context.run_id,
        host=socket.gethostname(),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _with_outcome(row: Row, outcome: ClipOutcome) -> Row:
    return replace(row, outcome=outcome.outcome, reason=outcome.reason, detail=outcome.detail)
