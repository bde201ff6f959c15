"""`nextscene evaluate`: scores of models as in the paper, from a judge's verdicts on the videos that they generate."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from nextscene.pipelines.cli import startup  # noqa: F401  before all that may be missing, and all that takes its time

# isort: split
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from nextscene.common.config_loader import flat
from nextscene.common.errors import UsageError
from nextscene.common.storage import BadLocation, Storage
from nextscene.common.typed_path import check_typed_path
from nextscene.evaluation.model_names import explain_bad_name
from nextscene.evaluation.scenes import dataset_scenes
from nextscene.evaluation.vbench import UnusablePrompt, fill_folders
from nextscene.judge.api.api_key import check_key
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.key_check import check_key_accepted
from nextscene.judge.spending.prices import Prices
from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.command import Command, renamed
from nextscene.pipelines.cli.evaluation_report import print_evaluation, unjudged_models
from nextscene.pipelines.cli.exit_codes import GoOn, handle_errors
from nextscene.pipelines.cli.generation import MOST_SEED, SAMPLES, sampling_options, scenes_in
from nextscene.pipelines.cli.options import chosen, dollars, options
from nextscene.pipelines.cli.paths import EXISTING_FILE, LocalPath, check_dataset, check_out
from nextscene.pipelines.cli.progress import ProgressLine
from nextscene.pipelines.cli.shared_options import prices_option
from nextscene.shards.format.folder_mark import EVALUATION
from nextscene.shards.format.layout import REPORT
from nextscene.training.generation.open_generator import GeneratorSpec, of_checkpoint, of_export, of_original
from nextscene.training.model.hub import LTX, LTX_WITH_TEXT_ENCODER, QWEN, model_folder
from nextscene.training.model.model_folders import export_of

if TYPE_CHECKING:
    from nextscene.training.config import PromptForm

_VBENCH = "--vbench: its videos are not judged here,"
_GO_ON = GoOn("the videos and the answers so far are kept")


@dataclass(frozen=True)
class _Settings:
    judge: ClaudeConfig = field(default_factory=ClaudeConfig)

    def __post_init__(self) -> None:
        for name, value in flat(self).items():
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name} must be above 0, not {value}")


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
@click.option("--scenes", type=EXISTING_FILE, help="A text file with a scene on each line, instead of --data.")
@click.option(
    "--vbench",
    type=EXISTING_FILE,
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
@prices_option
@click.option(
    "--judge-with",
    type=click.Choice(["claude", "shapes"]),
    default="claude",
    show_default=True,
    help="Judge: Claude, or the verifier of the sample world of make-shapes, which reads pixels and costs nothing.",
)
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
    judge_with: str,
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
    amount: dict[str, Any] = {"seed": seed, "batch": batch, "samples": samples or (5 if vbench else 1)}
    if vbench:
        _refuse({"budget_usd": budget_usd, "prices": prices, "judge_model": judge_model, **flags}, sampling, _VBENCH)
        _fill_folders(opened, texts, out, amount)
        return
    settings = chosen(_Settings, None, flags | {"judge__model": judge_model}).judge
    budget, price = dollars("--budget-usd", budget_usd), None
    if judge_with == "claude":
        price = Prices.load(prices).for_model(settings.model, "judge.model")
        check_key(instead=", or fill folders for VBench by --vbench, which asks nobody")
        check_key_accepted(Storage.at(out), settings.model)
    else:
        paid = {"budget_usd": budget_usd, "prices": prices, "judge_model": judge_model, **flags}
        _refuse(paid, sampling, f"--judge-with {judge_with}: it asks nobody,")
    from nextscene.evaluation.run import evaluate  # imported late, because it imports torch, so that --help is fast

    terms: dict[str, Any] = {"judge_with": judge_with, "judge": settings, "price": price, "budget_usd": budget}
    result = evaluate(opened, texts, out, progress=_progress, **terms, **amount)
    print_evaluation(result)
    console.out.print(f"records   {out}: summary.json; items.jsonl and videos of each model", markup=False)
    if result.page_failure:
        console.err.print(f"the page of the evaluation was not written: {result.page_failure}", markup=False)
    else:
        console.out.print(f"report    {out / REPORT}", markup=False)
    if unjudged := unjudged_models(result):
        console.fail("\n".join(unjudged), console.ATTENTION)


def _progress(part: str) -> ProgressLine:
    return ProgressLine(part, "videos")


def _fill_folders(
    models: Mapping[str, GeneratorSpec], prompts: Sequence[str], out: Path, amount: dict[str, int]
) -> None:
    try:
        for one in fill_folders(models, prompts, out, progress=_progress, **amount):
            console.out.print(
                f"{one.name}: {one.videos:,} videos, {one.made:,} of them new, in {one.folder}", markup=False
            )
    except UnusablePrompt as error:
        raise UsageError(f"--vbench: {error}") from error


def _refuse(flags: Mapping[str, Any], but: Container[str], why: str) -> None:
    """Raise UsageError for a flag that was given and for which there is nothing, except for those in `but`."""
    for name, value in flags.items():
        if value is not None and name not in but:
            flag = f"--{name.replace('__', '.').replace('_', '-')}"
            raise UsageError(f"{why} so there is nothing for {flag}; leave it out")


def _texts(data: str | None, split: str, scenes: Path | None, vbench: Path | None, max_scenes: int | None) -> list[str]:
    """Return the scenes or prompts, without duplicates. Raise UsageError unless exactly one source is given."""
    if [data, scenes, vbench].count(None) != 2:
        raise UsageError("name one source of scenes: --data, --scenes or --vbench")
    if data is not None:
        check_dataset("--data", data, split)
        try:
            return dataset_scenes(data, split, max_scenes)
        except UsageError as error:
            raise UsageError(f"--data {error}") from error
    flag, file = ("--vbench", vbench) if vbench else ("--scenes", scenes)
    assert file  # noqa: S101 – exactly one of the three is given
    return list(dict.fromkeys(scenes_in(flag, file)))[:max_scenes]


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
        if problem := explain_bad_name(name):
            raise UsageError(f"{flag} {one}: {problem}")
        if name in found:
            raise UsageError(f"{flag} {one}: the name {name} is taken; give each model one of its own")
        try:
            path = Path(check_typed_path(place)).expanduser()
        except (BadLocation, RuntimeError) as mistake:
            raise UsageError(f"{flag} {one}: {mistake}") from mistake
        if flag == "--original":
            opening = of_original(model_folder(path, LTX_WITH_TEXT_ENCODER), **asked)
        else:
            opening = _opening(path, qwen, ltx, form, asked)
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
        return of_checkpoint(place, model_folder(qwen, QWEN), model_folder(ltx, LTX), form, **asked)
    return of_export(export_of(place), form, **asked)


if __name__ == "__main__":
    main()
