"""Settings: defaults, then a TOML file, then flags; and a mistake is told by its name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nextscene.curation.config import BuildConfig, as_tree
from nextscene.pipelines.cli.options import SettingsError, chosen, from_names, from_tree, leaves, options


@dataclass(frozen=True)
class Inner:
    depth: int = 3
    share: float = 0.5


@dataclass(frozen=True)
class Outer:
    name: Literal["one", "two"] = "one"
    title: str = "t"
    loud: bool = False
    unit_size: int = 32
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.unit_size <= 0:
            raise ValueError(f"unit_size must be above 0, not {self.unit_size}")


def mistake(tmp_path: Path, toml: str) -> str:
    path = tmp_path / "settings.toml"
    path.write_text(toml)
    with pytest.raises(SettingsError) as error:
        chosen(Outer, path, none_given(Outer))
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def none_given(cls: type[Any]) -> dict[str, Any]:
    return {leaf.name.replace(".", "__"): None for leaf in leaves(cls)}


def flags_of(*arguments: str) -> dict[str, Any]:
    """What click makes of a command line of settings."""
    found: dict[str, Any] = {}

    @click.command()
    @options(Outer)
    def command(**flags: Any) -> None:
        found.update(flags)

    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.stderr
    return found


def test_every_setting_has_a_dotted_name_a_type_and_a_default() -> None:
    assert [(leaf.name, leaf.default) for leaf in leaves(Outer)] == [
        ("name", "one"),
        ("title", "t"),
        ("loud", False),
        ("unit_size", 32),
        ("inner.depth", 3),
        ("inner.share", 0.5),
    ]


def test_without_file_and_flags_all_is_at_its_default() -> None:
    assert chosen(Outer, None, none_given(Outer)) == Outer()
    assert chosen(BuildConfig, None, none_given(BuildConfig)) == BuildConfig()


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('name = "two"\nunit_size = 4\n[inner]\nshare = 1\n')
    assert chosen(Outer, path, none_given(Outer)) == Outer(name="two", unit_size=4, inner=Inner(share=1.0))


def test_flags_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("unit_size = 4\n[inner]\ndepth = 9\nshare = 0.1\n")
    flags = flags_of("--unit-size", "5", "--inner.share", "0.25")
    assert chosen(Outer, path, flags) == Outer(unit_size=5, inner=Inner(depth=9, share=0.25))


def test_a_flag_that_gives_the_default_overrides_the_file_too(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("unit_size = 4\n")
    assert chosen(Outer, path, flags_of("--unit-size", "32")) == Outer()


@given(
    st.builds(
        BuildConfig,
        judge=st.sampled_from(["film", "none"]),
        test=st.floats(0, 1),
        unit_size=st.integers(1, 10**6),
        split_by=st.sampled_from(["source", "clip"]),
        resolution=st.sampled_from(["train", "native"]),
    )
)
def test_a_configuration_comes_back_from_its_tables(config: BuildConfig) -> None:
    assert from_tree(BuildConfig, as_tree(config), "here") == config


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("unitsize = 4", ["no setting 'unitsize'", "is 'unit_size' meant"]),
        ("unit-size = 4", ["no setting 'unit-size'", "is 'unit_size' meant"]),
        ("[inner]\ndeth = 4", ["no setting 'inner.deth'", "is 'inner.depth' meant"]),
        ("depth = 4", ["no setting 'depth'", "is 'inner.depth' meant"]),
        ("xyzzy = 4", ["no setting 'xyzzy'"]),
        ("inner = 4", ["inner = 4 should be a table", "inner.depth"]),
        ("[unit_size]\nx = 4", ["no setting 'unit_size.x'", "is 'unit_size' meant"]),
        ('unit_size = "4"', ["unit_size = '4'", "a whole number"]),
        ("unit_size = 4.0", ["unit_size = 4.0", "a whole number"]),
        ("unit_size = true", ["unit_size = True", "a whole number"]),
        ("inner.share = true", ["inner.share = True", "a number"]),
        ('inner.share = "0.5"', ["inner.share = '0.5'", "a number"]),
        ("title = 7", ["title = 7", "text"]),
        ("loud = 1", ["loud = 1", "true or false"]),
        ('name = "three"', ["name = 'three'", "one of one, two"]),
        ("unit_size = [4]", ["unit_size = [4]", "a whole number"]),
        ("unit_size = 0", ["unit_size must be above 0, not 0"]),
        ("unit_size = ", ["Invalid value"]),
        ("unit_size = 4\nunit_size = 5\n", ["line 2"]),
    ],
)
def test_a_mistake_in_a_file_is_told_with_file_and_name(tmp_path: Path, toml: str, words: list[str]) -> None:
    said = mistake(tmp_path, toml)
    assert all(word in said for word in words), said


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.01, 1.01])
@pytest.mark.parametrize("name", ["test", "film.max_overlap"])
def test_a_share_lies_between_0_and_1(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=name):
        from_names(BuildConfig, {name: value}, "here")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("unit_size", 0),
        ("units_per_shard", -1),
        ("rules.min_width", 0),
        ("encode.fps", 0),
        ("encode.max_frames", 0),
        ("encode.width", 831),
        ("encode.height", 479),
        ("encode.image_side", 511),
        ("limits.clip_seconds", 0.0),
        ("limits.clip_seconds", float("nan")),
        ("limits.clip_seconds", float("inf")),
        ("limits.clip_memory_mb", 0),
        ("encode.crf", -1),
        ("encode.crf", 52),
        ("encode.preset", "quick"),
        ("encode.preset", ""),
    ],
)
def test_a_value_that_cannot_work_is_told_by_name(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=name):
        from_names(BuildConfig, {name: value}, "here")


def test_a_file_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(b'title = "\xff"')
    with pytest.raises(SettingsError, match=r"settings\.toml"):
        chosen(Outer, path, none_given(Outer))
