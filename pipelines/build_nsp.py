"""`nextscene build`: captioned video in, sealed WebDataset shards out. The same command continues a stopped run."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from nextscene.pipelines.cli import startup  # noqa: F401  before all that may be missing, and all that takes its time

# isort: split
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

import click

from nextscene.common.errors import UsageError
from nextscene.common.ray_cluster.cluster import inside_job
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.inspect.status import status
from nextscene.curation.outcome import OUTCOMES
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.run.locations import open_out
from nextscene.curation.run.run import BuildRequest, build
from nextscene.curation.sources.mapping.layout import Layout
from nextscene.curation.sources.presets import PRESETS, split_preset
from nextscene.curation.sources.several import SourceFile, join_locations
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.registry import is_paid
from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.begun_dataset import BegunDataset, config_of
from nextscene.pipelines.cli.build_report import print_finished, print_status
from nextscene.pipelines.cli.command import Command, renamed
from nextscene.pipelines.cli.estimate import ASSUMED, print_estimate
from nextscene.pipelines.cli.exit_codes import GoOn, handle_errors
from nextscene.pipelines.cli.options import BudgetAmount, NoLimit, options
from nextscene.pipelines.cli.paths import EXISTING_FILE
from nextscene.pipelines.cli.shared_options import ray_address_option
from nextscene.pipelines.cli.stage_progress import BuildProgress
from nextscene.pipelines.cli.verification import print_verification
from nextscene.shards.format.dataset_hints import describe_folder, explain_missing_dataset
from nextscene.shards.format.folder_mark import DATASET, KIND_NAMES
from nextscene.shards.format.layout import CHECKSUMS, CONFIG, MANIFEST, PLAN

RETRIABLE = tuple(outcome for outcome in OUTCOMES if outcome != "kept")


def _kept(given: Mapping[str, Any]) -> GoOn:
    if given["verifying"] or given["telling"] or given["estimating"]:
        return GoOn("nothing was changed", "run the same command again")
    return GoOn("all that is decided is kept")


@click.command(cls=Command)
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="PATH",
    help="A folder, a manifest (.csv, .tsv, .jsonl, .parquet), a .tar, a .zip, or a video, or PRESET:FOLDER for a"
    f" public data set ({', '.join(PRESETS)}); a path or s3://…. It may be given several times.  [default: the"
    " source of --out, if that was begun]",
)
@click.option("--out", help="Where the dataset goes; a path or s3://…", required=True)
@click.option(
    "--verify", "verifying", is_flag=True, help="Read the dataset in --out back and check all of it; change nothing."
)
@click.option("--status", "telling", is_flag=True, help="Show how far the run in --out is; change nothing.")
@click.option(
    "--retry",
    metavar="OUTCOMES",
    help=f"Process clips with these outcomes again, comma-separated: {', '.join(RETRIABLE)}.",
)
@click.option(
    "--stop-after", type=click.IntRange(1), metavar="N", help="Stop after N more clips are decided.  [default: all]"
)
@click.option("--workers", type=click.IntRange(1), help="CPUs to use.  [default: all]")
@ray_address_option
@click.option("--model", help=f"Model of --judge claude.  [default: {ClaudeConfig().model}]")
@click.option("--estimate", "estimating", is_flag=True, help="Estimate what --judge claude would cost; send nothing.")
@click.option("--assume", default="", metavar="NAME=X,…", help=f"Fix assumptions of --estimate: {', '.join(ASSUMED)}.")
@click.option(
    "--budget-usd",
    type=BudgetAmount(),
    metavar="X|none",
    help="Most to spend on --out, over all runs; none means no limit.  [default: as last given for --out, else none]",
)
@click.option(
    "--batches/--no-batches",
    default=None,
    help="Ask in message batches: half the price, answers within a day.  [default: as last given for --out, else no]",
)
@click.option(
    "--partial", is_flag=True, help="The source is known to lack files: end with 0 although some clips are absent."
)
@click.option("--caption-missing", is_flag=True, help="Have --judge claude caption clips that have no caption.")
@click.option("--skip-uncaptioned", is_flag=True, help="Under --judge claude, reject clips that have no caption.")
@click.option(
    "--prices",
    type=EXISTING_FILE,
    help="A TOML file of prices.  [default: as last given for --out, else judge/spending/prices.toml]",
)
@click.option("--config", type=EXISTING_FILE, help="A TOML file of settings.")
@click.option(
    "--sources",
    "sources_file",
    type=EXISTING_FILE,
    help="A TOML file of several sources, each as [[source]].  [default: none]",
)
@click.option("--map", type=EXISTING_FILE, help="A TOML file that says how the source is laid out.  [default: none]")
@options(BuildConfig, without=("claude.model", "claude.prompt_version", "map", "source_settings"))
@renamed("--claude.model", "--model")
@handle_errors(_kept, damaged="the dataset in {out} is damaged: {}; verify it, which names all that is wrong")
def main(
    sources: tuple[str, ...],
    out: str,
    verifying: bool,
    telling: bool,
    retry: str | None,
    stop_after: int | None,
    workers: int | None,
    ray_address: str | None,
    model: str | None,
    estimating: bool,
    assume: str,
    budget_usd: Decimal | NoLimit | None,
    batches: bool | None,
    partial: bool,
    caption_missing: bool,
    skip_uncaptioned: bool,
    prices: Path | None,
    config: Path | None,
    **flags: Any,
) -> None:
    """Build a next-scene dataset from captioned video.

    Each clip is screened by its headers, given the scene that came before it, cut to at most 81 frames at 16 fps, and
    written into WebDataset shards. A run may be stopped or killed at any moment; --out OUT alone continues it: OUT
    stores its source, judge and settings, the limits that it was begun with, and the budget, --batches and --prices
    that were given last. Limits that are given later apply to that run only. The defaults below are those of a new OUT.
    Before anything is paid for, a line says who is asked, and how much is spent at most.

    Exit codes: 0 done, 1 done but some clips failed or were absent, none was kept or counts do not add up, 2 wrong
    usage, 3 stopped by the budget, the account, storage, network or machine, or by SIGTERM, SIGHUP or SIGUSR1, 130 by
    Ctrl-C.
    """
    listed = SourceFile.read(flags["sources_file"]) if flags["sources_file"] else SourceFile()
    if listed.source and sources:
        raise UsageError("--sources names all sources; leave --source out")
    source = listed.locations or join_locations(sources) or None
    if inside_job():
        _refuse_relative([*[("--source", path) for path in (source or "").split("\n") if path], ("--out", out)])
    alone = {"--retry": retry, "--stop-after": stop_after, "--estimate": estimating, "--assume": assume}
    if verifying or telling:
        _refuse_beside("--status" if telling else "--verify", alone | {"--verify": verifying and telling})
        code = _look(open_out(out), verifying)
    else:
        _refuse_contradictions(estimating, assume, retry, stop_after)
        outcomes, begun = _outcomes(retry), BegunDataset.at(open_out(out))
        if outcomes and not begun.damage:
            _begun(begun.out)
        is_alone, source = source is None, begun.source(source)
        layout = Layout.read(flags["map"]).text if flags["map"] else None
        own = {"claude__model": model, "map": layout, "source_settings": listed.text if listed.source else None}
        settings = begun.config(config, flags | {name: value for name, value in own.items() if value})
        uncaptioned = _uncaptioned(caption_missing, skip_uncaptioned)
        asking = begun.judge_budget(settings, budget_usd, batches, uncaptioned, prices, is_alone)
        order = BuildRequest(
            source,
            out,
            settings,
            workers,
            outcomes,
            ray_address,
            asking.judge_budget,
            stop_after,
            asking.judge_unavailable,
        )
        only = {"--model": model, "`estimate`": estimating, "--assume": assume, "--budget-usd": budget_usd}
        captions = {"--caption-missing": caption_missing, "--skip-uncaptioned": skip_uncaptioned}
        _refuse_without_claude(settings, begun, {**only, **captions, "--batches": batches, "--prices": prices})
        code = print_estimate(order, assume) if estimating else _build(order, partial)
    sys.exit(code)


def _build(order: BuildRequest, partial: bool) -> int:
    watch = BuildProgress()
    try:
        finished = build(order, watch)
    finally:
        watch.end()
    print_finished(finished, open_out(order.out), order.retry)
    return console.ATTENTION if finished.summary.needs_attention(partial) else console.DONE


def _refuse_beside(looking: str, given: Mapping[str, Any]) -> None:
    for flag, value in given.items():
        if value:
            raise UsageError(f"{looking} only reads --out; leave out {flag} or {looking}")


def _refuse_contradictions(estimating: bool, assume: str, retry: str | None, stop_after: int | None) -> None:
    if estimating and retry is not None:
        raise UsageError("--estimate is about undecided clips, --retry about decided ones; leave one of them out")
    if stop_after and retry is not None:
        raise UsageError("--stop-after counts undecided clips, --retry is about decided ones; leave one of them out")
    if assume and not estimating:
        raise UsageError("--assume sets assumptions of --estimate; give --estimate too, or leave --assume out")


def _uncaptioned(caption_missing: bool, skip_uncaptioned: bool) -> Literal["mistake", "caption", "skip"]:
    if caption_missing and skip_uncaptioned:
        raise UsageError("--caption-missing and --skip-uncaptioned exclude each other; leave one of them out")
    return "caption" if caption_missing else "skip" if skip_uncaptioned else "mistake"


def _refuse_without_claude(config: BuildConfig, begun: BegunDataset, given: dict[str, Any]) -> None:
    judge = begun.recorded.identity_settings.get("judge") if begun.recorded else None
    remedy = "give --judge claude"
    if judge is not None and not is_paid(judge):  # which OUT would refuse
        remedy = (
            f"leave it out, since `out` {begun.out.display_uri} was begun with judge {judge}, or choose another `out`"
        )
    for flag, value in given.items():
        if value and not config.judge_kind.pays:
            raise UsageError(f"{flag} means nothing with --judge {config.judge}, which asks nobody; {remedy}")


def _begun(out: Storage) -> RecordedConfig:
    """Return the record of a dataset that was begun. Raise UsageError if there is none."""
    recorded = RecordedConfig.read(out)
    if (
        recorded is None
        and (out.stat(PLAN) or out.stat(MANIFEST))
        and describe_folder(out) in ("", KIND_NAMES[DATASET])
    ):
        raise UsageError(
            f"`out` {out.display_uri}: a dataset without its {CONFIG}; run the build again to write it, or prove a"
            f" copy of some files by `sha256sum -c --ignore-missing {CHECKSUMS}`"
        )
    if recorded is None:
        raise UsageError(f"`out` {out.display_uri} {explain_missing_dataset(out)}")
    return recorded


def _look(out: Storage, verifying: bool) -> int:
    recorded = _begun(out)
    config = config_of(recorded, out)
    if verifying:
        return print_verification(out, recorded, config)
    print_status(status(out, config), config, out)
    return console.DONE


def _outcomes(text: str | None) -> frozenset[str]:
    if text is None:
        return frozenset()
    wanted = frozenset(word.strip() for word in text.split(",") if word.strip())
    if unknown := sorted(wanted - set(RETRIABLE)):
        raise UsageError(f"`retry` {unknown[0]}: not an outcome that can be retried; there are {', '.join(RETRIABLE)}")
    if not wanted:
        raise UsageError(f"`retry` {text!r} names no outcome; there are {', '.join(RETRIABLE)}")
    return wanted


def _refuse_relative(paths: list[tuple[str, str]]) -> None:
    for flag, path in paths:
        if "://" not in path and not Path(split_preset(path)[1]).is_absolute():
            raise UsageError(
                f"{flag} {path}: relative paths mean nothing inside a cluster job, which runs in a copy of this folder;"
                " give an absolute path or s3://…"
            )


if __name__ == "__main__":
    main()
