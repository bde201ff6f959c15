"""Further rules: off unless named, the same dataset without them, and a rule over frames that decides by pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nextscene.common.errors import UsageError
from nextscene.curation.config import BuildConfig, Rules, as_tables
from nextscene.curation.outcome import ClipOutcome
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.rules.base import ClipFacts, Rule, pixels
from nextscene.curation.rules.registry import RULES, active_rules
from tests.support import SMALL, build_inline, ledger, make_video, open_out, run_ffmpeg, write_csv


def too_green(facts: ClipFacts) -> ClipOutcome | None:
    greenest = max(float(pixels(frame)[..., 1].mean()) for frame in facts.frames)
    return ClipOutcome("rejected", "too_green", f"mean green of {greenest:.0f}") if greenest > 200 else None


@pytest.fixture
def green(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "green", Rule("green", too_green, needs_frames=True))


def names(further: str, needs_frames: bool) -> list[str]:
    return [rule.name for rule in active_rules(Rules(further=further), needs_frames)]


def test_a_further_rule_is_in_force_only_where_it_is_named(green: None) -> None:
    assert names("", needs_frames=False) == ["size", "span", "color"] and names("", needs_frames=True) == []
    assert names(" green ,", needs_frames=True) == ["green"]


@pytest.mark.parametrize("further", ["nothing", "green,nothing", "size"])
def test_an_unknown_rule_is_refused_with_those_there_are(further: str, green: None) -> None:
    with pytest.raises(UsageError, match=r"no further rule '(nothing|size)'; there are green"):
        active_rules(Rules(further=further), needs_frames=False)


def test_a_build_without_further_rules_is_recorded_as_before_there_were_any() -> None:
    assert "further" not in as_tables(SMALL)["rules"] and "rules.further" not in SMALL.identity_settings("ffmpeg")
    other = replace(SMALL, rules=Rules(further="green"))
    assert as_tables(other)["rules"]["further"] == other.identity_settings("ffmpeg")["rules.further"] == "green"


def test_a_rule_over_frames_rejects_by_what_the_clip_shows(tmp_path: Path, green: None) -> None:
    make_video(tmp_path / "mixed.mp4", 0.5)
    picture = "color=c=0x00ff00:size=854x480:rate=16:duration=0.5"
    run_ffmpeg("-f", "lavfi", "-i", picture, "-pix_fmt", "yuv420p", str(tmp_path / "green.mp4"))
    clips = write_csv(tmp_path / "clips.csv", [{"video": f"{n}.mp4", "caption": n} for n in ("mixed", "green")])
    config = replace(SMALL, rules=Rules(further="green"))
    build_inline(clips, tmp_path / "out", config)
    rows = {row.source: (row.outcome, row.reason) for row in ledger(tmp_path / "out")}
    assert rows == {"mixed.mp4": ("kept", ""), "green.mp4": ("rejected", "too_green")}
    recorded = RecordedConfig.read(open_out(str(tmp_path / "out")))
    assert recorded is not None and recorded.settings["rules.further"] == "green"


def test_an_unknown_rule_ends_a_build_before_any_work(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 0.25)
    config = BuildConfig(judge="none", rules=Rules(further="green"))
    with pytest.raises(UsageError, match="no further rule 'green'; there are none"):
        build_inline(tmp_path, tmp_path / "out", config)
