"""A retry is advised where it may change something, and says what is to be mended first."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nextscene.curation.sealing.retry_advice import advise_retries, not_retryable
from nextscene.curation.stages.describe import JUDGE_FAILURES
from tests.fakes.without_ray import build, without_ray
from tests.support import REPOSITORY, SMALL, build_inline, make_video, write_csv

FAILS = re.compile(r'(?:ClipOutcome|NoVerdict)\(\s*"failed",\s*"([a-z_]+)"')


def test_what_a_rule_or_a_file_decides_is_not_advised_to_be_retried() -> None:
    ends = [("kept", "", 5), ("rejected", "too_small", 3), ("failed", "damaged", 2), ("dropped", "no_pass", 1)]
    assert advise_retries(ends) == [] and not_retryable(ends) == {"damaged": 2}
    (one,) = advise_retries([*ends, ("absent", "no_file", 1), ("quarantined", "kills_worker", 1)])
    assert one.outcomes == "absent,quarantined" and "1 no_file: put the files there first" in one.why
    assert not_retryable([("absent", "no_file", 1), ("absent", "not_listed", 3)]) == {"not_listed": 3}
    assert [one.outcomes for one in advise_retries([("failed", "source_missing", 1)])] == ["failed"]
    assert [one.outcomes for one in advise_retries([("refused", "frontier_llm", 2), ("refused", "other", 1)])] == [
        "refused"
    ]


def test_what_the_judge_let_down_may_be_asked_again() -> None:
    for reason in JUDGE_FAILURES:
        assert [one.outcomes for one in advise_retries([("failed", reason, 1)])] == ["failed"]


def test_every_way_to_fail_is_either_mendable_or_not() -> None:
    """A new one is to be thought about here."""
    code = "".join(
        path.read_text() for room in ("common", "curation", "judge") for path in (REPOSITORY / room).rglob("*.py")
    )
    mendable = {reason for reason in FAILS.findall(code) if advise_retries([("failed", reason, 1)])}
    files = {"source_changed", "header_error", "cut_timeout", "cut_crashed", "unexpected"}
    assert mendable == files | {"truncated", "unreadable_answer"}
    others = {*FAILS.findall(code)} - mendable
    assert others == {
        "format_change",
        "damaged",
        "damaged_member",
        "short_decode",
        "cut_error",
        "bad_caption",
        "bad_crop",
    }


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One clip kept, one rejected, one without a file."""
    without_ray(monkeypatch)
    make_video(tmp_path / "a.mp4", 0.25, "832x480")
    make_video(tmp_path / "small.mp4", 0.5, "64x48")
    rows = [{"video": f"{name}.mp4", "caption": f"words {name}"} for name in ("a", "small", "later")]
    build_inline(write_csv(tmp_path / "clips.csv", rows), tmp_path / "out", SMALL)
    return tmp_path / "out"


def test_a_retry_without_such_clips_says_so_and_what_there_is(out: Path) -> None:
    said = build("--out", out, "--retry", "refused,dropped", code=1)
    assert said.startswith(
        "Nothing to retry: no clip has ended as dropped or refused; there are 1 kept, 1 rejected, 1 absent.\n"
    )
    assert not (out / "retry.json").exists()


def test_the_lines_at_the_end_can_be_run_and_help(out: Path) -> None:
    said = build("--out", out, code=1)
    retry, verify = [line.removeprefix("next      ") for line in said.splitlines() if line.startswith("next ")]
    assert retry == (
        f"python pipelines/build_nsp.py --out {out} --retry absent  # 1 no_file: put the files there first"
    )
    assert verify == f"python pipelines/build_nsp.py --out {out} --verify"
    make_video(out.parent / "later.mp4", 0.25, "832x480")
    flags = retry.partition("  #")[0].split()[2:]
    assert "2 in shards" in build(*flags) and "--retry" not in build("--out", out)


def test_what_no_retry_can_change_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)
    make_video(tmp_path / "in" / "a.mp4", 0.25, "832x480")
    make_video(tmp_path / "in" / "b.mp4", 0.25, "832x480")
    (tmp_path / "in" / "a.txt").write_text("words")
    (tmp_path / "in" / "b.txt").write_bytes(b"\xff")
    build_inline(tmp_path / "in", tmp_path / "out", SMALL)
    said = build("--out", tmp_path / "out", code=1)
    assert "--retry" not in said and "# no retry changes what is in files, captions and scenes: 1 bad_caption" in said


def test_absent_files_end_a_build_with_1_unless_they_are_expected(out: Path) -> None:
    build("--out", out, code=1)
    assert "absent" in build("--out", out, "--partial")
    make_video(out.parent / "tiny.mp4", 0.25, "64x48")
    rows = [{"video": name, "caption": "words"} for name in ("tiny.mp4", "gone.mp4")]
    source = write_csv(out.parent / "two.csv", rows)
    build("--source", source, "--out", out.parent / "two", "--judge", "none", "--partial", code=1)  # nothing is kept
