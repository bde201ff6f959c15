"""The text that a build prints at its end: its outcomes, changes of the source since the plan, and next commands.

Tested in tests/pipelines/test_out_alone.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.markup import escape
from rich.table import Table

from nextscene.common.storage import Storage
from nextscene.common.text import many
from nextscene.curation.config import BuildConfig
from nextscene.curation.inspect.nothing_kept import source_has_scenes, why_nothing_is_kept
from nextscene.curation.inspect.status import Status
from nextscene.curation.ledger import RETIMED
from nextscene.curation.plan import Plan
from nextscene.curation.run.run import BuildResult
from nextscene.curation.run.source_changes import DifferenceKind, SourceComparison
from nextscene.curation.sealing.retry_advice import accepted_retries, not_retryable
from nextscene.curation.sources.skipped_files import skipped_line
from nextscene.curation.summary import BuildSummary, Spending
from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.flag_names import with_flags
from nextscene.pipelines.cli.shell import command
from nextscene.shards.format.layout import CALLS, REPORT

_NOT_TO_BE_BUILT = frozenset([DifferenceKind.GONE, DifferenceKind.FOUND, DifferenceKind.TWICE])
"""Kinds of differences for which a new dataset would not have more clips, or could not be planned."""


def _build(out: Storage) -> str:
    """Return the command that continues the build of OUT. All other values are recorded in OUT."""
    return command("build", "--out", out.display_uri)


def print_finished(finished: BuildResult, out: Storage, retry: frozenset[str]) -> None:
    summary, found = finished.summary, finished.source
    if finished.idle:
        console.out.print(console.visible(_idle(finished, retry)), markup=False)
    _print_summary(summary, out)
    if done := finished.retried:
        console.out.print(f"retried   {many(done.clips, 'clip')}: {done.changed:,} with another outcome now")
    if summary.keeps_nothing:
        _print_nothing_kept(summary.outcomes, finished.config, out)
    else:
        _print_lack_of_test(finished.config, out)
    if not found.is_same and not (finished.idle and not retry):
        console.out.print(f"source    {console.visible(source_line(found))}", markup=False)
    if found.kinds.keys() - _NOT_TO_BE_BUILT:
        paid = (
            f"; with a copy of {out.display_uri}/{CALLS} in it no answer is paid for again" if summary.spending else ""
        )
        console.out.print(
            f"          OUT stays as it was planned: build the source into another --out{paid}", markup=False
        )
    for line in _next(finished, out):
        console.out.print(f"next      {line}", markup=False)


def _idle(finished: BuildResult, retry: frozenset[str]) -> str:
    """Return a sentence that says why nothing was done."""
    summary, found = finished.summary, finished.source
    if retry and not summary.count(*retry):
        there = dict.fromkeys(outcome for outcome, _, _ in summary.outcomes)
        counts = ", ".join(f"{summary.count(outcome):,} {outcome}" for outcome in there)
        return f"Nothing to retry: no clip has ended as {' or '.join(sorted(retry))}; there are {counts}."
    if found.is_same:
        but = f" but the unfinished {with_flags(finished.retry.argument)}" if finished.retry else ""
        return f"Nothing to do{but}: every clip of the plan is decided, every shard is sealed, and {_same(found)}."
    return f"The dataset is whole: every clip of its plan is decided. {source_line(found)}."


def source_line(found: SourceComparison) -> str:
    """Return a line that says how the source differs from the plan, or why that is not known."""
    if found.unread:
        return f"The source was not compared with the plan: {with_flags(found.unread.rstrip('.'))}"
    left_out = f"; {_not_compared(found)}" if _not_compared(found) else ""
    return f"The source has changed since it was planned: {found.told()}{left_out}"


def _same(found: SourceComparison) -> str:
    """Return a phrase that names the parts of the source that are as planned: only those that were compared."""
    left_out = _not_compared(found)
    if not left_out:
        return "the source is as it was planned"
    looked = {"order": found.has_order, "sizes": not found.unchecked_sizes, "captions": not found.unchecked_captions}
    named = ["names", *(what for what, is_compared in looked.items() if is_compared)]
    compared = " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))
    return f"the source's {compared} are as planned; {left_out}"


def _not_compared(found: SourceComparison) -> str:
    """Return a phrase that names what was not compared; "" if all was."""
    counts = {
        "sizes and times": (found.unchecked_sizes, ""),
        "captions": (found.unchecked_captions, ""),
        "other columns": (found.unchecked_columns, ", which an older version planned"),
        "contents": (found.unchecked_contents, ", whose files have another time"),
    }
    skipped_line = [f"{what} of {many(count, 'clip')}{why}" for what, (count, why) in counts.items() if count]
    return f"not compared: {'; '.join(skipped_line)}" if skipped_line else ""


def _print_summary(summary: BuildSummary, out: Storage) -> None:
    table = Table("outcome", "reason", "clips", box=None, pad_edge=False)
    for outcome, reason, count in summary.outcomes:
        table.add_row(outcome, escape(console.visible(reason)), f"{count:,}")
    table.columns[2].justify = "right"
    console.out.print(table)
    console.out.print(
        f"planned   {many(summary.planned, 'clip')}, {summary.decided:,} decided, {summary.samples:,} in shards"
    )
    console.out.print(
        f"shards    {many(summary.tars, 'tar')}, {summary.bytes / 1e6:,.1f} MB, of {summary.shards_planned:,} planned"
    )
    if summary.passed_over != {}:
        console.out.print(f"not read  {skipped_line(summary.passed_over)}", markup=False)
    _print_retimed(summary.retimed)
    console.out.print(f"judge     {summary.judge}: {summary.method}", markup=False)
    if summary.spending:
        console.out.print(f"spent     {_spent(summary.spending)}", markup=False)
    console.out.print(f"time      {summary.seconds:,.1f} s")
    console.out.print(f"dataset   {out.display_uri}", markup=False)
    console.out.print(f"page      {out.display_uri}/{REPORT}", markup=False)
    if not summary.balanced:
        console.out.print("The account does not balance; --verify says where.")


def _print_nothing_kept(ends: Iterable[tuple[str, str, int]], config: BuildConfig, out: Storage) -> None:
    has_scenes = source_has_scenes(Plan(out, config))
    why = console.visible(with_flags(why_nothing_is_kept(ends, config, has_scenes)))
    console.out.print(f"kept      nothing: {why}; {command('show', out.display_uri)} shows more", markup=False)


def _print_lack_of_test(config: BuildConfig, out: Storage) -> None:
    """Say that the test split was given no clip, as happens in a small source."""
    if config.test and not any(shard.split == "test" for shard, _ in Plan(out, config).shards()):
        console.out.print(
            f"split     test has no clip, by --test {config.test:g} --split-by {config.split_by}; for some, build into"
            " another --out, such as with --test 0.1 --split-by clip",
            markup=False,
        )


def _next(finished: BuildResult, out: Storage) -> Iterator[str]:
    """Yield commands, each followed by its purpose in a # comment, which a shell ignores."""
    summary = finished.summary
    for one in accepted_retries(summary.outcomes, finished.cut_version, finished.retry):
        yield f"{command('retry', out.display_uri, one.outcomes)}  # {with_flags(one.why)}"
    if beyond := not_retryable(summary.outcomes):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in beyond.items())
        yield f"{command('show', out.display_uri)}  # no retry changes what is in files, captions and scenes: {reasons}"
    if summary.complete:
        yield command("verify", out.display_uri)
    else:
        yield f"{_build(out)}  # for the {many(summary.planned - summary.decided, 'clip')} left"


