"""Datasets of an older version of the cut: finished as if begun today, and no answer is paid for twice."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from nextscene.common.errors import RunStopped, UsageError
from nextscene.curation.config import CUT_VERSION, BuildConfig, EncodeConfig, fingerprint
from nextscene.curation.media.probe import measure
from nextscene.curation.media.seek import Span
from nextscene.curation.stages.cut import cut
from nextscene.curation.stages.keyframes import extract_keyframes
from nextscene.curation.stages.keyframes_v1 import extract_keyframes_v1
from tests.fakes.claude_api import ClaudeApi
from tests.fakes.loopback import CLAUDE, judge_budget, stored
from tests.support import (
    SMALL,
    as_before_sums,
    assert_conserved,
    assert_same_dataset,
    build_inline,
    captioned_spans,
    run_ffmpeg,
)
from tests.support import write_csv as written

pytestmark = pytest.mark.slow

NEW_RULES = ("hdr", "max_damaged_frames")


def first_cut(stop_after: int) -> Callable[..., Any]:
    """A cut that makes other bytes than today's, and dies after so many clips."""
    done = []

    def other(source: Path, span: Span, measured: Any, config: BuildConfig, *rest: Any) -> Any:
        if len(done) == stop_after:
            raise RunStopped("killed")
        done.append(source)
        return cut(source, span, measured, replace(config, encode=EncodeConfig(crf=40)), *rest)

    return other


def as_written_by_the_first_version(out: Path) -> None:
    """Takes out of `config.toml` and the receipts what that did not know of."""
    value = tomllib.loads((out / "config.toml").read_text())
    del value["begun_with_cut"], value["determining"]["cut_version"]
    for rule in NEW_RULES:
        del value["determining"][f"rules.{rule}"], value["config"]["rules"][rule]
    value["fingerprint"] = fingerprint(value["determining"])
    (out / "config.toml").write_text(tomli_w.dumps(value))
    as_before_sums(out)


def begun(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int) -> None:
    with monkeypatch.context() as patch, pytest.raises(RunStopped, match="killed"):
        patch.setattr("nextscene.curation.stages.clip_steps.cut", first_cut(stop_after))
        build_inline(source, out, SMALL)
    as_written_by_the_first_version(out)


@pytest.mark.parametrize("stop_after", [0, 3, 7])
def test_an_unfinished_dataset_is_finished_as_if_begun_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stop_after: int
) -> None:
    """Stopped before the first unit, within the first shard, and within the second."""
    source = captioned_spans(tmp_path / "in", 8)
    begun(source, tmp_path / "out", monkeypatch, stop_after)
    build_inline(source, tmp_path / "out", SMALL)
    assert ("are cut anew" in caplog.text) == (stop_after > 0)
    build_inline(source, tmp_path / "fresh", SMALL)
    assert_same_dataset(tmp_path / "out", tmp_path / "fresh")
    assert_conserved(tmp_path / "out")
    now = tomllib.loads((tmp_path / "out" / "config.toml").read_text())
    assert (now["determining"]["cut_version"], now["begun_with_cut"]) == (CUT_VERSION, 1)


def test_a_finished_dataset_stays_as_it_is_and_no_clip_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = captioned_spans(tmp_path / "in", 4), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("nextscene.curation.stages.clip_steps.cut", first_cut(99))
        build_inline(source, out, SMALL)
    as_written_by_the_first_version(out)
    before = {path: path.read_bytes() for path in out.rglob("*.tar")}
    build_inline(source, out, SMALL)
    with pytest.raises(UsageError, match=r"was finished by an older version, .* `retry` would mix"):
        build_inline(source, out, SMALL, retry=frozenset({"failed"}))
    assert {path: path.read_bytes() for path in out.rglob("*.tar")} == before
    assert_conserved(out)


def test_a_newer_version_s_dataset_is_left_alone(tmp_path: Path) -> None:
    source, out = captioned_spans(tmp_path / "in", 2), tmp_path / "out"
    build_inline(source, out, SMALL)
    value = tomllib.loads((out / "config.toml").read_text())
    value["determining"]["cut_version"] = CUT_VERSION + 1
    value["fingerprint"] = fingerprint(value["determining"])
    (out / "config.toml").write_text(tomli_w.dumps(value))
    with pytest.raises(UsageError, match="was cut by a newer version"):
        build_inline(source, out, SMALL)


def test_a_new_setting_had_its_default_in_an_old_dataset(tmp_path: Path) -> None:
    source, out = captioned_spans(tmp_path / "in", 2), tmp_path / "out"
    build_inline(source, out, SMALL)
    as_written_by_the_first_version(out)
    with pytest.raises(UsageError, match=r"another plan: rules.hdr is reject, was convert\. Leave out"):
        build_inline(source, out, replace(SMALL, rules=replace(SMALL.rules, hdr="reject")))


def test_captions_that_were_bought_stay_with_their_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: ClaudeApi
) -> None:
    """Even though the pictures that they were bought for show another moment than the clip."""
    picture = "testsrc2=size=854x480:rate=24:duration=8"
    encoding = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "96", "-sc_threshold", "0"]
    run_ffmpeg("-f", "lavfi", "-i", picture, *encoding, str(tmp_path / "film.ts"))
    rows = [{"video": "film.ts", "start": start, "end": 4.5} for start in (1.5, 2.0, 3.0, 3.5)]
    source = written(tmp_path / "clips.csv", rows)
    paid = judge_budget(uncaptioned="caption")
    with monkeypatch.context() as patch, pytest.raises(RunStopped, match="killed"):
        patch.setattr("nextscene.curation.stages.clip_steps.extract_keyframes", extract_keyframes_v1)
        patch.setattr("nextscene.curation.stages.clip_steps.cut", first_cut(0))
        build_inline(source, tmp_path / "out", CLAUDE, judge_budget=paid)
    as_written_by_the_first_version(tmp_path / "out")
    asked, answers = len(api.exchanges), stored(tmp_path / "out")
    assert asked == len(answers) >= 12  # four captions, four scenes, four verdicts
    build_inline(source, tmp_path / "out", CLAUDE, judge_budget=paid)
    assert len(api.exchanges) == asked and stored(tmp_path / "out") == answers
    assert_conserved(tmp_path / "out", CLAUDE)
    with (tmp_path / "film.ts").open("rb") as file:
        found = measure(file)
    before, now = (
        each(tmp_path / "film.ts", Span(1.5, 3.0), found, CLAUDE, tmp_path)
        for each in (extract_keyframes_v1, extract_keyframes)
    )
    assert isinstance(now, tuple) and before[0].jpeg != now[0].jpeg
