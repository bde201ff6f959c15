"""Captions as text: whatever holds them, what is no caption is that clip's own end."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.common.text import MAX_TEXT_BYTES
from nextscene.curation.config import BuildConfig
from nextscene.curation.sources import Clip, Source
from nextscene.curation.sources.caption import clip_text
from tests.curation.planning import planned
from tests.support import SMALL, assert_conserved, build_inline, ledger, make_video, write_csv

HOLDERS = ("folder", "csv", "jsonl", "parquet", "tar", "tar json")
BAD = {
    "latin-1": ("Häschen".encode("latin-1"), "bad_caption", "byte 0xE4"),
    "a zero byte": (b"a\0b", "bad_caption", "zero byte"),
    "long": (b"x" * (MAX_TEXT_BYTES + 1), "caption_too_long", "1,048,577"),
    "long in bytes": ("é".encode() * (MAX_TEXT_BYTES // 2 + 1), "caption_too_long", "1,048,578"),
}
NOTHING = ("", " \n\t", "\ufeff", "\ufeff \ufeff\n", "\u200b\u200d\u2060", "\x07\x1b", "\u3164\u2800\ufe0f", "\u00ad")
BOM = "\ufeff"


def held(folder: Path, holder: str, captions: Sequence[bytes]) -> Path:
    """A source of one video, empty of pictures, for each caption, in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:02d}.mp4" for number in range(len(captions))]
    if holder.startswith("tar"):
        with tarfile.open(folder / "clips.tar", "w") as tar:
            for name, caption in zip(names, captions, strict=True):
                add(tar, name, b"x")
                if holder == "tar json":
                    add(tar, f"{name[:-4]}.json", b'{"caption": ' + spelled(caption) + b"}")
                else:
                    add(tar, f"{name[:-4]}.txt", caption)
        return folder / "clips.tar"
    for name, caption in zip(names, captions, strict=True):
        (folder / name).write_bytes(b"x")
        if holder == "folder":
            (folder / f"{name[:-4]}.txt").write_bytes(caption)
    path = folder / f"clips.{holder}"
    if holder == "csv":
        rows = [b'%s,"%s"\n' % (n.encode(), c.replace(b'"', b'""')) for n, c in zip(names, captions, strict=True)]
        path.write_bytes(b"video,caption\n" + b"".join(rows))
    elif holder == "jsonl":
        rows = [
            b'{"video": "%s", "caption": %s}\n' % (n.encode(), spelled(c)) for n, c in zip(names, captions, strict=True)
        ]
        path.write_bytes(b"".join(rows))
    elif holder == "parquet":
        texts = pa.array(captions, pa.binary()).view(pa.string())
        pq.write_table(pa.table({"video": names, "caption": texts}), path)
    return folder if holder == "folder" else path


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def spelled(caption: bytes) -> bytes:
    """A JSON text with the caption's very bytes in it."""
    return json.dumps(caption.decode("utf-8", "surrogateescape"), ensure_ascii=False).encode("utf-8", "surrogateescape")


def clips(source: Path) -> list[Clip]:
    return list(Source.at(str(source)).clips())


@pytest.mark.parametrize("holder", HOLDERS)
def test_what_cannot_be_a_caption_ends_its_clip_and_no_other(tmp_path: Path, holder: str) -> None:
    found = clips(held(tmp_path, holder, [b"before", *(data for data, _, _ in BAD.values()), b"after"]))
    assert [clip.caption for clip in found] == ["before", *[""] * len(BAD), "after"]
    assert [clip.flaw for clip in found] == ["", *(reason for _, reason, _ in BAD.values()), ""]
    for clip, (_, _, word) in zip(found[1:-1], BAD.values(), strict=True):
        assert word in clip.flaw_detail and "\n" not in clip.flaw_detail and len(clip.flaw_detail) < 200


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_caption_as_long_as_may_be_is_whole(tmp_path: Path, holder: str) -> None:
    (clip,) = clips(held(tmp_path, holder, [b"y" * MAX_TEXT_BYTES]))
    assert (clip.caption, clip.flaw) == ("y" * MAX_TEXT_BYTES, "")


