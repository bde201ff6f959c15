"""`nextscene evaluate`: models scored as in the paper, by a judge of the videos that they make."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from nextscene.pipelines.cli import startup  # noqa: F401  before all that may be missing, and all that takes its time

# isort: split
import hashlib
import json
import re
import uuid
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from nextscene.common.config_loader import flat
from nextscene.common.errors import UsageError
from nextscene.common.fence import LOCK
from nextscene.common.run_lock import hold_lock
from nextscene.common.storage import BadLocation, Storage
from nextscene.common.typed_path import check_typed_path
from nextscene.evaluation.video_folder import Record, VideoFolder
from nextscene.judge.api.api_key import check_key
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.run_ownership import RunOwnershipCheck
from nextscene.judge.spending.prices import Price, Prices
from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.command import Command, renamed
from nextscene.pipelines.cli.exit_codes import handle_errors
from nextscene.pipelines.cli.generation import MOST_SEED, SAMPLES, fill, record, sampling_options, scenes_in
from nextscene.pipelines.cli.options import chosen, dollars, options
from nextscene.pipelines.cli.paths import LocalPath, check_dataset, check_out
from nextscene.shards.format.folder_mark import EVALUATION, claimed
from nextscene.shards.format.layout import MARK, SUMMARY
from nextscene.shards.format.sample import MEMBERS, Sample
from nextscene.shards.loading.reader import SplitReader
from nextscene.training.generation.open_generator import GeneratorSpec, of_checkpoint, of_export, of_original
from nextscene.training.model.model_folders import export_of

if TYPE_CHECKING:
    from nextscene.evaluation.comparison import Result
    from nextscene.training.config import PromptForm
    from nextscene.training.rewards.asking import JudgeThread

_FILE = LocalPath(exists=True, dir_okay=False)
_GO_ON = "the videos and the answers so far are kept, and the command goes on from them"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TAKEN = ("account.json", "batches", "calls", LOCK, MARK, SUMMARY)
_VIDEOS = "videos"
_LONGEST_NAME = 220
"""Bytes of a file's name, which leaves room for the name of its draft."""


@dataclass(frozen=True)
class _Settings:
    judge: ClaudeConfig = field(default_factory=ClaudeConfig)

    def __post_init__(self) -> None:
        for name, value in flat(self).items():
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name} must be above 0, not {value}")


@dataclass(frozen=True)
class _Plan:
    """The texts that each model is given, how many videos of each it makes, and where all of it goes."""

    out: Path
    texts: list[str]
    samples: int
    seed: int
    batch: int

    def records(self, opening: GeneratorSpec, named: Callable[[int, int], str]) -> list[Record]:
        """`named` gives the file of a text's sample, both by their numbers."""
        return [
            record(opening, named(number, sample), text, self._seed_of(text, sample))
            for number, text in enumerate(self.texts)
            for sample in range(self.samples)
        ]

    def about(self) -> dict[str, Any]:
        return {"scenes": len(self.texts), "samples": self.samples, "seed": self.seed}

    def _seed_of(self, text: str, sample: int) -> int:
        """The same for all models, whatever the other texts are."""
        digest = hashlib.sha256(f"{self.seed}\0{sample}\0{text}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1


@click.command(cls=Command)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME=RUN",
    help="A model: a run of training, its export, or a checkpoint with --qwen and --ltx. Any number of times.",
)
@click.option(
    "--original", "originals", multiple=True, metavar="NAME=LTX", help="The original LTX-Video, as a further model."
)
@click.option("--qwen", type=LocalPath(), help="For checkpoints: Qwen2.5-VL, as in training.")
@click.option("--ltx", type=LocalPath(), help="For checkpoints: LTX-Video 0.9.0, as in training.")
@click.option("--data", help="A dataset whose scenes are used; a path or s3://…")
@click.option("--split", default="test", show_default=True, help="Split of --data.")
@click.option("--scenes", type=_FILE, help="A text file with a scene on each line, instead of --data.")
@click.option(
    "--vbench",
    type=_FILE,
    help="VBench's prompts, instead of --data: the folders that VBench reads are filled, nothing is judged.",
)
@click.option("--max-scenes", type=click.IntRange(1), help="Most scenes to use.  [default: all]")
@renamed("--most", "--max-scenes")
@click.option("--samples", type=SAMPLES, help="Videos for each scene.  [default: 1; with --vbench 5]")
@click.option("--seed", type=click.IntRange(0, MOST_SEED), default=0, show_default=True, help="Seed of all videos.")
@click.option("--out", type=LocalPath(), required=True, help="Folder for videos, answers, records and the summary.")
@click.option(
    "--form",
    type=click.Choice(["nsp", "t2v"]),
    help="Prompt: nsp for what happens after the text, t2v for what it says.  [default: nsp; with --vbench t2v]",
)
@sampling_options
@click.option(
    "--budget-usd",
    type=click.FloatRange(0, min_open=True),
    help="Most to spend on --out, over all runs.  [default: no limit]",
)
@click.option("--prices", type=_FILE, help="A TOML file of the judge's prices.  [default: judge/spending/prices.toml]")
@click.option("--judge-model", help=f"Model of the judge.  [default: {ClaudeConfig().model}]")
@options(_Settings, without=("judge.model", "judge.rounds", "judge.prompt_version"))
@renamed("--judge.model", "--judge-model")
@handle_errors(_GO_ON)
def main(
    models: tuple[str, ...],
    originals: tuple[str, ...],
    qwen: Path | None,
    ltx: Path | None,
    data: str | None,
    split: str,
    scenes: Path | None,
    vbench: Path | None,
    max_scenes: int | None,
    samples: int | None,
    seed: int,
    out: Path,
    form: PromptForm | None,
    batch: int,
    budget_usd: float | None,
    prices: Path | None,
    judge_model: str | None,
    **flags: Any,
) -> None:
    """Score models by causal consistency, side by side.

    As for the paper's Table 6, each model makes videos of the same scenes from the same seeds. Claude captions each
    video without knowing the scene, and then says whether the caption follows from the scene. The score is the share of
    Pass; its interval comes from resampling the scenes. Missing verdicts are counted and left out.

    The run may be stopped or killed at any moment; the same command continues it, makes no video twice and pays for no
    answer twice.

    Exit codes: 0 done, 1 nothing could be judged of a model, 2 wrong usage, 3 stopped by the budget, the account,
    network, storage or machine, or by SIGTERM, SIGHUP or SIGUSR1, 130 by Ctrl-C.
    """
    check_out(out, EVALUATION, *([] if data is None else [data]))
    texts = _texts(data, split, scenes, vbench, max_scenes)
    sampling = {name: flags[name] for name in ("frames", "width", "height", "fps", "steps", "guidance")}
    asked = {name: value for name, value in sampling.items() if value is not None}
    opened = _models(models, originals, qwen, ltx, form or ("t2v" if vbench else "nsp"), asked)
    plan = _Plan(out, texts, samples or (5 if vbench else 1), seed, batch)
    if vbench:
        _refuse({"budget_usd": budget_usd, "prices": prices, "judge_model": judge_model, **flags}, sampling)
        _fill_for_vbench(plan, opened)
        return
    settings = chosen(_Settings, None, flags | {"judge__model": judge_model}).judge
    budget = dollars("--budget-usd", budget_usd)
    price = Prices.load(prices).for_model(settings.model, "--judge-model")
    check_key(instead=", or fill folders for VBench by --vbench, which asks nobody")
    unjudged = _evaluate(plan, opened, settings, price, budget)
    if unjudged:
        console.fail("\n".join(unjudged), console.ATTENTION)


