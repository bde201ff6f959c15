"""What several tests of the page look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.curation.report.made import Made, write_source
from tests.curation.report.pages import report
from tests.fakes.claude_api import ClaudeApi
from tests.fakes.loopback import CLAUDE, judge_budget
from tests.support import build_inline, ledger


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("made")
    source, out = write_source(folder), folder / "out"
    config = replace(CLAUDE, test=0.3, split_by="clip")
    with pytest.MonkeyPatch.context() as patched, ClaudeApi() as api:
        patched.setattr("nextscene.judge.spending.cached_client._STORE_SECONDS", 0.02)
        for name, value in api.env.items():
            patched.setenv(name, value)
        build_inline(source, out, config, judge_budget=judge_budget())
    yield Made(source, out, config, ledger(out, config), report(out, config, source))
