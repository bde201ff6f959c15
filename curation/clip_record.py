"""Records of kept clips, derived from plan and ledger alone so that `verify` can derive them again.

Tested in tests/curation/verify/test_verify.py.
"""

from __future__ import annotations

from nextscene.curation.config import BuildConfig
from nextscene.curation.ledger import Row
from nextscene.curation.media.probe import UNKNOWN_DURATION
from nextscene.curation.plan import PlannedClip
from nextscene.curation.sources import OPEN_END
from nextscene.shards.format.sample import Record


def record_of(config: BuildConfig, clip: PlannedClip, row: Row) -> Record:
    """Return the record of a kept clip, made from its rows in plan and ledger alone."""
    if clip.end_ms != OPEN_END:
        end = clip.end_ms / 1000
    elif row.duration != UNKNOWN_DURATION:
        end = row.duration
    else:
        end = clip.start_ms / 1000 + row.frames / config.encode.fps
    return Record(
        clip_id=row.clip_id,
        source=row.source,
        start=clip.start_ms / 1000,
        end=end,
        caption=row.caption,
        scene_description=row.scene_description,
        verdict=row.verdict,
        rounds=row.rounds,
        judge=row.judge,
        judge_model=row.judge_model,
        prompt_sha256=row.prompt_sha256,
        frames=row.frames,
        fps=float(config.encode.fps),
        width=row.width,
        height=row.height,
        mp4_sha256=row.mp4_sha256,
        source_width=row.source_width,
        source_height=row.source_height,
        provenance=clip.provenance,
    )


def conditioning_text(row: Row) -> str:
    """Return the text that a model is conditioned on: the scene, or the caption if there is none."""
    return row.scene_description or row.caption
