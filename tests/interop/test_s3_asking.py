"""The judge `claude` with OUT in an object store: paid answers outlive the machine that asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nextscene.common.errors import RunStopped
from nextscene.judge.api.batch_record import BatchRecord
from tests.fakes.claude_api import AnswerRules, ClaudeApi
from tests.fakes.loopback import CLAUDE, account, judge_budget, spans, stored, true_cost
from tests.interop.test_s3 import Bucket, bucket, credentials, server
from tests.support import assert_conserved, assert_same_dataset, build_inline

__all__ = ["bucket", "credentials", "server"]

pytestmark = pytest.mark.slow

CONFIG = replace(CLAUDE, unit_size=3)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClaudeApi]:
    with ClaudeApi(rules=AnswerRules(pass_rate=0.6)) as api:
        monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
        for name, value in api.env.items():
            monkeypatch.setenv(name, value)
        yield api


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spans(tmp_path_factory.mktemp("source"), [f"shot {i}: somebody opens a door" for i in range(6)])


def test_a_budget_stop_and_what_follows_give_the_dataset_of_a_run_on_disk(
    source: Path, bucket: Bucket, tmp_path: Path, api: ClaudeApi
) -> None:
    build_inline(source, tmp_path, CONFIG, judge_budget=judge_budget())
    true, asked = true_cost(api.exchanges), len(api.exchanges)
    with pytest.raises(RunStopped, match="`budget_usd`"):
        build_inline(source, bucket.uri("out"), CONFIG, judge_budget=judge_budget("0.014"))
    build_inline(source, bucket.uri("out"), CONFIG, judge_budget=judge_budget("1"))
    assert len(api.exchanges) == 2 * asked
    assert account(bucket.uri("out")).spent == true
    assert {answer.key for answer in stored(bucket.uri("out")).values()} == {a.key for a in stored(tmp_path).values()}
    assert_same_dataset(tmp_path, bucket.uri("out"), CONFIG)
    assert_conserved(bucket.uri("out"), CONFIG)


def test_batches_leave_no_record_behind_and_share_the_store(source: Path, bucket: Bucket, api: ClaudeApi) -> None:
    build_inline(source, bucket.uri("out"), CONFIG, judge_budget=judge_budget(in_batches=True))
    assert api.batches and not api.exchanges
    assert BatchRecord.read_all(bucket.at("out")) == []
    batches = len(api.batches)
    assert_conserved(bucket.uri("out"), CONFIG)
    build_inline(source, bucket.uri("out"), CONFIG, retry=frozenset(["rejected"]), judge_budget=judge_budget())
    assert len(api.batches) == batches and not api.exchanges


def test_what_is_written_is_what_lies_there_whatever_its_name_says(bucket: Bucket) -> None:
    for name in ("a.json", "a.gz", "a.jsonl.gz", "a.bz2", "a.zst"):
        bucket.at("out").write(name, b"these bytes")
        assert bucket.at("out").read(name) == b"these bytes"
