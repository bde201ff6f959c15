"""Layouts as TOML files, and as the text that a dataset records."""

from __future__ import annotations

from pathlib import Path

import pytest

from nextscene.common.config_loader import SettingsError
from nextscene.common.errors import UsageError
from nextscene.curation.sources.mapping.layout import Layout
from nextscene.curation.sources.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_a_layout_reads_back_from_its_text_without_what_it_says_of_itself(name: str) -> None:
    layout = preset(name)
    again = Layout.of_text(layout.text)
    assert (again.members, again.table, again.map, again.join) == (
        layout.members,
        layout.table,
        layout.map,
        layout.join,
    )
    assert again.text == layout.text and again.about.title == ""


@pytest.mark.parametrize(
    ("toml", "why"),
    [
        ("[map]\nvidoe = 'x'", "no setting 'map.vidoe'; is 'map.video' meant?"),
        ("[map]\nvideo = '{path'", "map.video: '{path' has a single {"),
        ("[map]\ncaption = ['a b']", "'a b' is not a path into a row"),
        ("[map]\nspan = ['a', 'b', 'c']", "map.span has 3 paths; give start and end, or one path to both"),
        ("[map]\ncrop = ['a', 'b']", "map.crop has 2 paths; give four"),
        ("[map]\nspan = ['a']\nspan_unit = 'frames'", "map.fps belongs to map.span_unit"),
        ("[map]\nspan = ['a']\nfps = 'b'", "map.fps belongs to map.span_unit"),
        ("[map]\nspan_unit = 'hours'", "should be one of seconds, clock, frames"),
        ("[join]\nby = 'size'", "should be one of name, basename, stem"),
        (
            "[members]\nfiles = ['*.zip']\n[map]\nid = '{x}'",
            "without a table, [map] has caption and caption_list alone; name a table in table.files",
        ),
        ("[map]\nwhere = 'a >'", "a >"),
        ("members = 1", "should be a table, [members]"),
        ("not toml", "no TOML"),
    ],
)
def test_a_wrong_layout_is_refused_with_the_name_and_the_reason(toml: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "layout.toml"
    file.write_text(toml)
    with pytest.raises(UsageError) as error:
        Layout.read(file)
    assert why in str(error.value)


def test_a_recorded_text_that_is_damaged_is_one_error() -> None:
    with pytest.raises(SettingsError, match="not as it was recorded"):
        Layout.of_text("{")
