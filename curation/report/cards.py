"""The data of a clip's card on the page. Tested in tests/curation/report/test_page.py."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from nextscene.common.errors import DamagedRecord
from nextscene.common.page.excerpt import Excerpt
from nextscene.common.text import readable_text
from nextscene.curation.ledger import Row
from nextscene.curation.report.filmstrips import Filmstrip
from nextscene.curation.sources import OPEN_END

_MAX_REMARK = 400
_MAX_SOURCE = 200
_MAX_ATTEMPTS = 5


@dataclass(frozen=True)
class Attempt:
    """A scene that the verifier rejected, and the reason."""

    scene: Excerpt
    reason: Excerpt


@dataclass(frozen=True)
class Card:
    """One clip on the page. Texts are as their sources wrote them; the template escapes them."""

    clip_id: str
    outcome: str
    reason: str
    detail: Excerpt
    split: str
    source: Excerpt
    span: str
    facts: tuple[str, ...]
    scene: Excerpt
    caption: Excerpt
    captioned_by: str
    verdict: str
    verdict_reason: Excerpt
    rounds: int
    judge: str
    usd: str
    turned_down: tuple[Attempt, ...]
    more_turned_down: int
    pictures: tuple[str, ...]
    missing: Excerpt


def make_card(row: Row, strip: Filmstrip, fps: int) -> Card:
    """Return a clip's card. `fps` is that of the shards. Raise DamagedRecord if the row's `turned_down` is invalid."""
    attempts = _attempts(row)
    return Card(
        clip_id=row.clip_id,
        outcome=row.outcome,
        reason=row.reason,
        detail=Excerpt.of(row.detail, _MAX_REMARK),
        split=row.split,
        source=Excerpt.of(row.source, _MAX_SOURCE),
        span=_span(row),
        facts=tuple(_facts(row, fps)),
        scene=Excerpt.of(row.scene_description),
        caption=Excerpt.of(row.caption),
        captioned_by=row.captioned_by,
        verdict=row.verdict,
        verdict_reason=Excerpt.of(row.verdict_reason, _MAX_REMARK),
        rounds=row.rounds,
        judge=row.judge_model or row.judge,
        usd=f"${row.usd:,.4f}" if row.usd else "",
        turned_down=attempts[:_MAX_ATTEMPTS],
        more_turned_down=len(attempts[_MAX_ATTEMPTS:]),
        pictures=tuple(base64.b64encode(jpeg).decode() for jpeg in strip.frames),
        missing=Excerpt.of(readable_text(strip.missing), _MAX_REMARK),
    )


def _attempts(row: Row) -> tuple[Attempt, ...]:
    try:
        values = json.loads(row.turned_down) if row.turned_down else []
        if row.verdict != "Pass" and values and values[-1]["scene"] == row.scene_description:
            values.pop()  # the last rejected scene is the row's own
        return tuple(
            Attempt(Excerpt.of(value["scene"], _MAX_REMARK), Excerpt.of(value["reason"], _MAX_REMARK))
            for value in values
        )
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedRecord(f"the ledger's `turned_down` of clip {row.clip_id} is not a list of attempts") from error


def _span(row: Row) -> str:
    """Return the clip's span in its source video; "" for the whole video."""
    if row.end_ms != OPEN_END:
        return f"{_clock(row.start_ms)}–{_clock(row.end_ms)}"
    return f"from {_clock(row.start_ms)}" if row.start_ms else ""


def _clock(milliseconds: int) -> str:
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes}:{rest / 1000:04.1f}"


def _facts(row: Row, fps: int) -> list[str]:
    facts = []
    if row.kept:
        facts.append(f"{row.frames / fps:.1f} s" if row.frames > 1 else "an image")
    if row.source_width > 0:
        facts.append(f"{row.source_width} × {row.source_height}")
    return facts
