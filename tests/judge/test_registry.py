"""The registry of judges: what the other rooms ask of a judge, and which names they may ask about."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nextscene.common.config_loader import SettingsError, from_names
from nextscene.curation.config import BuildConfig
from nextscene.judge.registry import JUDGES, is_paid, settings_of


def test_each_judge_is_registered_under_its_own_name() -> None:
    assert {name: kind.name for name, kind in JUDGES.items()} == {
        name: name for name in ("film", "claude", "given", "none")
    }


def test_the_settings_of_a_judge_are_a_table_of_the_configuration() -> None:
    for name in JUDGES:
        config = BuildConfig(judge=name)
        assert (config.judge_settings is None) == (not settings_of(name))


def test_only_claude_is_paid_and_an_unknown_name_is_not() -> None:
    assert [name for name in [*JUDGES, "nobody", None] if is_paid(name)] == ["claude"]
    assert settings_of("nobody") == settings_of(None) == ""


def test_an_unknown_judge_is_refused_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match="judge = 'nobody' should be one of film, claude, given, none"):
        from_names(BuildConfig, {"judge": "nobody"}, "settings")


@pytest.mark.parametrize(
    ("judge", "tables"),
    [("film", {"film"}), ("claude", {"claude", "prompts"}), ("given", set[str]()), ("none", set[str]())],
)
def test_only_the_settings_of_the_chosen_judge_decide_a_dataset(judge: str, tables: set[str]) -> None:
    names = {name.partition(".")[0] for name in BuildConfig(judge=judge).identity_settings("ffmpeg")}
    assert names & {"film", "claude", "prompts", "limits"} == tables


def test_the_registry_loads_no_sdk() -> None:
    loaded = "import sys, nextscene.judge.registry; print({'anthropic', 'torch', 'ray'} & sys.modules.keys())"
    said = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True).stdout
    assert said.strip() == "set()"