def _refuse(flags: Mapping[str, Any], but: Container[str]) -> None:
    for name, value in flags.items():
        if value is not None and name not in but:
            flag = f"--{name.replace('__', '.').replace('_', '-')}"
            raise UsageError(f"--vbench: its videos are not judged here, so there is nothing for {flag}; leave it out")


def _texts(data: str | None, split: str, scenes: Path | None, vbench: Path | None, most: int | None) -> list[str]:
    """Each once."""
    if [data, scenes, vbench].count(None) != 2:
        raise UsageError("name one source of scenes: --data, --scenes or --vbench")
    if data is not None:
        return _scenes_of(data, split, most)
    flag, file = ("--vbench", vbench) if vbench else ("--scenes", scenes)
    assert file  # noqa: S101 – one of them is there
    return list(dict.fromkeys(scenes_in(flag, file)))[:most]


def _scenes_of(data: str, split: str, most: int | None) -> list[str]:
    """In an order that has nothing to do with the films, so that the first few are a fair sample."""
    check_dataset("--data", data, split)
    reader = SplitReader(data, split)
    if reader.index.members != MEMBERS:
        raise UsageError(f"--data {data} holds {', '.join(reader.index.members)}; name the dataset of clips")
    keys = [reader.index.key(number) for number in range(len(reader))]
    found: dict[str, None] = {}
    for number in sorted(range(len(keys)), key=lambda number: hashlib.sha256(keys[number].encode()).digest()):
        if len(found) == most:
            break
        scene = Sample.of(reader.group(number), str(reader.shard_of(number))).record.scene_description
        if not scene:
            raise UsageError(f"--data {data}: nothing is said of what was before its clips; name an NSP dataset")
        found[scene] = None
    return list(found)


