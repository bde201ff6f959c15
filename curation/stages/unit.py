"""Processing of one unit: screening its clips and, after their scenes are decided, cutting and committing them.

These are plain functions of a context and a unit. The engine runs them on Ray; a test can call them directly.
Tested in tests/curation/stages/test_parallel_clips.py and tests/curation/run/test_resume.py.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from nextscene.common import ffmpeg
from nextscene.common.errors import RunStopped
from nextscene.common.scratch import scratch_folder
from nextscene.common.storage import Storage
from nextscene.curation.clip_record import conditioning_text, record_of
from nextscene.curation.config import CUT_VERSION, BuildConfig
from nextscene.curation.judge_budget import JudgeBudget
from nextscene.curation.ledger import Row, write_ledger
from nextscene.curation.outcome import UNDECIDED, ClipOutcome, Undecided
from nextscene.curation.plan import PlannedClip, Unit
from nextscene.curation.run.source_sentinels import planned_in
from nextscene.curation.sources import Root
from nextscene.curation.sources.reader import SentinelFile, SourceReader
from nextscene.curation.stages.clip_row import kept_row, row_before_cut, with_outcome
from nextscene.curation.stages.clip_steps import cut_clip, outcome_of_error, screen_clip
from nextscene.curation.stages.describe import DescribedScene
from nextscene.curation.stages.parallel_clips import ClipWorkspace, map_clips
from nextscene.curation.stages.previous_revision import PreviousRevision
from nextscene.curation.stages.screen import Screened, ScreenResult
from nextscene.curation.storable_row import storable
from nextscene.judge.api.api_identity import ApiIdentity
from nextscene.shards.format.layout import CONFIG
from nextscene.shards.format.sample import SCHEMA_VERSION, Sample

Counted = Callable[[int], None]
"""Called with the number of clips of a unit that are done."""


def _ignore_count(_: int) -> None: ...


@dataclass(frozen=True)
class UnitContext:
    """All facts about the run that a worker needs. It can be pickled, and has neither key nor credentials.

    `begun_with_cut` is the version of the cut with which work on the dataset began, `schema_version` that of the schema
    with which it began and is finished. `api_identity` is checked on the
    node that asks the judge.
    """

    config: BuildConfig
    root: Root
    out: Storage
    ffmpeg_build: str
    run_id: str
    judge_budget: JudgeBudget | None = None
    begun_with_cut: int = CUT_VERSION
    sentinels: tuple[SentinelFile, ...] = ()
    api_identity: ApiIdentity | None = None
    schema_version: int = SCHEMA_VERSION

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
    found = screen_clip(context.config, clip, workspace, context.begun_with_cut)
    return found if isinstance(found, ClipOutcome) else replace(found, sample=earlier.next_sample(clip.clip_id))


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
        found = screen_clip(context.config, clip, workspace, context.begun_with_cut)
        if isinstance(found, Screened):
            cut_clip(context.config, clip, found.measured, workspace, context.schema_version)


def _make_row(
    context: UnitContext, known: tuple[PlannedClip, ScreenResult, DescribedScene | None], workspace: ClipWorkspace
) -> tuple[Row, Sample | None] | None:
    """Return the clip's row, cleaned so that it can be stored, and its sample if the clip is kept.

    Return None if the clip keeps its earlier outcome.
    """
    clip, found, scene = known
    if found is None or isinstance(found, str):
        return None
    made = outcome_of_error(lambda: _finish_clip(context, clip, found, scene, workspace))
    row, sample = (
        (with_outcome(row_before_cut(context.config, context.run_id, clip, found, scene), made), None)
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
    row = row_before_cut(context.config, context.run_id, clip, found, scene)
    if isinstance(found, ClipOutcome):
        return with_outcome(row, found), None
    if scene and scene.outcome:
        return with_outcome(row, scene.outcome), None
    made = cut_clip(context.config, clip, found.measured, workspace, context.schema_version)
    if isinstance(made, ClipOutcome):
        return with_outcome(row, made), None
    row = storable(kept_row(row, made))
    if not row.kept:
        return row, None
    record = record_of(context.config, clip, row)
    return row, Sample(row.clip_id, record.to_bytes(), made.media, conditioning_text(row).encode(), made.suffix)
