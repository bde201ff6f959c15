"""Explanation of a finished dataset that keeps no clip, with the settings that would keep some."""

from __future__ import annotations

import json
from collections.abc import Iterable

from nextscene.curation.config import BuildConfig
from nextscene.curation.plan import Plan
from nextscene.curation.sources.columns import SCENE
from nextscene.judge.film import FILM

_MOST_REASONS = 3
_TOO_SMALL = frozenset(["too_small", "too_narrow", "too_low"])
_OTHER_JUDGE = "`judge` none or `judge` claude"


def source_has_scenes(plan: Plan) -> bool:
    """Return whether the first clips of a plan have a column `scene`, which no judge but `given` reads."""
    first = next(plan.shards(), None)
    clips = plan.units(first[0])[0].clips if first else ()
    return any(clip.provenance and SCENE in json.loads(clip.provenance) for clip in clips)


def why_nothing_is_kept(ends: Iterable[tuple[str, str, int]], config: BuildConfig, has_scenes: bool = False) -> str:
    """Return, as one line, the three commonest of these (outcome, reason, clips), and the remedy for each.

    `has_scenes`: the source has scenes, which the judge does not read.
    """
    commonest = sorted(ends, key=lambda end: -end[2])[:_MOST_REASONS]
    counts = ", ".join(f"{count:,} {outcome} {reason}".rstrip() for outcome, reason, count in commonest)
    remedies = dict.fromkeys(_remedy(reason, config, has_scenes) for _, reason, _ in commonest)
    told = "; ".join(filter(None, remedies))
    return f"{counts}; {told}; then build into another `out`" if told else counts


def _remedy(reason: str, config: BuildConfig, has_scenes: bool) -> str:
    """Return the remedy for another build; "" if no setting changes it."""
    other_judge = f"`judge` given, which takes the source's scenes, {_OTHER_JUDGE}" if has_scenes else _OTHER_JUDGE
    rules, film = config.rules, config.judge == FILM.name
    if reason in _TOO_SMALL:
        sizes = f"`rules.min_width` {rules.min_width} `rules.min_height` {rules.min_height}"
        return f"lower {sizes}, or for images `rules.min_image_side` {rules.min_image_side}"
    if reason == "first_shot":
        none = "no shot with a caption is just before them in their files"
        return f"{none}: for clips of one shot each give {other_judge}"
    if reason == "no_pass" and film:
        overlap = f"raise `film.max_overlap` {config.film.max_overlap:g}"
        return f"their words are too much like those of the shots before: {overlap}, or give {other_judge}"
    return {
        "hdr": "give `rules.hdr` convert instead of `rules.hdr` reject",
        "damaged": f"raise `rules.max_damaged_frames` {rules.max_damaged_frames}",
        "span_outside": "correct `start` and `end` in the manifest",
        "no_scene": "give the source a column `scene`, or another `judge`",
        "no_caption": "give the source captions, or `judge` claude `caption_missing`",
    }.get(reason, "")