def _models(
    models: Sequence[str],
    originals: Sequence[str],
    qwen: Path | None,
    ltx: Path | None,
    form: PromptForm,
    asked: Mapping[str, Any],
) -> dict[str, GeneratorSpec]:
    found: dict[str, GeneratorSpec] = {}
    for flag, one in [*(("--model", one) for one in models), *(("--original", one) for one in originals)]:
        name, _, place = one.partition("=")
        if not place:
            raise UsageError(f"{flag} {one}: give the model a name, and its place: {flag} a=PATH")
        if not _NAME.fullmatch(name):
            raise UsageError(f"{flag} {one}: a name is of letters, digits, dots, hyphens and underscores")
        if name in _TAKEN or name in found:
            raise UsageError(f"{flag} {one}: the name {name} is taken; give each model one of its own")
        try:
            path = Path(check_typed_path(place)).expanduser()
        except (BadLocation, RuntimeError) as mistake:
            raise UsageError(f"{flag} {one}: {mistake}") from mistake
        opening = of_original(path, **asked) if flag == "--original" else _opening(path, qwen, ltx, form, asked)
        if same := [other for other, known in found.items() if known.name == opening.name]:
            raise UsageError(
                f"{flag} {one} is the same model as {same[0]}: RUN/export is that of the stage that ended last; name"
                " checkpoints, RUN/<recipe>/checkpoints/step-N, with --qwen and --ltx"
            )
        found[name] = opening
    if not found:
        raise UsageError("name a model, with --model NAME=RUN or --original NAME=LTX")
    return found


def _opening(
    place: Path, qwen: Path | None, ltx: Path | None, form: PromptForm, asked: Mapping[str, Any]
) -> GeneratorSpec:
    if (place / "about.json").is_file():
        if not (qwen and ltx):
            raise UsageError(f"--model {place} is a checkpoint, which needs --qwen and --ltx")
        return of_checkpoint(place, qwen, ltx, form, **asked)
    return of_export(export_of(place), form, **asked)


def _fill_for_vbench(plan: _Plan, models: Mapping[str, GeneratorSpec]) -> None:
    """OUT/NAME/videos/{prompt}-{i}.mp4: VBench takes whatever lies in such a folder for a video."""
    for text in plan.texts:
        if "/" in text or not text.isprintable() or len(f"{text}-{plan.samples - 1}.mp4".encode()) > _LONGEST_NAME:
            raise UsageError(f"--vbench: no file can be named {text[:80]!r}…: it is too long, or has what no name has")
    with claimed(Storage.at(plan.out), EVALUATION) as place, hold_lock(place, uuid.uuid4().hex) as heartbeat:
        out = heartbeat.out
        for name, opening in models.items():
            records = plan.records(opening, lambda number, sample: f"{plan.texts[number]}-{sample}.mp4")
            folder = VideoFolder(out.subfolder(name), _VIDEOS)
            made = fill(folder, opening, records, plan.batch, f"generating {name}")
            console.out.print(
                f"{name}: {len(records):,} videos, {made:,} of them new, in {folder.videos}", markup=False
            )


def _evaluate(
    plan: _Plan, models: Mapping[str, GeneratorSpec], settings: ClaudeConfig, price: Price, budget: Decimal | None
) -> list[str]:
    """First makes all videos, then asks about them. What is to be said of models of which nothing was judged."""
    from nextscene.evaluation.comparison import Comparison
    from nextscene.training.rewards.asking import JudgeThread

    run = uuid.uuid4().hex
    with claimed(Storage.at(plan.out), EVALUATION) as place, hold_lock(place, run) as heartbeat:
        out = heartbeat.out
        asking = JudgeThread(settings, price, out, budget, check_ownership=RunOwnershipCheck(out, run).check)
        try:
            records = {
                name: plan.records(opening, lambda number, sample: f"{number:05}-{sample}.mp4")
                for name, opening in models.items()
            }
            for name, opening in models.items():
                folder = VideoFolder(out.subfolder(name), _VIDEOS)
                fill(folder, opening, records[name], plan.batch, f"generating {name}")
            found = Comparison(_judged(asking, models, out, records, settings))
        finally:
            asking.close()
        judge = {name: value for name, value in asdict(asking.settings).items() if name != "rounds"}  # asked once
        found.write(out, plan.about() | {"judge": judge, "spent_usd": str(asking.report().spent)})
    found.print(asking.report())
    console.out.print(f"records   {plan.out}: summary.json; items.jsonl and videos of each model", markup=False)
    return found.unjudged()


def _judged(
    asking: JudgeThread,
    models: Mapping[str, GeneratorSpec],
    out: Storage,
    records: Mapping[str, list[Record]],
    settings: ClaudeConfig,
) -> list[Result]:
    from nextscene.evaluation.comparison import Result
    from nextscene.evaluation.judge_videos import judge_folder, reward_of

    results = []
    watch = console.ProgressLine("judging")
    watch.begin(sum(map(len, records.values())), 0)

    def tick(more: int) -> None:
        watch.advance(more)
        watch.tick(asking.report())

    try:
        for name, opening in models.items():
            items = judge_folder(asking, Path(out.full_path(f"{name}/{_VIDEOS}")), records[name], settings, tick)
            lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
            out.write_if_changed(f"{name}/items.jsonl", lines.encode())
            rewards: dict[str, list[float | None]] = {}
            for item in items:
                rewards.setdefault(item["scene"], []).append(reward_of(item))
            about = {"model": opening.name, "sampling": asdict(opening.sampling)}
            usd = sum((Decimal(item["usd"]) for item in items), Decimal(0))
            results.append(Result(name, about, rewards, usd, items[-1]["reason"]))
    finally:
        watch.end()
    return results


if __name__ == "__main__":
    main()
