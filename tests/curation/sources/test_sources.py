"""Where clips come from: their order, ids, captions and bytes, whatever holds them."""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.curation.sources import MISSING, OPEN_END, WHOLE_FILE, Clip, Source, locate
from nextscene.curation.sources.clip import MEDIA_SUFFIXES
from nextscene.curation.sources.reader import SourceReader
from tests.support import write_csv

pytestmark = pytest.mark.slow


def clips(location: Path | str) -> list[Clip]:
    return list(Source.at(str(location)).clips())


def put(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def mistake(location: Path | str) -> str:
    with pytest.raises(UsageError) as error:
        _ = [clip.clip_id for clip in clips(location)]
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- folders ---------------------------------------------------------------------------------------------------

stems = st.text(st.sampled_from("abAB01 -_.,()#?%+&'é中😀\u0301"), min_size=1, max_size=5)
folders = stems.filter(lambda name: name.strip(".") != "")
names = st.builds(
    str.__add__, stems, st.sampled_from(["", ".mp4", ".MP4", ".mkv", ".png", ".txt", ".json", ".mp4.part"])
)
paths = st.builds(
    lambda above, name: "/".join([*above, name]),
    st.lists(folders, max_size=3),
    names.filter(lambda name: name.strip(".") != ""),
)


def naive_walk(root: str) -> list[str]:
    """Relative paths of media files, none of whose parts begins with a dot, sorted as UTF-8."""
    found = [os.path.relpath(os.path.join(at, name), root) for at, _, files in os.walk(root) for name in files]
    visible = [path for path in found if not any(part.startswith(".") for part in path.split("/"))]
    media = [path for path in visible if PurePosixPath(path).suffix.lower() in MEDIA_SUFFIXES]
    return sorted(media, key=str.encode)


@settings(max_examples=50, deadline=None)
@given(st.lists(paths, max_size=12))
def test_the_clips_of_a_folder_are_its_media_files_by_relative_path(tree: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path in tree:
            target = Path(folder, path)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(b"x")
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                continue  # one name drawn both as a folder and as a file
        found = clips(folder)
        assert [clip.name for clip in found] == naive_walk(folder)
        for clip in found:
            assert clip.name == clip.identity == clip.location
            assert (clip.start_ms, clip.end_ms, clip.length) == (0, OPEN_END, WHOLE_FILE)
            assert (clip.size, clip.mtime_ns) == (1, Path(folder, clip.name).stat().st_mtime_ns)


def test_the_caption_is_the_text_of_the_same_name_in_the_same_folder(tmp_path: Path) -> None:
    for name in ("a.mp4", "b/a.mp4", "c.tar.mp4", "d.png", "e.mp4"):
        put(tmp_path / name)
    put(tmp_path / "a.txt", "  ein Häschen\nerwacht \n".encode())
    put(tmp_path / "c.tar.txt", b"a second dot")
    put(tmp_path / "d.txt", b"a picture")
    put(tmp_path / "e.txt", b"")
    captions = {clip.name: clip.caption for clip in clips(tmp_path)}
    assert captions == {
        "a.mp4": "ein Häschen\nerwacht",
        "b/a.mp4": "",
        "c.tar.mp4": "a second dot",
        "d.png": "a picture",
        "e.mp4": "",
    }


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    for name in (".a.mp4", ".cache/a.mp4", "b/.c/a.mp4", "b/a.mp4", "._a.mp4"):
        put(tmp_path / name)
    assert [clip.name for clip in clips(tmp_path)] == ["b/a.mp4"]


def test_a_single_file_whose_name_is_not_utf_8_is_refused_and_shown(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4")
    put(Path(name))
    assert "\\udcff.mp4" in mistake(name) and "rename" in mistake(name)


def test_links_are_followed_a_broken_one_is_missing_and_a_circle_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "else" / "a.mp4", b"four")
    source = tmp_path / "source"
    source.mkdir()
    (source / "b.mp4").symlink_to(tmp_path / "else" / "a.mp4")
    (source / "c").symlink_to(tmp_path / "else")
    (source / "d.mp4").symlink_to(tmp_path / "nowhere")
    assert [(clip.name, clip.size) for clip in clips(source)] == [("b.mp4", 4), ("c/a.mp4", 4), ("d.mp4", MISSING)]
    (source / "e").symlink_to(source)
    assert "is a link that leads back" in mistake(source)


def test_a_single_video_is_a_source_and_another_kind_of_file_is_none(tmp_path: Path) -> None:
    put(tmp_path / "a.mp4", b"four")
    put(tmp_path / "a.doc")
    put(tmp_path / "a.TXT", b"beside it")
    put(tmp_path / "ab.txt", b"of another")
    assert [(clip.name, clip.size, clip.caption) for clip in clips(tmp_path / "a.mp4")] == [("a.mp4", 4, "beside it")]
    assert f"{tmp_path}/a.doc" in mistake(tmp_path / "a.doc")
    assert f"{tmp_path}/b.mp4" in mistake(tmp_path / "b.mp4")


# ---- ids -------------------------------------------------------------------------------------------------------


def test_an_id_never_changes() -> None:
    """Records, stored answers and other people's lists hold on to it."""
    clip = Clip(name="a.mp4", identity="film/a.mp4", location="/else/a.mp4", start_ms=1500, end_ms=OPEN_END)
    assert clip.clip_id == "b7e726c79320f4c0465a5295"


def test_ids_know_the_path_below_the_root_and_not_the_root(tmp_path: Path) -> None:
    for root in ("one", "two/deeper"):
        for name in ("a.mp4", "b/a.mp4"):
            put(tmp_path / root / name, root.encode())
    one, two = clips(tmp_path / "one"), clips(tmp_path / "two" / "deeper")
    assert [clip.clip_id for clip in one] == [clip.clip_id for clip in two]
    assert len({clip.clip_id for clip in one}) == 2
    assert [clip.clip_id for clip in clips(f"file://{tmp_path}/one")] == [clip.clip_id for clip in one]


rows = st.lists(
    st.fixed_dictionaries(
        {"video": st.sampled_from(["a.mp4", "b/c.mp4"]), "start": st.integers(0, 50), "end": st.integers(51, 99)}
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda row: (row["video"], row["start"], row["end"]),
)


@settings(max_examples=40, deadline=None)
@given(rows, st.randoms(use_true_random=False))
def test_ids_are_the_same_in_any_order_of_rows_and_differ_between_spans(
    table: list[dict[str, Any]], chance: random.Random
) -> None:
    shuffled = list(table)
    chance.shuffle(shuffled)
    with tempfile.TemporaryDirectory() as folder:
        before = clips(write_csv(Path(folder) / "before.csv", table))
        after = clips(write_csv(Path(folder) / "after.csv", shuffled))
    assert [(clip.name, clip.start_ms, clip.end_ms) for clip in before] == [
        (row["video"], 1000 * row["start"], 1000 * row["end"]) for row in table
    ]
    assert {clip.clip_id for clip in before} == {clip.clip_id for clip in after}
    assert len({clip.clip_id for clip in before}) == len(table)


def test_an_id_is_of_the_manifest_s_own_id_where_it_gives_one(tmp_path: Path) -> None:
    given_id = [{"video": "a.mp4", "id": "x"}, {"video": "b.mp4", "id": "y"}, {"video": "b.mp4", "id": ""}]
    moved = [{"video": "elsewhere/a.mp4", "id": "x"}, {"video": "b.mp4", "id": "z"}, {"video": "b.mp4", "id": None}]
    before = clips(write_csv(tmp_path / "before.csv", given_id))
    after = clips(write_csv(tmp_path / "after.csv", moved))
    assert [one.clip_id == other.clip_id for one, other in zip(before, after, strict=True)] == [True, False, True]
    assert before[2].clip_id == clips(write_csv(tmp_path / "plain.csv", [{"video": "b.mp4"}]))[0].clip_id


def test_spans_that_round_to_the_same_milliseconds_are_the_same_clip(tmp_path: Path) -> None:
    spans = [("1", "2"), ("1.0", "2.000"), ("1.0004", "1.9996"), ("1.001", "2"), ("1", "")]
    table = [{"video": "a.mp4", "start": start, "end": end} for start, end in spans]
    ids = [clip.clip_id for clip in clips(write_csv(tmp_path / "a.csv", table))]
    assert ids[0] == ids[1] == ids[2] and len(set(ids)) == 3


# ---- manifests -------------------------------------------------------------------------------------------------

TABLE: list[dict[str, Any]] = [
    {"video": "a.mp4", "caption": 'ein "Häschen"', "start": 0.0, "end": 1.25, "id": "one", "licence": "CC"},
    {"video": "b c.mp4", "caption": "two\nlines", "start": 1.5, "end": None, "id": None, "licence": None},
    {"video": "中/é.mp4", "caption": None, "start": None, "end": 2.0, "id": None, "licence": "CC"},
]


def write_jsonl(path: Path, table: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table), encoding="utf-8")
    return path


def write_parquet(path: Path, table: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(table), path)
    return path


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}


@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_a_manifest_of_any_kind_gives_the_same_clips(tmp_path: Path, kind: str) -> None:
    found = clips(WRITERS[kind](tmp_path / f"clips.{kind}", TABLE))
    assert [(c.name, c.identity, c.location, c.start_ms, c.end_ms, c.caption, c.provenance) for c in found] == [
        ("a.mp4", "one", "a.mp4", 0, 1250, 'ein "Häschen"', '{"licence": "CC"}'),
        ("b c.mp4", "b c.mp4", "b c.mp4", 1500, OPEN_END, "two\nlines", ""),
        ("中/é.mp4", "中/é.mp4", "中/é.mp4", 0, 2000, "", '{"licence": "CC"}'),
    ]


def test_a_csv_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfvideo\r\na.mp4\r\n")
    assert [clip.name for clip in clips(tmp_path / "a.csv")] == ["a.mp4"]


CSV = "video,caption,start,end\n"
BAD = {
    "no column.csv": (b"film,caption\na.mp4,x\n", ["no column `video`", "film, caption"]),
    "near column.csv": (b"Video,caption\na.mp4,x\n", ["no column `video`", "is 'Video' meant"]),
    "nearer column.csv": (b"videos,caption\na.mp4,x\n", ["is 'videos' meant"]),
    "nothing.csv": (b"", ["no column `video`"]),
    "no video.csv": (b"video,caption\na.mp4,x\n,x\n", ["line 3", "`video` is empty"]),
    "end before start.csv": (CSV.encode() + b"a.mp4,x,5,3\n", ["line 2", "end 3.0 s", "start 5.0 s"]),
    "empty span.csv": (CSV.encode() + b"a.mp4,x,5,5.0001\n", ["line 2", "is not after"]),
    "no number.csv": (CSV.encode() + b"a.mp4,x,1:30,\n", ["line 2", "start '1:30'", "number of seconds"]),
    "not a number.csv": (CSV.encode() + b"a.mp4,x,nan,\n", ["line 2", "start 'nan'"]),
    "endless.csv": (CSV.encode() + b"a.mp4,x,0,inf\n", ["line 2", "end 'inf'"]),
    "short row.csv": (CSV.encode() + b"a.mp4,x\n", ["line 2", "as many fields"]),
    "long row.csv": (CSV.encode() + b"a.mp4,x,1,2,3\n", ["line 2", "as many fields"]),
    "open quote.csv": (CSV.encode() + b'a.mp4,"x,1,2\n', ["CSV"]),
    "a latin-1 header.csv": ("video,bücher\na.mp4,x\n".encode("latin-1"), ["UTF-8"]),
    "utf-16.csv": (CSV.encode("utf-16"), ["UTF-8"]),
    "not json.jsonl": (b'{"video": "a.mp4"}\n{"video": \n', ["line 2", "not JSON"]),
    "a list.jsonl": (b'["a.mp4"]\n', ["line 1", "not a JSON object"]),
    "a deep list.jsonl": (b"[" * 100_000 + b"\n", ["line 1", "not JSON"]),
    "no column.jsonl": (b'{"film": "a.mp4"}\n', ["line 1", "no column `video`"]),
    "null.jsonl": (b'{"video": null}\n', ["line 1", "`video` is empty"]),
    "a list of starts.jsonl": (b'{"video": "a.mp4", "start": [1]}\n', ["line 1", "start is a list ([1])"]),
    "no.parquet": (b"video\na.mp4\n", ["Parquet"]),
    "nothing.parquet": (b"", ["Parquet"]),
    "marks alone.parquet": (b"PAR1" + bytes(100) + b"PAR1", ["Parquet"]),
    "a web page.parquet": (b"PAR1<html>" + b"x" * 100 + (50).to_bytes(4, "little") + b"PAR1", ["Parquet"]),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_bad_manifest_is_refused_with_file_place_and_reason(tmp_path: Path, name: str) -> None:
    data, words = BAD[name]
    said = mistake(put(tmp_path / name, data))
    assert all(word in said for word in [str(tmp_path / name), *words])
    assert len(said) < 500


UNUSABLE = {
    "latin-1.csv": (CSV.encode() + "Häschen.mp4,x,1,2\n".encode("latin-1"), "bad_name", ["line 2", "video", "0xE4"]),
    "a zero byte.csv": (CSV.encode() + b"a\0b.mp4,x,,\n", "bad_name", ["line 2", "video", "zero byte"]),
    "before the film.csv": (CSV.encode() + b"a.mp4,x,-1,\n", "bad_span", ["line 2", "start '-1'"]),
    "a late end.csv": (CSV.encode() + b"a.mp4,x,1,1e9\n", "bad_span", ["line 2", "end '1e9'"]),
    "a huge start.jsonl": (b'{"video": "a.mp4", "start": 1' + b"0" * 400 + b"}\n", "bad_span", ["line 1", "start"]),
    "an endless end.jsonl": (b'{"video": "a.mp4", "end": 1e400}\n', "bad_span", ["line 1", "end inf"]),
    "half a character.jsonl": (b'{"video": "\\ud800.mp4"}\n', "bad_name", ["line 1", "video", "U+D800"]),
    "half a character in an id.jsonl": (b'{"video": "a.mp4", "id": "\\ud800"}\n', "bad_name", ["line 1", "id"]),
    "a zero byte.jsonl": (b'{"video": "a\\u0000b.mp4"}\n', "bad_name", ["line 1", "video"]),
    "a zero byte in an id.jsonl": (b'{"video": "a.mp4", "id": "a\\u0000b"}\n', "bad_name", ["line 1", "id"]),
    "latin-1.jsonl": ('{"video": "Häschen.mp4"}\n'.encode("latin-1"), "bad_name", ["line 1", "video", "0xE4"]),
    "a long name.jsonl": (b'{"video": "' + b"a" * 20_000 + b'"}\n', "bad_name", ["line 1", "20,000 bytes"]),
    "half a character elsewhere.jsonl": (
        b'{"video": "a.mp4", "x": {"\\ud800": 1}}\n',
        "bad_provenance",
        ["line 1", "provenance", "U+D800"],
    ),
    "a deep list elsewhere.jsonl": (
        b'{"video": "a.mp4", "x": ' + b"[" * 900 + b"]" * 900 + b"}\n",
        "bad_provenance",
        ["line 1", "deeper than 100"],
    ),
    "much elsewhere.jsonl": (
        b'{"video": "a.mp4", "y": 1, "x": "' + b"a" * (1 << 20) + b'"}\n',
        "bad_provenance",
        ["1,048,", "'x'"],
    ),
}


@pytest.mark.parametrize("name", sorted(UNUSABLE))
def test_an_invalid_value_ends_the_clip_of_its_row_and_says_where_it_is(tmp_path: Path, name: str) -> None:
    data, reason, words = UNUSABLE[name]
    (clip,) = clips(put(tmp_path / name, data))
    assert clip.flaw == reason and all(word in clip.flaw_detail for word in words), clip.flaw_detail
    assert len(clip.flaw_detail) < 400 and "plan anew" in clip.flaw_detail
    assert clip.has_place == (reason == "bad_provenance") and clip.provenance == ""
    json.dumps([clip.name, clip.identity, clip.flaw_detail], ensure_ascii=False).encode()


@pytest.mark.parametrize("column", ["video", "id", "caption", "start"])
def test_a_deep_list_where_text_is_meant_is_named_like_any_other(tmp_path: Path, column: str) -> None:
    row = f'{{"video": "a.mp4", "{column}": {"[" * 400}{"]" * 400}}}' if column != "video" else '{"video": [[[1]]]}'
    assert f"{column} is a list ([[…]])" in mistake(put(tmp_path / "a.jsonl", row.encode()))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_parquet_manifest_with_a_flipped_byte_is_read_or_refused(at: int, mask: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_parquet(Path(folder) / "clips.parquet", TABLE * 20)
        data = bytearray(path.read_bytes())
        data[at % len(data)] ^= mask
        path.write_bytes(data)
        try:
            for clip in clips(path):
                _ = clip.clip_id
        except UsageError as error:
            assert str(path) in str(error) and "\n" not in str(error)


# ---- locations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["a.mp4", "what?.mp4", "a#b.mp4", "100%.mp4", "a b.mp4", "é中.mp4", "a:b.mp4", "[x]*.mp4"]
)
def test_a_video_is_found_by_any_relative_or_absolute_path_and_any_name(tmp_path: Path, name: str) -> None:
    video = put(tmp_path / "films" / "deep" / name, name.encode())
    videos = [f"deep/{name}", f"./deep/{name}", f"../films/deep/{name}", f"deep/../deep/{name}", str(video)]
    for manifest in (tmp_path / "films" / "clips.csv", tmp_path / "films" / "odd?" / ".." / "clips.csv"):
        (tmp_path / "films" / "odd?").mkdir(exist_ok=True)
        found = clips(write_csv(manifest, [{"video": path} for path in videos]))
        assert [clip.size for clip in found] == [video.stat().st_size] * len(videos)
        for clip in found:
            with SourceReader(Source.at(str(manifest)).root, tmp_path).open(clip) as file:
                assert isinstance(file, Path) and file.read_bytes() == name.encode()


def test_a_manifest_in_a_folder_of_any_name_is_found_with_its_videos(tmp_path: Path) -> None:
    put(tmp_path / "what? #1" / "a.mp4", b"four")
    manifest = write_csv(tmp_path / "what? #1" / "clips.csv", [{"video": "a.mp4"}, {"video": "../what? #1/a.mp4"}])
    assert [clip.size for clip in clips(manifest)] == [4, 4]
    assert Source.at(str(manifest)).display_uri == str(manifest)


def test_a_relative_source_is_the_absolute_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "a.mp4", b"four")
    manifest = write_csv(tmp_path / "clips.csv", [{"video": "a.mp4"}])
    monkeypatch.chdir(tmp_path)
    assert clips("clips.csv") == clips(manifest)
    assert clips(".") == clips(tmp_path)
    assert Source.at("clips.csv").display_uri == Source.at(str(manifest)).display_uri


@pytest.mark.parametrize(
    ("root", "location", "place"),
    [
        ("/data/set", "a.mp4", ("/data/set", "a.mp4")),
        ("/data/set", "b/a.mp4", ("/data/set", "b/a.mp4")),
        ("/data/set", "../a.mp4", ("/data", "a.mp4")),
        ("/data/set", "../../../a.mp4", ("/", "a.mp4")),
        ("/data/set", "/else/a.mp4", ("/else", "a.mp4")),
        ("/data/set", "s3://bucket/x/a.mp4?region=eu-west-1", ("s3://bucket/x?region=eu-west-1", "a.mp4")),
        ("s3://bucket/x/y?region=eu-west-1", "../a.mp4", ("s3://bucket/x?region=eu-west-1", "a.mp4")),
        ("s3://bucket/x?region=eu-west-1", "a?.mp4", ("s3://bucket/x?region=eu-west-1", "a?.mp4")),
    ],
)
def test_a_location_is_read_as_its_root_has_it(root: str, location: str, place: tuple[str, str]) -> None:
    storage, path = locate(Storage.at(root), location)
    assert (storage.uri, path) == place


@pytest.mark.parametrize("location", ["nonsense://x/a.mp4", "s3://key:secret@bucket/a.mp4"])
def test_a_location_that_cannot_work_is_refused(tmp_path: Path, location: str) -> None:
    said = mistake(write_csv(tmp_path / "a.csv", [{"video": location}]))
    assert "location" in said and "secret" not in said


# ---- tars ------------------------------------------------------------------------------------------------------


def write_tar(path: Path, members: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


members = st.lists(
    st.tuples(
        st.lists(st.text("abcé ", min_size=1, max_size=4), min_size=1, max_size=3).map("/".join),
        st.binary(max_size=1500),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda member: member[0],
)


@settings(max_examples=30, deadline=None)
@given(
    members,
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.sampled_from(["", "x" * 120]),
)
def test_a_clip_of_a_tar_is_the_bytes_at_its_offset(some: list[tuple[str, bytes]], form: int, long: str) -> None:
    if form == tarfile.USTAR_FORMAT:
        long = ""
    wanted = [(f"{name}{long}.mp4", data) for name, data in some]
    both = [pair for (name, data) in wanted for pair in ((name, data), (name[:-4] + ".txt", f"of {name}".encode()))]
    with tempfile.TemporaryDirectory() as folder:
        path = write_tar(Path(folder) / "some.tar", both, form)
        found = clips(path)
        with tarfile.open(path) as tar:
            oracle = [(info.offset_data, info.size) for info in tar if info.name.endswith(".mp4")]
        reader = SourceReader(Source.at(str(path)).root, Path(folder))
        assert [(clip.offset, clip.length) for clip in found] == oracle
        for clip, (name, data) in zip(found, wanted, strict=True):
            with reader.open(clip) as file:
                assert not isinstance(file, Path) and file.read() == data
            assert reader.fetch(clip).read_bytes() == data
            assert clip.caption == f"of {name}"
            assert (clip.location, clip.size) == ("some.tar", path.stat().st_size)


@pytest.mark.parametrize("size", [-5, 2**40, 2**62, 2**80])
def test_a_tar_with_a_member_of_a_size_that_it_has_no_room_for_is_refused(tmp_path: Path, size: int) -> None:
    path = write_tar(tmp_path / "a.tar", [("a.mp4", b"four")])
    odd = tarfile.TarInfo("b.mp4")
    odd.size = size
    path.write_bytes(path.read_bytes()[:1024] + odd.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert f"'b.mp4' claims {size} bytes" in mistake(path)


def test_a_file_whose_suffix_is_as_long_as_a_name_may_be_is_read_by_a_link(tmp_path: Path) -> None:
    name = "a." + "x" * 253
    put(tmp_path / name, b"four")
    (clip,) = clips(write_csv(tmp_path / "clips.csv", [{"video": name}]))
    with SourceReader(Source.at(str(tmp_path)).root, tmp_path).open(clip) as link:
        assert isinstance(link, Path) and link.read_bytes() == b"four"


def header(kind: bytes, data: bytes) -> bytes:
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def said_in_pax(name: str, value: str) -> bytes:
    record = f" {name}={value}\n"
    size = len(record) + len(str(len(record)))
    return f"{size + (len(str(size)) > len(str(len(record))))}{record}".encode()


ABSURD_TARS = {
    "a header of 8 GB": lambda: header(b"x", b"")[:124] + b"77777777777\0" + header(b"x", b"")[136:],
    "two headers of 3 MB for one member": lambda: header(b"x", said_in_pax("comment", "c" * 3_000_000)) * 2,
    "4,000 headers for one member": lambda: header(b"x", said_in_pax("comment", "c")) * 4000,
    "4,000 long names for one member": lambda: header(b"L", b"n" * 200) * 4000,
    "a size of 4,000 digits": lambda: header(b"x", said_in_pax("size", "9" * 4000)),
    "a map of 10^9 holes": lambda: (
        header(
            b"x",
            b"".join(
                said_in_pax(f"GNU.sparse.{name}", value)
                for name, value in (("major", "1"), ("minor", "0"), ("name", "a.mp4"), ("realsize", "4"))
            ),
        )
        + header(b"0", b"999999999\n" + b"1\n" * 200)
    ),
    "10 global headers of 1 MB": lambda: b"".join(
        header(b"g", said_in_pax(f"name{n}", "v" * 1_000_000)) + header(b"0", b"") for n in range(10)
    ),
}


@pytest.mark.parametrize("kind", ABSURD_TARS)
def test_a_tar_whose_headers_are_absurd_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    whole = write_tar(tmp_path / "a.tar", [("a.mp4", b"four")], tarfile.USTAR_FORMAT).read_bytes()
    (tmp_path / "a.tar").write_bytes(ABSURD_TARS[kind]() + whole)
    said = mistake(tmp_path / "a.tar")
    assert str(tmp_path / "a.tar") in said and len(said) < 300


def test_tars_in_a_folder_stand_where_their_names_do(tmp_path: Path) -> None:
    put(tmp_path / "a.mp4")
    put(tmp_path / "c.mp4")
    write_tar(tmp_path / "b.tar", [("z.mp4", b"1"), ("y.mp4", b"2")])
    assert [clip.name for clip in clips(tmp_path)] == ["a.mp4", "b.tar/z.mp4", "b.tar/y.mp4", "c.mp4"]
    alone = clips(tmp_path / "b.tar")
    assert [clip.clip_id for clip in alone] == [clip.clip_id for clip in clips(tmp_path)[1:3]]


def test_a_caption_comes_from_the_text_else_from_the_json(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        [
            ("a.mp4", b"1"),
            ("a.txt", b" text "),
            ("a.json", b'{"caption": "json"}'),
            ("b.json", b'{"caption": "json"}'),
            ("b.MP4", b"1"),
            ("c.mp4", b"1"),
            ("c.json", b'{"caption": null}'),
            ("d.mp4", b"1"),
            ("d.json", b'{"other": 1}'),
            ("e.mp4", b"1"),
            ("e.json", b"[]"),
            ("f.txt", b"no video"),
        ],
    )
    assert [(clip.name, clip.caption) for clip in clips(path)] == [
        ("a.tar/a.mp4", "text"),
        ("a.tar/b.mp4", "json"),
        ("a.tar/c.mp4", ""),
        ("a.tar/d.mp4", ""),
        ("a.tar/e.mp4", ""),
    ]


def blanked(path: Path, needle: bytes, at: int = 0, replacement: bytes = b"\xaa" * 20) -> bytes:
    data = path.read_bytes()
    place = data.index(needle) + at
    return data[:place] + replacement + data[place + len(replacement) :]


def bad_tar(kind: str, path: Path) -> Path:
    plain = [("a.mp4", b"1" * 600), ("a.txt", b"one"), ("b.mp4", b"2" * 600), ("b.txt", b"two")]
    if kind == "ungrouped":
        return write_tar(path, [plain[0], plain[2], plain[1], plain[3]])
    if kind == "a video twice":
        return write_tar(path, [("a.mp4", b"1"), ("./a.mp4", b"2")])
    if kind == "two videos in a sample":
        return write_tar(path, [("a.mp4", b"1"), ("a.mkv", b"2")])
    if kind == "no video":
        return write_tar(path, [("a.txt", b"1")])
    if kind == "a list of captions":
        return write_tar(path, [("a.mp4", b"1"), ("a.json", b'{"caption": ["one", "two"]}')])
    if kind == "a caption by another name":
        return write_tar(path, [("a.mp4", b"1"), ("a.json", b'{"text": "one"}')])
    if kind == "a caption apart":
        return write_tar(path, [("a.mp4", b"1"), ("b.mp4", b"2"), ("a.mp4.txt", b"one")])
    if kind == "a dotted video apart":
        return write_tar(path, [("a.b.mp4", b"1"), ("c.mp4", b"2"), ("a.b.txt", b"one")])
    if kind == "a name not in utf-8":
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT, encoding="latin-1") as tar:
            tar.addfile(tarfile.TarInfo("é.mp4"))
        return path
    write_tar(path, plain, tarfile.USTAR_FORMAT)
    data = path.read_bytes()
    changed = {
        "empty": b"",
        "two joined": data + data.replace(b"a.", b"c.").replace(b"b.", b"d."),
        "not a tar": b"x" * 3000,
        "compressed": b"\x1f\x8b" + data,
        "cut inside data": data[:1000],
        "cut inside a header": data[: data.index(b"b.mp4") + 100],
        "a damaged header": blanked(path, b"b.mp4", 150),
    }
    path.write_bytes(changed[kind])
    return path


BAD_TARS = (
    "ungrouped",
    "a video twice",
    "two videos in a sample",
    "no video",
    "a list of captions",
    "a caption by another name",
    "a caption apart",
    "a dotted video apart",
    "a name not in utf-8",
    "empty",
    "not a tar",
    "compressed",
    "cut inside data",
    "cut inside a header",
    "a damaged header",
    "two joined",
)


@pytest.mark.parametrize("kind", BAD_TARS)
def test_a_bad_tar_is_refused_by_name_and_no_clip_is_lost_in_silence(tmp_path: Path, kind: str) -> None:
    path = bad_tar(kind, tmp_path / "a.tar")
    assert str(path) in mistake(path)
