"""Caption files beside a video, and the choice of the one that has its caption.

Tested in tests/curation/sources/test_suffixes.py.
"""

from __future__ import annotations

from collections.abc import Collection

TEXT_SUFFIXES = (".txt", ".caption")


def is_text(name: str) -> bool:
    """Return whether a name is that of a possible caption file."""
    return name.lower().endswith(TEXT_SUFFIXES)


def caption_name(video: str, names: Collection[str]) -> str:
    """Return which of `names` is the caption file of `video`; "" if there is none.

    For `clip.mp4` it is the first that exists of `clip.txt`, `clip.caption`, `clip.mp4.txt` and `clip.mp4.caption`.
    Suffixes in small letters come before others.
    """
    for stem in (video.rpartition(".")[0], video):
        for suffix in TEXT_SUFFIXES:
            if f"{stem}{suffix}" in names:
                return f"{stem}{suffix}"
            alike = [name for name in names if name.startswith(stem) and name[len(stem) :].lower() == suffix]
            if alike:
                return min(alike)
    return ""
