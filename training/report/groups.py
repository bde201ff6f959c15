"""Groups of the stage `rl`: candidates with their verdicts, reasons and advantages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from PIL import Image

from nextscene.common.page.excerpt import Excerpt
from nextscene.common.page.pictures import jpeg_data
from nextscene.training.report.samples import numbered_folders, spread, video_path
from nextscene.training.sample_layout import CANDIDATES

MAX_GROUPS = 16
_NEWEST = 6
_OF_EACH_KIND = 3
_MAX_STEPS_READ = 64
_MAX_GROUPS_READ = 512
_MAX_FILE_BYTES = 4 << 20
_MAX_CANDIDATES = 64
_MAX_REASON = 600
_WIDTH = 160
_SHEET_WIDTH = 1280
_VERDICTS = ("Pass", "Fail", "missing")


@dataclass(frozen=True)
class CandidateCard:
    """One candidate. `reward` and `advantage` are None without a verdict."""

    number: int
    verdict: str
    reward: float | None
    advantage: float | None
    learnt_from: bool
    reason: Excerpt
    caption: Excerpt
    jpeg: str
    video: str


@dataclass(frozen=True)
class GroupCard:
    """A scene and its candidates, highest reward first. `why` says why it is on the page.

    `sheet` is a picture of all of them, if the record is too old to say where each of them is in it, and otherwise "".
    """

    step: int
    why: str
    scene: Excerpt
    judged_by: str
    usd: float
    candidates: tuple[CandidateCard, ...]
    sheet: str = ""

    @property
    def rewards(self) -> list[float]:
        return [one.reward for one in self.candidates if one.reward is not None]

    @property
    def mean(self) -> float | None:
        return fmean(self.rewards) if self.rewards else None

    @property
    def passes(self) -> int:
        return sum(one.verdict == "Pass" for one in self.candidates)


@dataclass(frozen=True)
class _Found:
    step: int
    file: Path
    record: Mapping[str, Any]
    rewards: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.rewards) if self.rewards else 0.0

    @property
    def spread(self) -> float:
        return pstdev(self.rewards) if self.rewards else 0.0


def read_groups(run: Path, stage: str) -> list[GroupCard]:
    """Return some groups, newest first: the newest ones, and those with the most spread, the best and the worst."""
    folders = numbered_folders(run / stage / CANDIDATES)
    steps = spread(sorted(folders), _MAX_STEPS_READ)
    files = ((step, file) for step in reversed(steps) for file in sorted(folders[step].glob("*.json")))
    found = [one for step, file in islice(files, _MAX_GROUPS_READ) if (one := _read(step, file))]
    chosen = _choose(found)
    return [_card(run, one, why) for one, why in sorted(chosen, key=lambda pair: (-pair[0].step, pair[0].file.name))]


def _choose(found: Sequence[_Found]) -> list[tuple[_Found, str]]:
    """Return groups, and why each of them is chosen: for what it is, or to fill the page."""
    judged = [one for one in found if one.rewards]
    kinds: tuple[tuple[str, int, Sequence[_Found]], ...] = (
        ("newest", _NEWEST, found),
        ("most spread", _OF_EACH_KIND, sorted(judged, key=lambda one: -one.spread)),
        ("highest rewards", _OF_EACH_KIND, sorted(judged, key=lambda one: -one.mean)),
        ("lowest rewards", _OF_EACH_KIND, sorted(judged, key=lambda one: one.mean)),
        ("one of the others", MAX_GROUPS, found),
    )
    chosen: dict[Path, tuple[_Found, str]] = {}
    for why, most, ordered in kinds:
        for one in islice((one for one in ordered if one.file not in chosen), most):
            chosen[one.file] = (one, why)
    return list(chosen.values())[:MAX_GROUPS]


def _read(step: int, file: Path) -> _Found | None:
    """Return a group; None if its file is incomplete, or not one of ours."""
    try:
        if file.stat().st_size > _MAX_FILE_BYTES:
            return None
        record = json.loads(file.read_text(encoding="utf-8"))
        rewards = tuple(float(one["reward"]) for one in record["candidates"] if one["reward"] is not None)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return _Found(step, file, record, rewards)


def _card(run: Path, found: _Found, why: str) -> GroupCard:
    record = found.record
    picture = _picture(found.file.with_suffix(".png"))
    candidates = [_candidate(run, found, one, picture) for one in record["candidates"][:_MAX_CANDIDATES]]
    candidates.sort(key=lambda one: (one.reward is None, -(one.reward or 0.0), one.number))
    usd = sum(_number(one.get("usd")) or 0.0 for one in record["candidates"])
    scene, judged_by = str(record.get("scene", "")), str(record.get("judged_by", ""))
    is_old = picture is not None and all("box" not in one for one in record["candidates"])
    sheet = jpeg_data(picture, _SHEET_WIDTH) if picture and is_old else ""
    return GroupCard(found.step, why, Excerpt.of(scene), judged_by, usd, tuple(candidates), sheet)


def _candidate(run: Path, found: _Found, one: Mapping[str, Any], picture: Image.Image | None) -> CandidateCard:
    number, verdict = int(_number(one.get("candidate")) or 0), str(one.get("verdict", ""))
    return CandidateCard(
        number=number,
        verdict=verdict if verdict in _VERDICTS else "missing",
        reward=_number(one.get("reward")),
        advantage=_number(one.get("advantage")),
        learnt_from=one.get("learnt_from") is True,
        reason=Excerpt.of(str(one.get("reason") or ""), _MAX_REASON),
        caption=Excerpt.of(str(one.get("caption") or ""), _MAX_REASON),
        jpeg=_part(picture, one.get("box")),
        video=video_path(run, found.file.with_name(f"{found.file.stem}-{number:02}.mp4")),
    )


def _number(value: object) -> float | None:
    """Return a number, also one that is written as text; None if there is none."""
    try:
        return None if value is None else float(str(value))
    except ValueError:
        return None


def _picture(path: Path) -> Image.Image | None:
    try:
        with Image.open(path) as opened:
            return opened.convert("RGB")
    except (OSError, ValueError, SyntaxError):  # it is being written, or was deleted meanwhile
        return None


def _part(picture: Image.Image | None, box: object) -> str:
    """Return the part of the group's picture that shows one candidate; "" if the record does not say where it is."""
    if picture is None or not (isinstance(box, list) and len(box) == 4 and all(type(side) is int for side in box)):
        return ""
    left, top, right, bottom = box
    if not (0 <= left < right <= picture.width and 0 <= top < bottom <= picture.height):
        return ""
    return jpeg_data(picture.crop((left, top, right, bottom)), _WIDTH)
