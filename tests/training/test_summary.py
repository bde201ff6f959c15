"""The summary of a stage: written with names, and read back, also as earlier versions wrote it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nextscene.common.errors import UsageError
from nextscene.training.summary import StageSummary, TextAblation

SUMMARY = StageSummary("sft", "sft", 4, 4, 7, 1.0, 0.5, 1.3, 0.6, seen=TextAblation(3, 0.25, 1.0))


def test_the_comparisons_have_names_in_the_file(tmp_path: Path) -> None:
    SUMMARY.write(tmp_path)
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["seen"] == {"clips": 3, "gain": 0.25, "share": 1.0}
    assert StageSummary.read(tmp_path) == SUMMARY


def test_a_summary_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    SUMMARY.write(tmp_path)
    written = json.loads((tmp_path / "summary.json").read_text())
    written |= {name: list(written[name].values()) for name in ("seen", "heldout")}
    (tmp_path / "summary.json").write_text(json.dumps(written))
    assert StageSummary.read(tmp_path) == SUMMARY


@pytest.mark.parametrize("seen", [3, [1, 2], {"clips": 3}, None])
def test_a_summary_of_something_else_is_named(tmp_path: Path, seen: object) -> None:
    SUMMARY.write(tmp_path)
    written = json.loads((tmp_path / "summary.json").read_text()) | {"seen": seen}
    (tmp_path / "summary.json").write_text(json.dumps(written))
    with pytest.raises(UsageError, match="is not the summary of a stage"):
        StageSummary.read(tmp_path)
