"""Folders in public forms, small, each with the clips that a reader of the form's description would write down.

Each function makes one below a folder, and returns its EXPECTED clips. A form's name is that of a preset, or the first
words of a map in docs/sources.md.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nextscene.curation.sources import OPEN_END
from tests.curation.sources.presets.public_sets import KEPT, Videos, zipped


@dataclass(frozen=True)
class Expected:
    """A clip as it must be built. `start_ms` and `end_ms` are its span, the whole file by default."""

    source: str
    caption: str = ""
    outcome: str = KEPT
    reason: str = ""
    start_ms: int = 0
    end_ms: int = OPEN_END
    provenance: str = ""


Form = Callable[[Path, Videos], Sequence[Expected]]
ABSENT, NO_FILE, BAD_ROW = "absent", "no_file", "bad_row"


def put(root: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def table(file: Path, columns: str, *rows: Sequence[object]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([columns.split(","), *rows])


def lines(file: Path, *rows: Mapping[str, object]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def tar(file: Path, members: Mapping[str, bytes]) -> None:
    with tarfile.open(file, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def hf(root: Path, videos: Videos) -> Sequence[Expected]:
    put(root, {"a b.mp4": videos.good, "train/a.mp4": videos.other, "test/a.mp4": videos.good})
    table(root / "metadata.csv", "file_name,text", ("a b.mp4", "in the root"), ("gone.mp4", "nowhere"))
    lines(root / "train" / "metadata.jsonl", {"file_name": "a.mp4", "caption": "a train"})
    lines(root / "test" / "metadata.jsonl", {"file_name": "a.mp4", "prompt": "a test"}, {"file_name": 7})
    return [
        Expected("a b.mp4", "in the root"),
        Expected("gone.mp4", "nowhere", ABSENT, NO_FILE),
        Expected("test/7", "", ABSENT, NO_FILE),
        Expected("test/a.mp4", "a test"),
        Expected("train/a.mp4", "a train"),
    ]


def finetrainers(root: Path, videos: Videos) -> Sequence[Expected]:
    put(root, {"videos/1.mp4": videos.good, "videos/2.mp4": videos.other})
    (root / "videos.txt").write_bytes(b"videos/1.mp4\r\n\nvideos/2.mp4\nvideos/3.mp4")
    (root / "prompts.txt").write_bytes(b"one, of many\n\ntwo\n\xff\n\n")
    return [
        Expected("videos/1.mp4", "one, of many"),
        Expected("videos/2.mp4", "two"),
        Expected("videos/3.mp4", "", "failed", "bad_caption"),
    ]


def panda70m(root: Path, videos: Videos) -> Sequence[Expected]:
    put(root, {"videos/-aB_1.mp4": videos.good})
    spans = "[['0:00:00.000', '0:00:00.250'], ['0:00:00.250', '0:00:00.500'], ['0:00:00.4', 'later']]"
    row = (
        "-aB_1",
        "https://x/watch?v=-aB_1",
        spans,
        r"['a \d cat', \"it's a dog\", 'x']".replace("\\", ""),
        "[0.4, 0.5, 1]",
    )
    uneven = ("-aB_1", "", "[['0:00:00', '0:00:01']]", "[]", "[1]")
    gone = ("zz", "", "[['0:00:01.000', '0:00:02.500']]", "['no file']", "[0.1]")
    table(root / "panda70m_testing.csv", "videoID,url,timestamp,caption,matching_score", row, uneven, gone)
    return [
        Expected("-aB_1", "a d cat", start_ms=0, end_ms=250, provenance='{"matching_score": 0.4}'),
        Expected("-aB_1", "it's a dog", start_ms=250, end_ms=500, provenance='{"matching_score": 0.5}'),
        Expected("panda70m_testing.csv, line 2, element 3", "", "failed", BAD_ROW),
        Expected("panda70m_testing.csv, line 3", "", "failed", BAD_ROW),
        Expected(
            "zz", "no file", ABSENT, "not_listed", start_ms=1000, end_ms=2500, provenance='{"matching_score": 0.1}'
        ),
    ]


def video2dataset(root: Path, videos: Videos) -> Sequence[Expected]:
    told = {"url": "https://x/y", "clips": [[0, 1]], "text": "in the json"}
    put(root, {"00000_stats.json": b"{}"})
    tar(
        root / "00000.tar",
        {
            "0.json": json.dumps(told).encode(),
            "0.jpg": b"a thumbnail",
            "0.mp4": videos.good,
            "1.mp4": videos.other,
            "1.json": json.dumps({**told, "prompt": "not this"}).encode(),
            "1.txt": b"in the txt",
            "2.mp4": videos.good,
            "2.json": b'{"caption": 7}',
        },
    )
    return [
        Expected("00000.tar/0.mp4", "in the json"),
        Expected("00000.tar/1.mp4", "in the txt"),
        Expected("00000.tar/2.mp4", "", "failed", "bad_caption"),
    ]


def tars_of_finetrainers(root: Path, videos: Videos) -> Sequence[Expected]:
    root.mkdir()
    tar(root / "0.tar", {"k.caption": b"a caption", "k.video": videos.good, "k.aesthetic_score": b"5"})
    return [Expected("0.tar/k.video", "a caption")]


def open_sora(root: Path, videos: Videos) -> Sequence[Expected]:
    put(root, {"v/1.mp4": videos.good, "2.mp4": videos.other})
    table(
        root / "meta.csv",
        "path,text,num_frames",
        ("v/1.mp4", "one", 12),
        (str(root / "2.mp4"), "two", 12),
        ("", "x", 1),
    )
    return [
        Expected("v/1.mp4", "one"),
        Expected(str(root / "2.mp4"), "two"),
        Expected("meta.csv, line 4", "", "failed", BAD_ROW),
    ]


def diffsynth(root: Path, videos: Videos) -> Sequence[Expected]:
    put(root, {"1.mp4": videos.good})
    table(root / "metadata.csv", "video,prompt", ("1.mp4", "one"))
    return [Expected("1.mp4", "one")]


def musubi(root: Path, videos: Videos) -> Sequence[Expected]:
    put(root, {"1.mp4": videos.good})
    lines(root / "set.jsonl", {"video_path": "1.mp4", "caption": "one"}, {"video_path": "../set/1.mp4", "caption": 7})
    return [Expected("1.mp4", "one"), Expected("set.jsonl, line 2", "", "failed", BAD_ROW)]


def koala(root: Path, videos: Videos) -> Sequence[Expected]:
    put(root, {"raw/pv97f.mp4": videos.good})
    columns = "videoID,url,timestamp,caption,aesthetic_score,motion_score"
    spans = ("['0:00:00.250', '0:00:00.500']", "['0:00:09', '0:00:08']")
    rows = [(f"pv97f_{n}", "https://x/watch?v=pv97f", span, f"clip {n}", 4.5, 2) for n, span in enumerate(spans)]
    table(root / "Koala_36M_1.csv", columns, *rows)
    kept = '{"aesthetic_score": "4.5", "motion_score": "2"}'
    return [
        Expected("pv97f", "clip 0", start_ms=250, end_ms=500, provenance=kept),
        Expected("Koala_36M_1.csv, line 3", "", "failed", BAD_ROW),
    ]


def open_sora_plan(root: Path, videos: Videos) -> Sequence[Expected]:
    put(root, {"p/1.mp4": videos.good, "p/2.mp4": videos.other})
    rows = [{"path": "p/1.mp4", "cap": ["", "one", "more"], "fps": 24}, {"path": "p/2.mp4", "cap": "two"}, ["p/3.mp4"]]
    (root / "video.json").write_text(json.dumps(rows))
    return [
        Expected("p/1.mp4", "one"),
        Expected("p/2.mp4", "two"),
        Expected("video.json, row 3", "", "failed", BAD_ROW),
    ]


def nemo(root: Path, videos: Videos) -> Sequence[Expected]:
    windows = [
        {"start_frame": 0, "end_frame": 6, "qwen_caption": "begins"},
        {"start_frame": 6, "end_frame": 12, "qwen_caption": "no", "qwen_lm_enhanced_caption": "ends"},
    ]
    entry = {"span_uuid": "u1", "framerate": 24.0, "windows": windows, "valid": True}
    still = {**entry, "framerate": 0}
    put(
        root,
        {
            "clips/u1.mp4": videos.good,
            "metas/v0/u1.json": json.dumps(entry).encode(),
            "metas/v0/u2.json": json.dumps({**entry, "span_uuid": "u2", "windows": windows[:1]}).encode(),
            "metas/v0/u3.json": b'{"span_uuid": "u3", ',
            "metas/v0/u4.json": json.dumps({**still, "windows": windows[:1]}).encode(),
        },
    )
    return [
        Expected("clips/u1.mp4", "begins", start_ms=0, end_ms=250),
        Expected("clips/u1.mp4", "ends", start_ms=250, end_ms=500),
        Expected("clips/u2.mp4", "begins", ABSENT, "not_listed", start_ms=0, end_ms=250),
        Expected("metas/v0/u3.json, row 1", "", "failed", BAD_ROW),
        Expected("metas/v0/u4.json, row 1, element 1", "", "failed", BAD_ROW),
    ]


def miradata(root: Path, videos: Videos) -> Sequence[Expected]:
    put(root, {"raw/ab.mp4": videos.good})
    columns = "video_id,start_frame,end_frame,fps,short_caption,dense_caption"
    rows = [("ab", 6, 12, 24.0, "short", "dense"), ("ab", 0, 6, 24.0, "short", ""), ("ab", 0, 6, "nan", "", "")]
    table(root / "miradata_v1.csv", columns, *rows)
    return [
        Expected("ab", "dense", start_ms=250, end_ms=500),
        Expected("ab", "short", start_ms=0, end_ms=250),
        Expected("miradata_v1.csv, line 4", "", "failed", BAD_ROW),
    ]


def sharegpt4video(root: Path, videos: Videos) -> Sequence[Expected]:
    (root / "zip_folder" / "panda").mkdir(parents=True)
    zipped(root / "zip_folder" / "panda" / "panda_videos_1.zip", {"1.mp4": videos.good})
    captions = [{"idx": "1", "content": "at first"}, {"idx": "-1", "content": "all of it"}]
    row = {"video_id": "1", "video_path": "panda/1.mp4", "captions": captions, "zip_folder": "panda_videos_1.zip"}
    lines(root / "sharegpt4video_40k.jsonl", row)
    return [Expected("1.mp4", "all of it")]


def webvid(root: Path, videos: Videos) -> Sequence[Expected]:
    put(root, {"videos/000/21.mp4": videos.good})
    columns = "videoid,contentUrl,duration,page_dir,name"
    table(root / "results_2M_train.csv", columns, ("21", "https://x/y.mp4", "PT00H00M09S", "000", "one"))
    return [Expected("videos/000/21.mp4", "one")]


def json_beside(root: Path, videos: Videos) -> Sequence[Expected]:
    put(root, {"d/1.mp4": videos.good, "d/1.json": b'{"caption": "one"}', "2.mp4": videos.other, "2.json": b"[1]"})
    return [Expected("2.json, row 1", "", "failed", BAD_ROW), Expected("d/1.mp4", "one")]


def lerobot(root: Path, videos: Videos) -> Sequence[Expected]:
    camera = "observation.images"
    put(root, {f"videos/chunk-000/{camera}.{name}/episode_000007.mp4": videos.good for name in ("top", "wrist")})
    lines(root / "meta" / "episodes.jsonl", {"episode_index": 7, "tasks": ["pick it up"], "length": 12})
    return [Expected("episode_000007.mp4", "pick it up")]


def packed_lines(root: Path, videos: Videos) -> Sequence[Expected]:
    put(root, {"1.mp4": videos.good, "set.jsonl.gz": gzip.compress(b'{"video_path": "1.mp4", "caption": "one"}')})
    return [Expected("1.mp4", "one")]


PRESET_FORMS: Mapping[str, Form] = {
    "hf": hf,
    "finetrainers": finetrainers,
    "panda70m": panda70m,
    "video2dataset": video2dataset,
}
MAP_FORMS: Mapping[str, Form] = {
    "Open-Sora": open_sora,
    "DiffSynth-Studio": diffsynth,
    "musubi-tuner": musubi,
    "Koala-36M": koala,
    "Open-Sora-Plan": open_sora_plan,
    "NeMo Curator": nemo,
    "MiraData": miradata,
    "ShareGPT4Video": sharegpt4video,
    "WebVid": webvid,
    "a JSON file beside each video": json_beside,
    "LeRobot": lerobot,
}


def row_of(clip: Expected) -> Mapping[str, Any]:
    return {name: getattr(clip, name) for name in clip.__dataclass_fields__}