@pytest.mark.parametrize("holder", HOLDERS)
def test_what_shows_nothing_is_no_caption_and_a_mark_of_byte_order_no_letter(tmp_path: Path, holder: str) -> None:
    texts = [*NOTHING, f"{BOM}a cat", f" {BOM} a cat {BOM}\n", "👩\u200d🚀", "e\u0301", "a\u200bb"]
    found = clips(held(tmp_path, holder, [text.encode() for text in texts]))
    assert [clip.caption for clip in found] == [*[""] * len(NOTHING), "a cat", "a cat", *texts[-3:]]
    assert not any(clip.flaw for clip in found)


@pytest.mark.parametrize("escape", ["\\ud83d", "\\ude00 x", "\\udce4"])
def test_half_a_character_spelled_in_json_ends_its_clip(tmp_path: Path, escape: str) -> None:
    rows = [f'{{"video": "a.mp4", "caption": "{escape}"}}', '{"video": "b.mp4", "caption": "\\ud83d\\ude00"}']
    (tmp_path / "clips.jsonl").write_text("\n".join(rows))
    half, whole = clips(tmp_path / "clips.jsonl")
    assert (half.flaw, half.caption, whole.flaw, whole.caption) == ("bad_caption", "", "", "😀")


def test_utf_16_is_told_as_what_it_is(tmp_path: Path) -> None:
    (clip,) = clips(held(tmp_path, "folder", ["a cat".encode("utf-16")]))
    assert clip.flaw == "bad_caption" and "UTF-16" in clip.flaw_detail


def test_a_json_in_a_tar_that_cannot_be_read_ends_its_clip(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "clips.tar", "w") as tar:
        for name, data in (("a.mp4", b"x"), ("a.json", b"{"), ("b.mp4", b"x"), ("b.json", b'{"caption": "it"}')):
            add(tar, name, data)
    assert [(clip.flaw, clip.caption) for clip in clips(tmp_path / "clips.tar")] == [("bad_caption", ""), ("", "it")]


def test_the_json_in_a_tar_stands_behind_the_text_and_before_the_others(tmp_path: Path) -> None:
    files = {
        "a.mp4": "x",
        "a.txt": "text",
        "a.json": '{"caption": "json"}',
        "b.mp4": "x",
        "b.json": '{"caption": "json"}',
        "b.caption": "caption",
        "c.mp4": "x",
        "c.json": '{"text": "text"}',
        "c.caption": "caption",
        "d.mp4": "x",
        "d.json": '{"caption": NaN, "score": NaN}',
        "e.mp4": "x",
        "e.JSON": '{"caption": "json"}',
    }
    with tarfile.open(tmp_path / "clips.tar", "w") as tar:
        for name, text in files.items():
            add(tar, name, text.encode())
    assert [clip.caption for clip in clips(tmp_path / "clips.tar")] == ["text", "json", "caption", "", "json"]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20))
def test_a_text_is_kept_as_it_is_but_for_what_is_around_it(text: str) -> None:
    found = clip_text(text)
    if found.text:
        before, between, after = text.partition(found.text)
        assert between and not (before + after).replace(BOM, "").strip()
        assert found.text == found.text.strip() == found.text.strip(BOM)
        assert not found.flaw


# ---- beside a video --------------------------------------------------------------------------------------------

BESIDE = ("clip.txt", "clip.TXT", "clip.caption", "clip.Caption", "clip.mp4.txt", "clip.mp4.TXT", "clip.mp4.caption")


