"""An evaluation's folder to order: two models, four scenes, with every kind of verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from nextscene.common.mp4 import write_mp4

SCENES = ("A glass wobbles.", "Dark clouds gather.", "<script>alert('scene')</script>", "A dog barks.")
VERDICTS = {"sft": ("Pass", "Pass", "Fail", ""), "rl": ("Pass", "Fail", "Pass", "Pass")}
REASON = "\"><img src=x onerror=alert('reason')>"


def write_evaluation(folder: Path) -> Path:
    folder.mkdir()
    (folder / "nextscene.json").write_text('{"kind": "evaluation", "version": 1}\n')
    for name in VERDICTS:
        write_model(folder / name)
    scores = {"sft": (2 / 3, 3, 1), "rl": (0.75, 4, 0)}
    models = [
        {"name": name, "score": {"mean": mean, "low": 0.2, "high": 0.9, "scenes": 4, "judged": judged, "missing": left}}
        for name, (mean, judged, left) in scores.items()
    ]
    difference = {"of": "rl", "from": "sft", "mean": -0.1, "low": -0.3, "high": 0.2, "scenes": 3}
    write_summary(folder, models=models, differences=[difference])
    return folder


def write_model(folder: Path, judged: bool = True) -> None:
    """Write a model's videos, and what was said of them. The videos of `rl` are white, others black."""
    (folder / "videos").mkdir(parents=True)
    shade = 255 if folder.name == "rl" else 0
    items = []
    for number, (scene, verdict) in enumerate(zip(SCENES, VERDICTS[folder.name], strict=True)):
        file = f"{number:05}-0.mp4"
        write_mp4(folder / "videos" / file, np.full((9, 24, 32, 3), shade, np.uint8), 16.0)
        items.append({"scene": scene, "seed": number, "file": file, "model": f"model {folder.name}"})
        if judged:
            items[-1] |= {"caption": f"caption {number}", "verdict": verdict, "reason": REASON}
    name = "items.jsonl" if judged else "videos.jsonl"
    (folder / name).write_text("".join(json.dumps(item) + "\n" for item in items) + '{"scene": "cut sh')


def write_summary(folder: Path, **summary: Any) -> None:
    value = {"samples": 1, "judge": {"model": "a-judge"}, "spent_usd": "0.12", **summary}
    (folder / "summary.json").write_text(json.dumps(value))
