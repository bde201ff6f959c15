"""Settings: defaults, then a TOML file, then values by name; and a mistake is told by its name."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene.common.config_loader import (
    SettingsError,
    differences,
    flat,
    flatten,
    from_names,
    from_tree,
    leaves,
    load,
    renamed_settings,
    setting,
)
from nextscene.curation.config import BuildConfig, as_tables


@dataclass(frozen=True)
class Inner:
    depth: int = setting(3, "How deep.")
    share: float = setting(0.5, "How much.")


@dataclass(frozen=True)
class Outer:
    RENAMED: ClassVar[Mapping[str, str]] = {"units": "unit_size", "within": "inner"}

    name: Literal["one", "two"] = "one"
    title: str = "t"
    loud: bool = False
    unit_size: int = setting(32, "Clips of a unit.")
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.unit_size <= 0:
            raise ValueError(f"unit_size must be above 0, not {self.unit_size}")


def mistake(tmp_path: Path, toml: str) -> str:
    path = tmp_path / "settings.toml"
    path.write_text(toml)
    with pytest.raises(SettingsError) as error:
        load(Outer, path, {})
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def test_every_setting_has_a_dotted_name_a_type_a_default_and_a_sentence() -> None:
    assert [(one.name, one.default, one.help) for one in leaves(Outer)] == [
        ("name", "one", ""),
        ("title", "t", ""),
        ("loud", False, ""),
        ("unit_size", 32, "Clips of a unit."),
        ("inner.depth", 3, "How deep."),
        ("inner.share", 0.5, "How much."),
    ]
    assert flat(Outer()) == {one.name: one.default for one in leaves(Outer)}
    assert Outer.unit_size == 32


def test_a_choice_registered_later_counts() -> None:
    known = {"film": 1, "none": 2}

    @dataclass(frozen=True)
    class Chosen:
        judge: str = setting("film", "Who judges.", choices=known)

    with pytest.raises(SettingsError, match="file: judge = 'nobody' should be one of film, none"):
        from_names(Chosen, {"judge": "nobody"}, "file")
    known["nobody"] = 3
    assert from_names(Chosen, {"judge": "nobody"}, "file").judge == "nobody"


def test_without_file_and_values_all_is_at_its_default() -> None:
    assert load(Outer, None, {}) == Outer()
    assert load(BuildConfig, None, {}) == BuildConfig()


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('name = "two"\nunit_size = 4\n[inner]\nshare = 1\n')
    assert load(Outer, path, {}) == Outer(name="two", unit_size=4, inner=Inner(share=1.0))


def test_given_values_count_before_the_file_and_the_file_before_recorded_ones(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("unit_size = 4\n[inner]\ndepth = 9\n")
    recorded = {"unit_size": 2, "inner.depth": 2, "inner.share": 0.125}
    assert load(Outer, path, {"unit_size": 5}, recorded) == Outer(unit_size=5, inner=Inner(depth=9, share=0.125))


def test_differences_name_both_values() -> None:
    assert differences({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 4}) == {"b": (2, 4), "c": (3, None)}


def test_nested_tables_become_dotted_names() -> None:
    assert flatten({"a": 1, "b": {"c": {"d": 2}, "e": [3]}}) == {"a": 1, "b.c.d": 2, "b.e": [3]}


def test_an_old_name_works_and_warns_of_the_new_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert renamed_settings(Outer) == {
        "units": "unit_size",
        "within.depth": "inner.depth",
        "within.share": "inner.share",
    }
    path = tmp_path / "settings.toml"
    path.write_text("units = 4\n[within]\ndepth = 9\n")
    with caplog.at_level(logging.WARNING):
        assert load(Outer, path, {}) == Outer(unit_size=4, inner=Inner(depth=9))
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: {old} is now called {new}; the old name works until the next release"
        for old, new in (("units", "unit_size"), ("within.depth", "inner.depth"))
    ]


def test_an_old_name_beside_the_new_one_is_refused(tmp_path: Path) -> None:
    assert "units is the old name of unit_size" in mistake(tmp_path, "units = 4\nunit_size = 5\n")
    both = "[within]\ndepth = 1\n[inner]\ndepth = 2\n"
    assert "within.depth is the old name of inner.depth" in mistake(tmp_path, both)


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
    assert from_tree(BuildConfig, as_tables(config), "here") == config


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
        load(Outer, path, {})
