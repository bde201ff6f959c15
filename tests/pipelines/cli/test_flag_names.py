"""Flags in messages, in place of the names that the rooms below the commands use."""

from __future__ import annotations

import logging
import threading
from typing import Any

import click
import pytest
from click.testing import CliRunner

from nextscene.common.errors import RunStopped, UsageError
from nextscene.pipelines.build_nsp import main as build
from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.build_modes import retry
from nextscene.pipelines.cli.command import Command, renamed
from nextscene.pipelines.cli.exit_codes import GoOn, handle_errors
from nextscene.pipelines.cli.flag_names import with_flags
from nextscene.pipelines.evaluate import main as evaluate
from nextscene.pipelines.show import main as show
from nextscene.pipelines.train import main as train


@pytest.mark.parametrize(
    ("command", "message", "shown"),
    [
        (
            build,
            "`out` a/b holds another plan; choose another `out`",
            "--out a/b holds another plan; choose another --out",
        ),
        (build, "Raise `budget_usd`", "Raise --budget-usd"),
        (build, "(with `batches` $1)", "(with --batches $1)"),
        (build, "raise `limits.clip_seconds`", "raise --limits.clip-seconds"),
        (build, "the parameters `source`, `verify`", "the parameters --source, --verify"),  # are `sources`, `verifying`
        (build, "`model` x was retired", "--model x was retired"),
        (evaluate, "`judge.model` x was retired", "--judge-model x was retired"),
        (train, "`reward.judge.model` x was retired", "--judge-model x was retired"),
        (train, "(`prices` FILE)", "(--prices FILE)"),
        (show, "`out` a/b; `folder` c", "OUT a/b; --extract c"),
        (show, "`retry` failed", "`retry` failed"),
        (retry, "`out` x has an unfinished `retry` failed", "OUT x has an unfinished retry failed"),
        (build, "no column `video`; rename it to `caption`", "no column `video`; rename it to `caption`"),
        (build, "`ray start`, ``, `Out`, 'out', out", "`ray start`, ``, `Out`, 'out', out"),
        (train, "make them with `make_toy_models`", "make them with python pipelines/make_tiny.py"),
    ],
)
def test_a_name_in_backquotes_becomes_the_flag_of_the_command(command: click.Command, message: str, shown: str) -> None:
    assert with_flags(message, command) == shown


def test_without_a_command_a_message_stays_as_it_is() -> None:
    message = "`out` a/b holds another plan, `make_toy_models`"
    assert with_flags(message) == message


@pytest.mark.parametrize("error", [UsageError, RunStopped])
def test_an_error_names_the_flags_of_the_running_command(error: type[Exception]) -> None:
    @click.command(cls=Command)
    @click.option("--out", "-o", "place")
    @click.option("--unit-size")
    @renamed("--size", "--unit-size")
    @handle_errors(GoOn("it is kept"))
    def command(**_: Any) -> None:
        raise error("`out` x, `unit_size` 3, `size` 4, `source` y")

    said = CliRunner().invoke(command, ["--out", "x"]).stderr
    assert said.startswith("error: --out x, --unit-size 3, --unit-size 4, `source` y")


def test_a_log_record_of_another_thread_names_the_flags_of_the_running_command(monkeypatch: pytest.MonkeyPatch) -> None:
    root, shown = logging.Logger("root"), list[str]()
    monkeypatch.setattr(logging, "root", root)

    @click.command(cls=Command)
    @click.option("--out")
    def command(out: str) -> None:
        console.log_to_stderr()
        (handler,) = root.handlers
        record = logging.makeLogRecord({"msg": "`out` %s continues", "args": (out,)})
        thread = threading.Thread(target=lambda: shown.append(handler.format(record)))
        thread.start()
        thread.join()

    CliRunner().invoke(command, ["--out", "x"])
    assert shown == ["--out x continues"]
