"""Evaluation of models: each generates videos of the same scenes, and a judge says if they follow from the scenes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from nextscene.common.errors import UsageError
from nextscene.common.run_lock import hold_lock
from nextscene.common.storage import Storage
from nextscene.common.text import first_line
from nextscene.evaluation.comparison import EvaluationResult, ModelResult
from nextscene.evaluation.judge_videos import judge_folder, reward_of
from nextscene.evaluation.model_names import explain_bad_name
from nextscene.evaluation.progress import NewProgress, Silent
from nextscene.evaluation.report.make import write_evaluation_report
from nextscene.evaluation.video_folder import VIDEOS, Record, VideoFolder
from nextscene.evaluation.video_judge import VIDEO_JUDGES, VideoJudge, VideoJudgeTerms
from nextscene.evaluation.videos import make_missing, plan_videos
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.spending.prices import Price
from nextscene.shards.format.folder_mark import EVALUATION, claimed
from nextscene.shards.format.layout import SUMMARY
from nextscene.training.generation.open_generator import GeneratorSpec


def evaluate(
    models: Mapping[str, GeneratorSpec],
    scenes: Sequence[str],
    out: str | Path,
    *,
    judge_with: str = "claude",
    judge: ClaudeConfig | None = None,
    price: Price | None = None,
    budget_usd: Decimal | None = None,
    samples: int = 1,
    seed: int = 0,
    batch: int = 1,
    progress: NewProgress = Silent,
) -> EvaluationResult:
    """Score models by causal consistency, as for the paper's Table 6.

        models = {"nsp": of_export(Path("runs/film/export")), "ltx": of_original(Path("LTX"))}
        result = evaluate(models, ["A glass wobbles at the edge of a table."], "eval", budget_usd=Decimal(5))
        for model in result.models:
            print(model.name, model.score)

    Each model makes `samples` videos of each scene, `batch` at a time, with seeds derived from `seed` and the scene.
    Claude captions each video without knowing the scene, and then says if the caption follows from the scene;
    `judge_with` may name another judge of `evaluation.video_judge.VIDEO_JUDGES`, which spends nothing. The folder
    `out` keeps videos, answers, `items.jsonl` of each model, `summary.json` and the page, `report.html`. Videos that
    are there are not made again, and answers that are there are not asked again. `price` is that of the judge's model;
    None takes it from the table of prices. `budget_usd` limits what is spent on `out` over all calls.

    Raise UsageError for a name that is not valid, an unknown judge, a folder with other contents, or a missing key;
    JudgeStopped, StorageFault or TrainingStopped if it cannot continue. The same call continues it later.
    """
    if judge_with not in VIDEO_JUDGES:
        raise UsageError(
            f"`judge_with` {judge_with!r} is not known; the judges of videos are {', '.join(VIDEO_JUDGES)}"
        )
    for name in models:
        if problem := explain_bad_name(name):
            raise UsageError(f"the model {name!r}: {problem}")
    run = uuid.uuid4().hex
    with claimed(Storage.at(out), EVALUATION) as place, hold_lock(place, run) as heartbeat:
        folder = heartbeat.out
        terms = VideoJudgeTerms(judge or ClaudeConfig(), price, folder, budget_usd, run)
        with closing(VIDEO_JUDGES[judge_with](terms)) as asking:
            records: dict[str, list[Record]] = {}
            for name, spec in models.items():
                records[name] = plan_videos(spec, scenes, samples, seed, lambda number, one: f"{number:05}-{one}.mp4")
                videos = VideoFolder(folder.subfolder(name), VIDEOS)
                make_missing(videos, spec, records[name], batch, progress(f"generating {name}"))
            results = tuple(_judge_all(asking, models, folder, records, progress))
        result = EvaluationResult(results, asking.report())
        about = {"scenes": len(scenes), "samples": samples, "seed": seed, "judge": dict(asking.settings)}
        summary = {**about, "spent_usd": str(result.calls.spent), **result.summary()}
        folder.write_if_changed(SUMMARY, (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode())
        return replace(result, page_failure=_write_page(folder))


def _write_page(folder: Storage) -> str:
    """Write the page. Return why it could not be written, or "": what was paid for is not lost for a page."""
    try:
        write_evaluation_report(folder)
    except Exception as error:  # noqa: BLE001 – whatever it is, the results are complete without the page
        return first_line(error)
    return ""


def _judge_all(
    asking: VideoJudge,
    models: Mapping[str, GeneratorSpec],
    folder: Storage,
    records: Mapping[str, list[Record]],
    progress: NewProgress,
) -> Iterator[ModelResult]:
    shown = progress("judging")
    shown.begin(sum(map(len, records.values())), 0)

    def tick(more: int) -> None:
        shown.advance(more)
        shown.tick(asking.report())

    try:
        for name, spec in models.items():
            videos = Path(folder.full_path(f"{name}/{VIDEOS}"))
            items = judge_folder(asking, videos, records[name], tick)
            lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
            folder.write_if_changed(f"{name}/items.jsonl", lines.encode())
            yield _result(name, spec, items)
    finally:
        shown.end()


def _result(name: str, spec: GeneratorSpec, items: Sequence[Mapping[str, Any]]) -> ModelResult:
    rewards: dict[str, list[float | None]] = {}
    for item in items:
        rewards.setdefault(item["scene"], []).append(reward_of(item))
    about = {"model": spec.name, "sampling": asdict(spec.sampling)}
    usd = sum((Decimal(item["usd"]) for item in items), Decimal(0))
    return ModelResult(name, about, rewards, usd, items[-1]["reason"])
