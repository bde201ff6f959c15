"""`--estimate`: a table of the cost of a run with the judge `claude`."""

from __future__ import annotations

from dataclasses import asdict, fields

from rich.table import Table

from nextscene.common.errors import UsageError
from nextscene.common.text import many
from nextscene.curation.inspect.cost_estimate import estimate
from nextscene.curation.judge_budget import JudgeBudget
from nextscene.curation.run.existing_plan import check_settings, find_existing_plan
from nextscene.curation.run.locations import open_source_and_out
from nextscene.curation.run.prepare import differs_on_uncaptioned, identity_in, with_recorded_prompt_version
from nextscene.curation.run.run import BuildRequest
from nextscene.curation.run.source_moved import find_moved_source
from nextscene.curation.sealing.committed import CommittedState
from nextscene.curation.sealing.remaining import count_retried
from nextscene.curation.sealing.retry import open_retry
from nextscene.curation.sources.skipped_files import skipped_line
from nextscene.judge.errors import JudgeUsageError
from nextscene.judge.spending.estimate import Assumptions, Bill, parse_assumptions
from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.flag_names import with_flags

ASSUMED = tuple(field.name for field in fields(Assumptions))


def print_estimate(order: BuildRequest, assumed: str) -> int:
    """Print the cost of the order under each case of the assumptions, and return the exit code.

    Raise UsageError for assumptions that are not valid, or if the judge is not available.
    """
    try:
        cases = parse_assumptions(assumed)
    except JudgeUsageError as mistake:
        raise UsageError(f"--assume {mistake}") from mistake
    source, out = open_source_and_out(order.source, order.out, order.config)
    config, judge_budget = with_recorded_prompt_version(out, order.config), order.judge_budget
    identity_settings = identity_in(out, config)
    if judge_budget is None:
        check_settings(out, source, identity_settings)
        raise UsageError(order.judge_unavailable)
    moved = find_moved_source(out, source, config, identity_settings)
    recorded = moved or find_existing_plan(out, source, identity_settings)
    planned = recorded is not None and not differs_on_uncaptioned(out, config, judge_budget)
    found = estimate(source, out, config, planned, judge_budget, cases)
    bills, captioning = found.bills.values(), found.captioning.values()
    rows = {
        "calls": [f"{bill.calls:,.0f}" for bill in bills],
        "input tokens": [f"{bill.input_tokens:,.0f}" for bill in bills],
        "output tokens": [f"{bill.output_tokens:,.0f}" for bill in bills],
        "one by one": [_usd(bill, judge_budget, in_batch=False) for bill in bills],
        "in batches": [_usd(bill, judge_budget, in_batch=True) for bill in bills],
    }
    if found.uncaptioned:
        rows["of it captions, one by one"] = [_usd(bill, judge_budget, in_batch=False) for bill in captioning]
        rows["of it captions, in batches"] = [_usd(bill, judge_budget, in_batch=True) for bill in captioning]
    rows |= {f"assumed {name}": [f"{asdict(case)[name]:g}" for case in cases.values()] for name in ASSUMED}
    table = Table("", *cases, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, values in rows.items():
        table.add_row(name, *values)
    console.out.print(
        f"{many(found.clips, 'clip')} to be decided, asked of {judge_budget.price.model}; nothing was sent."
    )
    console.out.print(table)
    if opened := open_retry(out) if planned else None:
        clips, shards = count_retried(CommittedState.read(out, config.units_per_shard), out, opened)
        console.out.print(
            f"retry     {with_flags(opened.argument)} is not finished: {many(clips, 'clip')} in"
            f" {many(shards, 'shard')} {'is' if clips == 1 else 'are'} left, not counted here",
            markup=False,
        )
    if found.missing:
        console.out.print(f"missing   no file for {many(found.missing, 'clip')}, which will fail and cost nothing")
    if found.flawed:
        console.out.print(
            f"captions  none that can be used for {many(found.flawed, 'clip')}, which will end so and cost nothing"
        )
    if found.uncaptioned:
        asks = not planned and judge_budget.uncaptioned == "mistake"
        wanted = "; the run wants --caption-missing for that, or --skip-uncaptioned" if asks else ""
        console.out.print(f"captions  none for {many(found.uncaptioned, 'clip')}, to be captioned first{wanted}")
    if found.passed_over != {}:
        console.out.print(f"not read  {skipped_line(found.passed_over)}", markup=False)
    console.out.print(
        "next      fix what you know with --assume, and cap what you spend with --budget-usd", markup=False
    )
    return console.DONE


def _usd(bill: Bill, judge_budget: JudgeBudget, in_batch: bool) -> str:
    return f"${bill.usd(judge_budget.price, in_batch=in_batch):,.2f}"
