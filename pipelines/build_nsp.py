"""Builds a next-scene dataset: captioned video in, sealed WebDataset shards out. Run it again to go on."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from pipelines import ready  # noqa: F401  before all that may be missing, and all that takes its time

# isort: split
from collections.abc import Mapping
from typing import Any, Literal

import click
from rich.markup import escape
from rich.table import Table

from curation.cluster import inside_job
from curation.config import Config
from curation.errors import UsageMistake
from curation.ledger import RETIMED
from curation.outcome import OUTCOMES
from curation.run import Order, build, open_out
from curation.setup import Recorded
from curation.sources.passed import told
from curation.status import Status, status
from curation.summary import Spending, Summary
from curation.terms import Terms
from curation.verify import verify
from judge.prices import Prices
from judge.settings import Claude
from pipelines import console
from pipelines.endings import ends
from pipelines.estimating import ASSUMED, print_estimate
from pipelines.settings import chosen, dollars, from_tree, options
from pipelines.shell import command
from pipelines.stagewatch import StageWatch
from shards.layout import CONFIG, MANIFEST, PLAN, REPORT, SUMS
from shards.storage import Storage

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_RETRIABLE = tuple(outcome for outcome in OUTCOMES if outcome != "kept")


def _kept(given: Mapping[str, Any]) -> str:
    if given["verifying"] or given["telling"] or given["estimating"]:
        return "nothing was changed; run the same command again"
    return "all that was finished is kept; run the same command again to go on"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="PATH",
    help="A folder, a manifest (.csv, .tsv, .jsonl, .parquet), a .tar, or a video; a path or s3://…",
)
@click.option("--out", help="Where the dataset goes; a path or s3://…", required=True)
@click.option("--verify", "verifying", is_flag=True, help="Re-read the dataset in --out and prove it whole; no work.")
@click.option("--status", "telling", is_flag=True, help="Say how far the run in --out is; no work.")
@click.option(
    "--retry", default="", metavar="OUTCOMES", help=f"Do these anew, comma-separated: {', '.join(_RETRIABLE)}."
)
@click.option("--stop-after", type=click.IntRange(1), metavar="N", help="Decide N of the clips that are left, no more.")
@click.option("--workers", type=click.IntRange(1), help="CPUs to use.  [default: all]")
@click.option("--ray-address", help="A running Ray cluster.  [default: RAY_ADDRESS, else Ray is started here]")
@click.option("--model", help=f"The model of --judge claude.  [default: {Claude().model}]")
@click.option("--estimate", "estimating", is_flag=True, help="Say what --judge claude would cost; asks nothing.")
@click.option("--assume", default="", metavar="NAME=X,…", help=f"For --estimate, of: {', '.join(ASSUMED)}.")
@click.option("--budget-usd", type=click.FloatRange(0, min_open=True), help="Never spend more than this on --out.")
@click.option("--batches", is_flag=True, help="Ask in message batches: half the price, answers within a day.")
@click.option("--caption-missing", is_flag=True, help="Have --judge claude caption clips without a caption first.")
@click.option("--skip-uncaptioned", is_flag=True, help="Under --judge claude, leave clips without a caption out.")
@click.option("--prices", type=_FILE, help="A TOML file of prices.  [default: judge/prices.toml]")
@click.option("--config", type=_FILE, help="A TOML file of settings.")
@options(Config, without=("claude.prompt_version",))
@ends(_kept, damaged="the dataset in --out is damaged: {}; --verify names all that is wrong")
def main(
    sources: tuple[str, ...], out: str, verifying: bool, telling: bool, retry: str, stop_after: int | None,
    workers: int | None, ray_address: str | None, model: str | None, estimating: bool, assume: str,
    budget_usd: float | None, batches: bool, caption_missing: bool, skip_uncaptioned: bool, prices: Path | None,
    config: Path | None, **flags: Any,
) -> None:  # fmt: skip
    """Build a next-scene dataset from captioned video.

    Each clip is screened by its headers, given the scene that came before it, cut to at most 81 frames at 16 fps, and
    written into WebDataset shards. The run may be stopped or killed at any moment: the same command goes on.

    Exit codes: 0 done, 1 done but some clips failed or something does not add up, 2 wrong usage, 3 stopped by the
    budget, the account, storage, network or machine, or by SIGTERM, SIGHUP or SIGUSR1, 130 by Ctrl-C.
    """
    source = _only(sources)
    if inside_job():
        _refuse_relative({"--source": source, "--out": out})
    if verifying or telling:
        code = _look(open_out(out), verifying)
    elif source is None:
        raise UsageMistake("--source is missing; name a folder, a manifest, a tar or a video")
    else:
        if estimating and retry:
            raise UsageMistake(
                "--estimate counts what is not decided yet, --retry does anew what is; leave one of them out"
            )
        if stop_after and retry:
            raise UsageMistake(
                "--stop-after counts clips that are not decided, --retry does anew what is; leave one of them out"
            )
        settings = chosen(Config, config, flags | ({"claude__model": model} if model else {}))
        uncaptioned = _uncaptioned(caption_missing, skip_uncaptioned)
        terms = _terms(settings, budget_usd, batches, uncaptioned, prices)
        order = Order(source, out, settings, workers, _outcomes(retry), ray_address, terms, stop_after)
        only = {"--model": model, "--estimate": estimating, "--assume": assume, "--budget-usd": budget_usd}
        captions = {"--caption-missing": caption_missing, "--skip-uncaptioned": skip_uncaptioned}
        _refuse_without_claude(settings, {**only, **captions, "--batches": batches, "--prices": prices})
        code = print_estimate(order, assume) if estimating else _build(order)
    sys.exit(code)


def _build(order: Order) -> int:
    watch = StageWatch()
    try:
        finished = build(order, watch)
    finally:
        watch.end()
    if finished.idle:
        console.out.print("Nothing to do: every clip of the plan is decided and every shard is sealed.")
    _print_summary(finished.summary, open_out(order.out))
    return console.ATTENTION if finished.summary.needs_attention else console.DONE


def _only(sources: tuple[str, ...]) -> str | None:
    if len(sources) > 1:
        raise UsageMistake(
            f"--source is given {len(sources)} times, and one dataset is made from one source; give one of"
            f" {', '.join(sources)}, or a manifest that names the videos of all"
        )
    return sources[0] if sources else None


def _uncaptioned(caption_missing: bool, skip_uncaptioned: bool) -> Literal["mistake", "caption", "skip"]:
    if caption_missing and skip_uncaptioned:
        raise UsageMistake("--caption-missing and --skip-uncaptioned exclude each other; leave one of them out")
    return "caption" if caption_missing else "skip" if skip_uncaptioned else "mistake"


def _terms(
    config: Config, budget_usd: float | None, batches: bool, uncaptioned: Literal["mistake", "caption", "skip"],
    prices: Path | None,
) -> Terms | None:  # fmt: skip
    budget = dollars("--budget-usd", budget_usd)
    if config.judge != "claude":
        return None
    return Terms(Prices.load(prices).of(config.claude.model), budget, batches, uncaptioned)


def _refuse_without_claude(config: Config, given: dict[str, Any]) -> None:
    for flag, value in given.items():
        if value and config.judge != "claude":
            raise UsageMistake(
                f"{flag} means nothing with --judge {config.judge}, which asks nobody; give --judge claude"
            )


def _look(out: Storage, verifying: bool) -> int:
    recorded = Recorded.read(out)
    if recorded is None and (out.stat(PLAN) or out.stat(MANIFEST)):
        raise UsageMistake(
            f"--out {out.shown}: a dataset without its {CONFIG}; run the build again to write it, or prove a copy of"
            f" some files by `sha256sum -c --ignore-missing {SUMS}`"
        )
    if recorded is None:
        raise UsageMistake(f"--out {out.shown}: no plan there; build a dataset first")
    config = from_tree(Config, recorded.config, f"{out.shown}/config.toml")
    if not verifying:
        _print_status(status(out, config))
        return console.DONE
    watch = console.Watch("verifying")
    try:
        found = list(verify(out, recorded, config, watch))
    finally:
        watch.end()
    for finding in sorted(found, key=lambda finding: not finding.wrong):
        console.out.print(console.visible(finding.text), markup=False)
    problems = sum(finding.wrong for finding in found)
    if problems:
        build = command("build_nsp.py", "--source", recorded.source, "--out", out.shown)
        console.out.print(f"the build      {build} …, with the settings in {CONFIG}", markup=False)
    console.out.print(
        f"{problems:,} problem{'s' if problems > 1 else ''} found."
        if problems
        else "The dataset is whole: shards, ledgers, plan and all that sums them up agree."
    )
    return console.ATTENTION if problems else console.DONE


def _outcomes(text: str) -> frozenset[str]:
    wanted = frozenset(word.strip() for word in text.split(",") if word.strip())
    if unknown := sorted(wanted - set(_RETRIABLE)):
        raise UsageMistake(
            f"--retry {unknown[0]}: not an outcome that can be retried; there are {', '.join(_RETRIABLE)}"
        )
    return wanted


def _refuse_relative(paths: dict[str, str | None]) -> None:
    for flag, path in paths.items():
        if path is not None and "://" not in path and not Path(path).is_absolute():
            raise UsageMistake(
                f"{flag} {path}: relative paths mean nothing inside a cluster job, which runs in a copy of this folder;"
                " give an absolute path or s3://…"
            )


def _print_summary(summary: Summary, out: Storage) -> None:
    table = Table("outcome", "reason", "clips", box=None, pad_edge=False)
    for outcome, reason, count in summary.outcomes:
        table.add_row(outcome, escape(console.visible(reason)), f"{count:,}")
    table.columns[2].justify = "right"
    console.out.print(table)
    console.out.print(
        f"planned   {summary.planned:,} clips, {summary.decided:,} decided, {summary.samples:,} in shards"
    )
    console.out.print(
        f"shards    {summary.tars:,} tars, {summary.bytes / 1e6:,.1f} MB, of {summary.shards_planned:,} planned"
    )
    if summary.passed_over != {}:
        console.out.print(f"not read  {told(summary.passed_over)}", markup=False)
    _print_retimed(summary.retimed)
    console.out.print(f"judge     {summary.judge}: {summary.method}", markup=False)
    if summary.spending:
        console.out.print(f"spent     {_spent(summary.spending)}", markup=False)
    console.out.print(f"time      {summary.seconds:,.1f} s")
    console.out.print(f"dataset   {out.shown}", markup=False)
    console.out.print(f"page      {out.shown}/{REPORT}", markup=False)
    if not summary.balanced:
        console.out.print("The account does not balance; --verify says where.")
    verifying = command("build_nsp.py", "--out", out.shown, "--verify")
    nexts = [verifying] if summary.complete else [_go_on(summary)]
    if summary.count("refused"):
        nexts.insert(0, "the same command with --retry refused, to ask about those once more")
    if summary.count("failed", "quarantined"):
        nexts.insert(0, "the same command with --retry failed,quarantined, once the cause in the ledger is mended")
    for line in nexts:
        console.out.print(f"next      {line}", markup=False)


def _go_on(summary: Summary) -> str:
    return f"the same command without --stop-after, for the {summary.planned - summary.decided:,} clips that are left"


def _print_retimed(count: int) -> None:
    if count:
        console.out.print(
            f"retimed   {count:,} clips of files with another time than planned, as many bytes, and the same contents"
            " where the plan knows them"
        )


def _print_status(now: Status) -> None:
    console.out.print(f"clips     {now.tally.total:,} of {now.planned:,} decided")
    for outcome, reason, count in now.tally.lines():
        console.out.print(f"          {outcome} {console.visible(reason)} {count:,}".rstrip(), markup=False)
    partly = f", {now.shards_partial:,} of them with clips still to be decided" if now.shards_partial else ""
    console.out.print(f"shards    {now.shards_sealed:,} of {now.shards_planned:,} sealed{partly}")
    if now.passed_over != {}:
        console.out.print(f"not read  {told(now.passed_over)}", markup=False)
    _print_retimed(now.tally.remarks[RETIMED])
    if now.retry:
        left = f"{now.retry_left:,} of its {len(now.retry.shards):,} shards are left"
        console.out.print(f"retry     {now.retry.flag}: {left}; the same command with it goes on", markup=False)
    if now.spending:
        console.out.print(f"spent     {_spent(now.spending)}", markup=False)
    if now.runner is None:
        console.out.print("run       none")
    else:
        how = "at work" if now.running else "died; the same command goes on"
        console.out.print(
            f"run       {now.runner.run_id} on {now.runner.host}, process {now.runner.pid}: {how}"
            f" (last heartbeat {now.runner.beat_shown})",
            markup=False,
        )


def _spent(spending: Spending) -> str:
    lost = f"; up to ${spending.lost_usd:,.4f} more for answers that never came" if spending.lost_usd else ""
    waiting = f"; {spending.in_batches:,} questions in batches under way" if spending.in_batches else ""
    return f"${spending.spent_usd:,.4f} for {spending.answers:,} answers{lost}{waiting}"


if __name__ == "__main__":
    main()
