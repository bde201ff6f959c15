"""Caption files: which of the files beside a video has its caption.

Tested in tests/curation/sources/test_suffixes.py.
"""

from __future__ import annotations

from collections.abc import Collection

TEXT_SUFFIXES = (".txt", ".caption")


def is_text(name: str) -> bool:
    """Return whether a name is one that a caption could have."""
    return name.lower().endswith(TEXT_SUFFIXES)


def caption_name(video: str, names: Collection[str]) -> str:
    """Return which of `names` holds the caption of `video`; "" if none does.

    For `clip.mp4` the first of `clip.txt`, `clip.caption`, `clip.mp4.txt` and `clip.mp4.caption` that is there, their
    suffixes in small letters before any others.
    """
    for stem in (video.rpartition(".")[0], video):
        for suffix in TEXT_SUFFIXES:
            if f"{stem}{suffix}" in names:
                return f"{stem}{suffix}"
            alike = [name for name in names if name.startswith(stem) and name[len(stem) :].lower() == suffix]
            if alike:
                return min(alike)
    return ""