@pytest.mark.parametrize("others", [(), ("clip.", "clip.a.mp4", "clip.mp4.part", "clipper.txt", "clip", "CLIP.txt")])
@pytest.mark.parametrize("holder", ["folder", "tar"])
@pytest.mark.parametrize("first", range(len(BESIDE)))
def test_the_first_of_the_names_beside_a_video_is_its_caption(
    tmp_path: Path, first: int, holder: str, others: tuple[str, ...]
) -> None:
    """Each name is found where it is alone, and goes before all that come after it."""
    for below in (BESIDE[first:], BESIDE[first : first + 1]):
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            files = {"clip.mp4": "x"} | {name: f"of {name}" for name in below} | dict.fromkeys(others, "wrong")
            source = Path(folder)
            if holder == "tar":
                source = source / "a.tar"
                with tarfile.open(source, "w") as tar:
                    for name, text in files.items():
                        add(tar, f"in/{name}", text.encode())
            else:
                for name, text in files.items():
                    (source / name).write_text(text)
            captions = {clip.name.rpartition("/")[2]: clip.caption for clip in clips(source)}
            assert captions["clip.mp4"] == f"of {below[0]}"


def test_one_text_may_serve_two_videos_and_a_name_of_its_own_only_one(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv", "b.mp4", "b.mkv"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a.txt").write_text("both")
    (tmp_path / "b.mkv.txt").write_text("one")
    assert [clip.caption for clip in clips(tmp_path)] == ["both", "both", "one", ""]


def test_a_caption_that_is_a_link_to_nowhere_ends_its_clip(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "a.txt").symlink_to(tmp_path / "nowhere")
    (clip,) = clips(tmp_path)
    assert clip.flaw == "bad_caption" and "a.txt" in clip.flaw_detail


# ---- the ends of such clips ------------------------------------------------------------------------------------


@pytest.mark.parametrize("judge", ["none", "film"])
def test_such_clips_fail_each_for_its_reason_and_the_others_are_kept(tmp_path: Path, judge: str) -> None:
    config = BuildConfig(judge=judge, test=0.0, unit_size=2, units_per_shard=2)  # type: ignore[arg-type]
    make_video(tmp_path / "a.mp4", 0.5)
    spans = [b"a.mp4,0,0.2,%s", b"a.mp4,0.2,0.4,%s", b"a.mp4,0.4,0.5,%s", b"a.mp4,0.4,0.45,%s", b"a.mp4,0.45,0.5,%s"]
    texts = [b"one cat runs", b"birds fly", b"\xff", b"z" * (MAX_TEXT_BYTES + 1), b"\xe2\x80\x8b"]
    rows = [span % text for span, text in zip(spans, texts, strict=True)]
    (tmp_path / "clips.csv").write_bytes(b"\n".join([b"video,start,end,caption", *rows]))
    summary = build_inline(tmp_path / "clips.csv", tmp_path / "out", config)
    rows_made = ledger(tmp_path / "out", config)
    first = ("kept", "") if judge == "none" else ("rejected", "first_shot")
    last = ("rejected", "no_caption")
    ends = [first, ("kept", ""), ("failed", "bad_caption"), ("failed", "caption_too_long"), last]
    assert [(row.outcome, row.reason) for row in rows_made] == ends
    assert "0xFF" in rows_made[2].detail and "another output folder" in rows_made[2].detail
    assert summary.needs_attention()
    assert_conserved(tmp_path / "out", config)
    build_inline(tmp_path / "clips.csv", tmp_path / "out", config, frozenset({"failed"}))
    assert [(row.outcome, row.reason) for row in ledger(tmp_path / "out", config)] == ends


def test_a_source_of_one_clip_with_a_bad_caption_gives_a_dataset_of_one_failure(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    write_csv(tmp_path / "clips.csv", [{"video": "a.mp4", "caption": "a\0b"}])
    (row,) = planned(tmp_path / "clips.csv", tmp_path / "plan", SMALL)
    assert row.source_outcome and (row.source_outcome.outcome, row.source_outcome.reason) == ("failed", "bad_caption")