def _print_retimed(count: int) -> None:
    if count:
        console.out.print(
            f"retimed   {many(count, 'clip')} of files with another time than planned, as many bytes, and the same"
            " contents where the plan knows them"
        )


def print_status(now: Status, config: BuildConfig, out: Storage) -> None:
    console.out.print(f"clips     {now.tally.total:,} of {now.planned:,} decided")
    for outcome, reason, count in now.tally.lines():
        console.out.print(f"          {outcome} {console.visible(reason)} {count:,}".rstrip(), markup=False)
    if now.keeps_nothing:
        _print_nothing_kept(now.tally.lines(), config, out)
    partly = f", {now.shards_partial:,} of them with clips still to be decided" if now.shards_partial else ""
    console.out.print(f"shards    {now.shards_sealed:,} of {now.shards_planned:,} sealed{partly}")
    if now.passed_over != {}:
        console.out.print(f"not read  {skipped_line(now.passed_over)}", markup=False)
    _print_retimed(now.tally.remarks[RETIMED])
    if now.retry:
        left = f"{now.retry_left:,} of its {many(len(now.retry.shards), 'shard')} left"
        console.out.print(f"retry     {now.retry.words}: {left}", markup=False)
    if now.spending:
        console.out.print(f"spent     {_spent(now.spending)}", markup=False)
    if now.runner is None:
        console.out.print("run       none")
    elif now.runner.is_unreadable:
        console.out.print("run       unknown: run.lock is damaged; the next run takes it over")
    else:
        console.out.print(
            f"run       {now.runner.run_id} on {now.runner.host}, process {now.runner.pid}:"
            f" {'at work' if now.running else 'died'} (last heartbeat {now.runner.beat_text})",
            markup=False,
        )
    if not now.running and (now.retry or now.tally.total < now.planned):
        following = command("retry", out.display_uri, now.retry.words) if now.retry else _build(out)
        console.out.print(f"next      {following}", markup=False)


def _spent(spending: Spending) -> str:
    lost = f"; up to ${spending.lost_usd:,.4f} more for answers that never came" if spending.lost_usd else ""
    waiting = f"; {spending.in_batches:,} questions in batches under way" if spending.in_batches else ""
    return f"${spending.spent_usd:,.4f} for {spending.answers:,} answers{lost}{waiting}"
