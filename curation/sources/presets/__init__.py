"""Layouts of public data sets, one TOML file each. To add one, add a file: its name is the preset's.

Tested in tests/curation/sources/presets/test_presets.py.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from itertools import islice
from pathlib import Path, PurePosixPath

from nextscene.common.patterns import matching_files
from nextscene.common.storage import Storage
from nextscene.curation.sources.mapping.layout import Layout

PRESETS: Mapping[str, Path] = {file.stem: file for file in sorted(Path(__file__).parent.glob("*.toml"))}

_MOST_NAMES = 10_000


def split_preset(location: str) -> tuple[str, str]:
    """Return the preset and the path of a location such as `openvid:/data/OpenVid-1M`; "" and all for another one."""
    name, colon, path = location.partition(":")
    return (name, path) if colon and name in PRESETS and not path.startswith("//") else ("", location)


def preset(name: str) -> Layout:
    """Return the layout of a preset."""
    return Layout.read(PRESETS[name])


def likely_presets(root: Storage) -> list[str]:
    """Return the presets whose files a folder seems to hold. Of a large folder only some names are looked at."""
    names = [name.rstrip("/") for name in islice(root.names(""), _MOST_NAMES)]

    def is_there(pattern: str) -> bool:
        first = PurePosixPath(pattern).parts[0]
        return bool(fnmatch.filter(names, first)) and next(matching_files(root, pattern), None) is not None

    return [name for name in PRESETS if any(map(is_there, preset(name).about.like))]
