"""A run that asks the judge, for a separate process that is killed."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from unittest import mock

import nextscene.judge.api.backoff
import nextscene.judge.api.batch_api
import nextscene.judge.api.batches
from nextscene.common import s3 as _imported_before_the_forks  # noqa: F401
from nextscene.curation.config import EncodeConfig, Rules, RunLimits
from tests.fakes.loopback import CLAUDE, judge_budget
from tests.support import build_inline

APPEAR_SECONDS = 8.0
CONFIG = replace(
    CLAUDE,
    unit_size=8,
    units_per_shard=2,
    rules=Rules(min_width=64, min_height=48),
    encode=EncodeConfig(width=64, height=48),
    limits=RunLimits(calls_at_once=12, batch_appear_hours=APPEAR_SECONDS / 3600),
)


def run(source: str, out: str, in_batches: bool, retry: frozenset[str], env: Mapping[str, str]) -> None:
    """Build until nothing is left, with `retry` as in `--retry`. Waits of the client are shortened."""
    logging.disable(logging.WARNING)
    os.environ.update(env)
    with (
        mock.patch.object(
            nextscene.judge.api.backoff.RetryPolicy.__init__, "__defaults__", (256, 180.0, 900.0, 0.1, 24.0)
        ),
        mock.patch.object(nextscene.judge.api.backoff, "_FIRST_WAIT_SECONDS", 0.05),
        mock.patch.object(nextscene.judge.api.batch_api, "_FIRST_POLL_SECONDS", 0.05),
        mock.patch.object(nextscene.judge.api.batches, "_FIRST_LOOK_SECONDS", 0.2),
    ):
        build_inline(source, out, CONFIG, retry, judge_budget("5", in_batches=in_batches))
