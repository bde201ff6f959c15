"""The making of EVAL/report.html: scores, differences, and the videos of all models side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nextscene.common.errors import UsageError
from nextscene.common.page.excerpt import Excerpt
from nextscene.common.page.pictures import video_strip
from nextscene.common.page.render import render_page
from nextscene.common.storage import Storage
from nextscene.evaluation.report.read import EvaluationData, JudgedVideo, ModelVideos, read_evaluation
from nextscene.shards.format.layout import REPORT

MAX_SCENES = 200
MAX_STRIPS = 600
_MAX_REASON = 800
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class VideoCell:
    """A video on the page: a film strip as a JPEG in base64, the address of the video, and what the judge said."""

    model: str
    seed: int
    jpeg: str
    video: str
    verdict: str
    caption: Excerpt
    reason: Excerpt


@dataclass(frozen=True)
class SceneCard:
    """A scene, and a row for each sample with a cell for each model; None where a model has no such video.

    `difference` is that of the models' mean verdicts, `means` are these in the order of the models.
    """

    number: int
    scene: Excerpt
    rows: tuple[tuple[VideoCell | None, ...], ...]
    means: tuple[float | None, ...]
    difference: float | None

    @property
    def is_missing(self) -> bool:
        return any(cell is None or not cell.verdict for row in self.rows for cell in row)


@dataclass(frozen=True)
class ScoreRow:
    """A score or a difference of scores with its interval, and its place on a bar of 100 units."""

    name: str
    mean: float
    low: float
    high: float
    about: str
    begin: float
    width: float
    middle: float


def write_evaluation_report(out: Storage) -> None:
    """Write the page about the evaluation in a local folder, by what is in it now.

    Raise UsageError if no model has a video yet, StorageFault if the page cannot be written.
    """
    folder = out.local_path("")
    data = read_evaluation(folder) if folder else None
    if not folder or data is None or not data.scenes():
        raise UsageError(f"{out.display_uri} holds no video of a model yet; there is a page once there is one")
    out.write(REPORT, render_evaluation(folder, data).encode("utf-8", "replace"))


def render_evaluation(folder: Path, data: EvaluationData) -> str:
    """Return the page as text. The same files give the same page."""
    scenes = data.scenes()
    return render_page(
        _HERE,
        ("page.css", "film.css", "evaluation.css"),
        ("film.js", "evaluation.js"),
        videos=True,
        name=folder.resolve().name,
        models=data.models,
        summary=data.summary,
        scores=_scores(data.summary),
        differences=_differences(data.summary),
        judge=_judge(data.summary),
        cards=_cards(folder, data, scenes),
        scenes=len(scenes),
    )


def _cards(folder: Path, data: EvaluationData, scenes: list[str]) -> list[SceneCard]:
    """Return cards of the scenes, those first on which the models differ most."""
    numbered = [(-(data.difference(scene) or 0.0), number, scene) for number, scene in enumerate(scenes)]
    strips = MAX_STRIPS
    cards = []
    for _, number, scene in sorted(numbered)[:MAX_SCENES]:
        columns = [model.videos.get(scene, []) for model in data.models]
        rows = []
        for place in range(max(map(len, columns))):
            row: list[VideoCell | None] = []
            for model, videos in zip(data.models, columns, strict=True):
                row.append(_cell(folder, model, videos[place], strips > 0) if place < len(videos) else None)
                strips -= 1
            rows.append(tuple(row))
        means = tuple(model.mean(scene) for model in data.models)
        cards.append(SceneCard(number, Excerpt.of(scene), tuple(rows), means, data.difference(scene)))
    return cards


def _cell(folder: Path, model: ModelVideos, video: JudgedVideo, drawn: bool) -> VideoCell:
    is_there = video.file.is_file()
    return VideoCell(
        model.name,
        video.seed,
        video_strip(video.file) if drawn and is_there else "",
        quote(video.file.relative_to(folder).as_posix()) if is_there else "",
        video.verdict,
        Excerpt.of(video.caption, _MAX_REASON),
        Excerpt.of(video.reason, _MAX_REASON),
    )


def _scores(summary: Mapping[str, Any]) -> list[ScoreRow]:
    """Return the scores, highest first."""
    rows = []
    for model in summary.get("models", ()):
        score = model.get("score")
        if score:
            about = f"{score['judged']:,} judged, {score['missing']:,} missing, {score['scenes']:,} scenes"
            rows.append(_row(str(model["name"]), score, about, 0.0, 1.0))
    return sorted(rows, key=lambda row: (-row.mean, row.name))


def _differences(summary: Mapping[str, Any]) -> list[ScoreRow]:
    """Return the differences of the models' scores, largest first, each from the better model to the worse one."""
    rows = []
    for said in summary.get("differences", ()):
        found, one, other = said, str(said["of"]), str(said["from"])
        if said["mean"] < 0:
            one, other = other, one
            found = {**said, "mean": -said["mean"], "low": -said["high"], "high": -said["low"]}
        clear = "the interval is above 0" if found["low"] > 0 else "the interval holds 0: not clear"
        rows.append(_row(f"{one} − {other}", found, f"{found['scenes']:,} scenes; {clear}", -1.0, 1.0))
    return sorted(rows, key=lambda row: (-row.mean, row.name))


def _row(name: str, found: Mapping[str, Any], about: str, low: float, high: float) -> ScoreRow:
    def at(value: float) -> float:
        return 100 * (value - low) / (high - low)

    mean, begin, end = (float(found[part]) for part in ("mean", "low", "high"))
    return ScoreRow(name, mean, begin, end, about, at(begin), max(0.5, at(end) - at(begin)), at(mean))


def _judge(summary: Mapping[str, Any]) -> str:
    judge = summary.get("judge")
    return str(judge.get("model", "")) if isinstance(judge, dict) else ""
