"""The real command in this process, with the engine's steps one after another, since Ray takes seconds to start.

The page takes seconds too: only the outcomes that it counts are written.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import cast

import pytest
from click.testing import CliRunner, Result

from nextscene.common.errors import RunStopped, UsageError
from nextscene.common.ray_cluster.messages import ToSupervisor
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.plan import Plan
from nextscene.curation.progress import Tick
from nextscene.curation.report.make import PublishedPage
from nextscene.curation.run.build_on_ray import BuildOnRay
from nextscene.curation.run.unit_judge import UnitJudge
from nextscene.curation.sealing.committed import CommittedState
from nextscene.pipelines.build_nsp import main
from nextscene.shards.format.layout import REPORT
from tests.support import do_all


def inline(request: BuildOnRay, _: object, check: Callable[[], None]) -> RunStopped | UsageError | None:
    """Do the request in this process. Replaces `common.ray_cluster.supervisor.supervise`, and returns its result."""
    check()
    job = request.job
    judging = UnitJudge(job.config, job.judge_budget, job.out, job.run_id)
    with asyncio.Runner() as runner:
        try:
            return do_all(job, request.left.shards(Plan(job.out, job.config), job.out), judging, runner)
        finally:
            runner.run(judging.end())


def in_this_process(request: BuildOnRay, tick: Tick, check: Callable[[], None]) -> Exception | None:
    """Do the request as `inline` does, by its own `work`, for a test that replaces the engine."""
    return request.work(cast(ToSupervisor, SimpleNamespace(tick=tick, check=check)))


def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nextscene.curation.run.run.supervise", inline)
    monkeypatch.setattr("nextscene.curation.report.make.write_report", short_page)


def short_page(out: Storage, config: BuildConfig, fingerprint: str, _: object) -> PublishedPage:
    """Write a page with only the outcomes of all clips in the ledgers. Replaces `curation.report.make.write_report`."""
    rows = [row for rows in CommittedState.read(out, config.units_per_shard).ledgers(out) for row in rows]
    page = f"{fingerprint}\n{sorted((row.clip_id, row.outcome) for row in rows)}".encode()
    out.write(REPORT, page)
    return PublishedPage(hashlib.sha256(page).hexdigest(), [])


def command(*arguments: object, env: Mapping[str, str] | None = None) -> Result:
    """Run the command, and return its result. A traceback is a failure."""
    result = CliRunner(env={"COLUMNS": "200", **(env or {})}).invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def build(*arguments: object, code: int = 0, env: Mapping[str, str] | None = None) -> str:
    """Run the command, check its exit code, and return its standard output."""
    result = command(*arguments, env=env)
    assert result.exit_code == code, result.output
    return result.stdout
