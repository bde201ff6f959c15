"""The row of a clip in the ledger: from its plan, what was measured, its scene, and how it ended.

Tested in tests/curation/stages/test_screen.py and tests/curation/run/test_asking.py.
"""

from __future__ import annotations

import hashlib
import json
import socket
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from nextscene.common.text import readable_text
from nextscene.curation.config import BuildConfig
from nextscene.curation.ledger import RETIMED, Row
from nextscene.curation.outcome import ClipOutcome
from nextscene.curation.paid_calls import with_calls
from nextscene.curation.plan import PlannedClip
from nextscene.curation.stages.cut import Cut
from nextscene.curation.stages.describe import DescribedScene
from nextscene.curation.stages.screen import Screened
from nextscene.curation.storable_row import storable_columns


def row_before_cut(
    config: BuildConfig, run_id: str, clip: PlannedClip, found: Screened | ClipOutcome, scene: DescribedScene | None
) -> Row:
    """Return the row of a clip as known before the cut, with the calls that were paid for it in any case."""
    row = _planned_row(config, run_id, clip, found)
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


def _planned_row(config: BuildConfig, run_id: str, clip: PlannedClip, found: Screened | ClipOutcome) -> Row:
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
        judge=config.judge,
        remark=RETIMED if found.retimed else "",
        run_id=run_id,
        host=socket.gethostname(),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def kept_row(row: Row, made: Cut) -> Row:
    """Return the row of a clip that is kept, with what was cut."""
    return replace(
        row,
        outcome="kept",
        frames=made.frames,
        width=made.width,
        height=made.height,
        bytes=len(made.media),
        mp4_sha256=hashlib.sha256(made.media).hexdigest(),
        cut_cpu_seconds=round(made.cpu_seconds, 3),
    )


def with_outcome(row: Row, outcome: ClipOutcome) -> Row:
    """Return the row of a clip that ends with this outcome."""
    return replace(row, outcome=outcome.outcome, reason=outcome.reason, detail=outcome.detail)
