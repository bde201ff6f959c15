"""Layouts of public data sets, one TOML file each. To add one, add a file: its name is the preset's.

Tested in tests/curation/sources/presets/test_presets.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nextscene.common.patterns import matching_files
from nextscene.common.storage import Storage
from nextscene.curation.sources.mapping.layout import Layout

PRESETS: Mapping[str, Path] = {file.stem: file for file in sorted(Path(__file__).parent.glob("*.toml"))}


def split_preset(location: str) -> tuple[str, str]:
    """Return the preset and the path of a location such as `openvid:/data/OpenVid-1M`; "" and all for another one."""
    name, colon, path = location.partition(":")
    return (name, path) if colon and name in PRESETS and not path.startswith("//") else ("", location)


def preset(name: str) -> Layout:
    """Return the layout of a preset."""
    return Layout.read(PRESETS[name])


def likely_presets(root: Storage) -> list[str]:
    """Return the presets whose files a folder seems to hold."""
    return [
        name
        for name in PRESETS
        if any(next(matching_files(root, pattern), None) is not None for pattern in preset(name).about.like)
    ]
