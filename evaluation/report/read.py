"""The data of an evaluation on the page, read from its folder; also during the evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from nextscene.evaluation.video_folder import RECORDS, VIDEOS
from nextscene.shards.format.layout import SUMMARY

ITEMS = "items.jsonl"
_MAX_MODELS = 12
_MAX_VIDEOS = 100_000


@dataclass(frozen=True)
class JudgedVideo:
    """A video of a model, and what the judge said of it. `verdict` is Pass, Fail, or "" if there is none."""

    file: Path
    seed: int
    caption: str = ""
    verdict: str = ""
    reason: str = ""


@dataclass
class ModelVideos:
    """A model of the evaluation: its name, what it is, and its videos by scene. `is_judged` once it has verdicts."""

    name: str
    about: str = ""
    is_judged: bool = False
    videos: dict[str, list[JudgedVideo]] = field(default_factory=dict)

    def mean(self, scene: str) -> float | None:
        """Return the share of Pass among the judged videos of a scene; None if there is none."""
        known = [float(one.verdict == "Pass") for one in self.videos.get(scene, ()) if one.verdict]
        return fmean(known) if known else None


@dataclass(frozen=True)
class EvaluationData:
    """The models, in the order of the summary, and the summary; that is empty until the evaluation has ended once."""

    models: list[ModelVideos]
    summary: Mapping[str, Any]

    def scenes(self) -> list[str]:
        """Return the scenes of all models, in their order."""
        return list(dict.fromkeys(scene for model in self.models for scene in model.videos))

    def difference(self, scene: str) -> float | None:
        """Return the best mean verdict of a model on a scene minus the worst one; None with fewer than two."""
        means = [mean for model in self.models if (mean := model.mean(scene)) is not None]
        return max(means) - min(means) if len(means) > 1 else None


def read_evaluation(folder: Path) -> EvaluationData:
    """Return what is known of an evaluation by now. Files that are missing or incomplete are left out."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        summary = {}
    summary = summary if isinstance(summary, dict) else {}
    listed = [str(model.get("name")) for model in summary.get("models", ()) if isinstance(model, dict)]
    found = sorted(path.name for path in folder.iterdir() if (path / RECORDS).is_file() or (path / ITEMS).is_file())
    names = [name for name in dict.fromkeys([*listed, *found]) if name in found]
    return EvaluationData([_read_model(folder / name) for name in names[:_MAX_MODELS]], summary)


def _read_model(folder: Path) -> ModelVideos:
    model = ModelVideos(folder.name)
    items = list(islice(_lines(folder / ITEMS), _MAX_VIDEOS))
    model.is_judged = bool(items)
    for item in items or islice(_lines(folder / RECORDS), _MAX_VIDEOS):
        scene, file = item.get("scene"), item.get("file")
        if not isinstance(scene, str) or not isinstance(file, str) or "/" in file:  # the claim of a video to come
            continue
        model.about = model.about or str(item.get("model", ""))
        verdict = item.get("verdict")
        video = JudgedVideo(
            folder / VIDEOS / file,
            item["seed"] if isinstance(item.get("seed"), int) else 0,
            str(item.get("caption") or ""),
            verdict if verdict in ("Pass", "Fail") else "",
            str(item.get("reason") or ""),
        )
        model.videos.setdefault(scene, []).append(video)
    return model


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    value = json.loads(line)
                except ValueError:  # cut short
                    continue
                if isinstance(value, dict):
                    yield value
    except OSError:
        return
