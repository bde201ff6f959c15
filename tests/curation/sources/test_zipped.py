"""Zips as sources: the clips of a folder with the same files, and of damaged members their outcomes."""

from __future__ import annotations

import subprocess
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.common.errors import UsageError
from nextscene.curation.sources import SkippedFiles, Source
from nextscene.curation.sources.reader import SourceReader
from tests.support import SMALL, build_inline, ledger, make_video

pytestmark = pytest.mark.slow

NAMES = st.builds(
    str.__add__,
    st.lists(st.text("abé1-_", min_size=1, max_size=3), min_size=1, max_size=3).map("/".join),
    st.sampled_from([".mp4", ".MKV", ".txt", ".caption", ".mp4.txt", ".md", ""]),
)


def fits(files: dict[str, bytes]) -> bool:
    """Return whether the files can be in one folder, with one video for a stem."""
    stems = [name.rpartition(".")[0] for name in files if name.endswith((".mp4", ".MKV"))]
    folders = {str(above) for name in files for above in Path(name).parents}
    return len(stems) == len(set(stems)) > 0 and not folders & files.keys()


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(NAMES, st.binary(max_size=200).map(lambda data: b"said " + data), min_size=1, max_size=9).filter(
        fits
    )
)
def test_a_zip_gives_the_clips_of_a_folder_with_its_files(files: dict[str, bytes]) -> None:
    """It is the folder's clips under another path, in the same order, with the same captions and bytes."""
    with tempfile.TemporaryDirectory() as folder:
        unpacked, packed = Path(folder, "unpacked", "a.zip"), Path(folder, "packed")
        packed.mkdir()
        with zipfile.ZipFile(packed / "a.zip", "w") as archive:
            for number, (name, data) in enumerate(files.items()):
                (unpacked / name).parent.mkdir(parents=True, exist_ok=True)
                (unpacked / name).write_bytes(data)
                archive.writestr(name, data, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[number % 2])
        counts = SkippedFiles(), SkippedFiles()
        wanted = list(Source.at(str(unpacked.parent)).clips(counts[0]))
        found = list(Source.at(str(packed)).clips(counts[1]))
        assert [(clip.name.lower(), clip.caption, clip.flaw) for clip in found] == [
            (clip.name.lower(), clip.caption, clip.flaw) for clip in wanted
        ]
        assert counts[0].counts == counts[1].counts
        reader = SourceReader(Source.at(str(packed)).root, Path(folder))
        for clip, same in zip(found, wanted, strict=True):
            assert reader.fetch(clip).read_bytes() == (unpacked.parent / same.name).read_bytes()
        alone = list(Source.at(str(packed / "a.zip")).clips())
        assert [replace(clip, digest="") for clip in alone] == [replace(clip, digest="") for clip in found]


def test_a_zip_without_videos_is_skipped_in_a_folder_and_refused_alone(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "notes.zip", "w") as archive:
        archive.writestr("a.md", b"notes")
    (tmp_path / "a.mp4").write_bytes(b"x")
    skipped = SkippedFiles()
    assert [clip.name for clip in Source.at(str(tmp_path)).clips(skipped)] == ["a.mp4"]
    assert skipped.counts == {".md": 1, ".zip": 1}
    with pytest.raises(UsageError, match="no sample with a video"):
        list(Source.at(str(tmp_path / "notes.zip")).clips())


def test_a_bad_zip_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\3\4 cut")
    with pytest.raises(UsageError, match=r"a\.zip: it has no directory at its end"):
        list(Source.at(str(tmp_path)).clips())


def test_members_that_cannot_be_used_end_alone(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", 0.5, "832x480").read_bytes()
    path = tmp_path / "in" / "a.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name, method in (("a", zipfile.ZIP_STORED), ("b", zipfile.ZIP_DEFLATED), ("c", zipfile.ZIP_STORED)):
            archive.writestr(f"{name}.mp4", video, method)
            archive.writestr(f"{name}.txt", f"a caption of {name}")
        archive.writestr("d.mp4", video)
        archive.writestr("d.txt", "a caption that breaks")
    (tmp_path / "e.mp4").write_bytes(video)
    subprocess.run(["zip", "-q", "-P", "word", path, "e.mp4"], cwd=tmp_path, check=True)
    data = bytearray(path.read_bytes())
    third = data.rindex(video[:100], 0, data.index(b"a caption of c"))
    for place in (third + len(video) - 500, data.index(b"caption that breaks")):
        data[place] ^= 255
    path.write_bytes(data)
    build_inline(path.parent, tmp_path / "out", SMALL)
    rows = {row.source: row for row in ledger(tmp_path / "out")}
    assert {name: (row.outcome, row.reason) for name, row in rows.items()} == {
        "a.zip/a.mp4": ("kept", ""),
        "a.zip/b.mp4": ("kept", ""),
        "a.zip/c.mp4": ("failed", "damaged_member"),
        "a.zip/d.mp4": ("failed", "bad_caption"),
        "a.zip/e.mp4": ("failed", "member_encrypted"),
    }
