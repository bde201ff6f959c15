"""Small copies of public data sets in the layouts that they are downloaded in, with their known quirks and faults.

Each function makes one below a folder, and returns its EXPECTED table: the clip's name → its outcome, reason and, if it
is kept, its caption. The table is written from the data sets' descriptions, not from what a build gives.
"""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from tests.support import make_video

Expected = Mapping[str, tuple[str, str, str]]
KEPT = "kept"
_SECONDS = 0.5


class Videos:
    """Videos for a set, made once: `good` and `small` (below the rules), and one cut off in the middle."""

    def __init__(self, folder: Path) -> None:
        self.good = make_video(folder / "good.mp4", _SECONDS, "96x64", "24").read_bytes()
        self.other = make_video(folder / "other.mp4", _SECONDS, "128x96", "24").read_bytes()
        self.small = make_video(folder / "small.mp4", _SECONDS, "32x32").read_bytes()
        self.torn = self.good[: len(self.good) // 2]


def split(file: Path, size: int, names: Sequence[str]) -> None:
    """Cut a file into pieces as `split` does, and delete it."""
    data = file.read_bytes()
    for number, name in enumerate(names):
        end = None if number == len(names) - 1 else (number + 1) * size
        file.with_name(name).write_bytes(data[number * size : end])
    file.unlink()


def zipped(file: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file


def openvid(root: Path, videos: Videos) -> Expected:
    """Zips with a folder inside, one in pieces, one fetched in part, one with a damaged member; HD is a subset."""
    table = root / "data" / "train"
    table.mkdir(parents=True)
    zipped(
        root / "OpenVid_part0.zip",
        {"part0/---_iRTH_13_0to24.mp4": videos.good, "part0/celebv_1_0to9.mp4": videos.small, "part0/no_row.mp4": b"x"},
    )
    zipped(root / "OpenVid_part1.zip", {"pexels_2_0to9.mp4": videos.other}, zipfile.ZIP_DEFLATED)
    whole = zipped(root / "OpenVid_part73.zip", {"---_iRTH_14_24to48.mp4": videos.other, "pix_1_0to9.mp4": videos.torn})
    split(whole, len(videos.other) // 2, ["OpenVid_part73_partaa", "OpenVid_part73_partab"])
    damaged = zipped(root / "OpenVid_part2.zip", {"flipped_1_0to9.mp4": videos.good})
    data = bytearray(damaged.read_bytes())
    data[60 + len(videos.good) // 2] ^= 0xFF
    damaged.write_bytes(data)
    in_part = zipped(root / "OpenVid_part3.zip", {"in_part_1_0to9.mp4": videos.good})
    in_part.write_bytes(in_part.read_bytes()[:500])
    names = "video caption aesthetic_score motion_score temporal_consistency_score camera_motion frame fps seconds"
    header = [name.replace("_", " ") for name in names.split()]
    listed = "---_iRTH_13_0to24 celebv_1_0to9 pexels_2_0to9 ---_iRTH_14_24to48 pix_1_0to9 flipped_1_0to9 in_part_1_0to9"
    rows = [[f"{name}.mp4", f"about {name}", 5.5, 1, 0.9, "static", 12, 24, 0.5] for name in [*listed.split(), "never"]]
    rows.append(rows[0])
    for file, some in (("OpenVid-1M.csv", rows), ("OpenVidHD.csv", rows[:1])):
        with (table / file).open("w", newline="", encoding="utf-8") as opened:
            csv.writer(opened).writerows([header, *some])
    kept = ["---_iRTH_13_0to24", "pexels_2_0to9", "---_iRTH_14_24to48"]
    return {
        **{f"{name}.mp4": (KEPT, "", f"about {name}") for name in kept},
        "celebv_1_0to9.mp4": ("rejected", "too_small", ""),
        "pix_1_0to9.mp4": ("rejected", "unreadable", ""),
        "flipped_1_0to9.mp4": ("failed", "damaged_member", ""),
        "in_part_1_0to9.mp4": ("absent", "not_listed", ""),
        "never.mp4": ("absent", "not_listed", ""),
        "OpenVid_part3.zip": ("failed", "archive_incomplete", ""),
        "---_iRTH_13_0to24.mp4 again": ("rejected", "duplicate_row", ""),
    }


def opens2v(root: Path, videos: Videos) -> Expected:
    """One tar in pieces, a JSON object with several clips of a video, spans in frames, captions as a list."""
    (root / "Jsons" / "mask_and_bbox").mkdir(parents=True)
    (root / "Jsons" / "mask_and_bbox" / "total_part1.json.zip").write_bytes(b"never read")
    part = root / "Videos" / "total_part1"
    (part / "in").mkdir(parents=True)
    for name in ("a_segment1.mp4", "b_part2.mp4"):
        (part / "in" / name).write_bytes(videos.good)
    with tarfile.open(part / "total_part1.tar", "w") as tar:
        for name in ("a_segment1.mp4", "b_part2.mp4"):
            tar.add(part / "in" / name, f"./part_001/x/{name}")
    shutil.rmtree(part / "in")
    size = (part / "total_part1.tar").stat().st_size // 2
    split(part / "total_part1.tar", size, ["total_part1.tar.split.000", "total_part1.tar.split.001"])

    def entry(name: str, frames: Sequence[int], **more: object) -> dict[str, object]:
        told = {"path": f"part_001/x/{name}", "cut": [0, 12], "face_cut": frames, "crop": [0, 96, 0, 64], "fps": 24.0}
        return {"metadata": {**told, "cap": ["the whole", "clip"], "tech": 1.5, **more}}

    entries = {
        "a_segment1_step1-0-95_step2-0-6": entry("a_segment1.mp4", [0, 6], face_cap_qwen="a face"),
        "a_segment1_step1-0-95_step2-6-12": entry("a_segment1.mp4", [6, 12]),
        "b_part2_step1-0-12": entry("b_part2.mp4", [0, 12], face_cap_qwen=""),
        "c_segment0_step1-0-12": entry("c_segment0.mp4", [0, 12]),
        "d_segment0_step1-0-12": entry("b_part2.mp4", [9, 3]),
    }
    (root / "Jsons" / "total_part1.json").write_text(json.dumps(entries))
    return {
        "a_segment1.mp4": (KEPT, "", "a face"),
        "a_segment1.mp4 again": (KEPT, "", "the whole"),
        "b_part2.mp4": (KEPT, "", "the whole"),
        "c_segment0.mp4": ("absent", "not_listed", ""),
        "Jsons/total_part1.json, row 5": ("failed", "bad_row", ""),
    }


def vidgen(root: Path, videos: Videos) -> Expected:
    """Zips with a folder each, and one JSON list; the table says nothing of the zips."""
    root.mkdir(parents=True)
    zipped(root / "VidGen_video_0.zip", {"VidGen_video_0/Eep9-Scene-0030.mp4": videos.good})
    zipped(root / "VidGen_video_1.zip", {"VidGen_video_1/Eep9-Scene-0031.mp4": videos.other, "x-Scene-1.mp4": b""})
    rows = [
        {"vid": vid, "caption": f"about {vid}"} for vid in ("Eep9-Scene-0030", "Eep9-Scene-0031", "x-Scene-1", "no")
    ]
    (root / "VidGen_1M_video_caption.json").write_text(json.dumps(rows))
    return {
        "Eep9-Scene-0030.mp4": (KEPT, "", "about Eep9-Scene-0030"),
        "Eep9-Scene-0031.mp4": (KEPT, "", "about Eep9-Scene-0031"),
        "x-Scene-1.mp4": ("rejected", "unreadable", ""),
        "no.mp4": ("absent", "not_listed", ""),
    }


def openhumanvid(root: Path, videos: Videos) -> Expected:
    """Files without a suffix in folders that the table calls otherwise, and a header with nameless columns."""
    keys = [f"{number:02x}" * 16 for number in range(4)]
    for key, data in zip(keys, (videos.good, videos.other, videos.good), strict=False):
        file = root / "part_001" / key[:2] / key[2:4] / key
        file.parent.mkdir(parents=True)
        file.write_bytes(data)
    file.rename(file.with_suffix(".mp4"))
    columns = "clip_id,path,caption,luminance_min,luminance_max,blur_min,blur_max,aesthetic,technical_score"
    lines = [f"{columns},global_motion,,,"]
    for key in [keys[0], *keys[2:]]:
        lines.append(f"{key},clips/part_001/{key[:2]}/{key[2:4]}/{key},about {key},1,2,3,4,5.5,6,7,,,")
    (root / "OpenHumanVid_part_001.csv").write_text("\n".join(lines) + "\n")
    return {
        keys[0]: (KEPT, "", f"about {keys[0]}"),
        keys[2]: (KEPT, "", f"about {keys[2]}"),
        keys[3]: ("absent", "not_listed", ""),
    }


def blip3o(root: Path, videos: Videos) -> Expected:
    """Tars of images with their texts: a broken image, a text that is not UTF-8, and a torn tar."""
    files = root / "files"
    files.mkdir(parents=True)
    Image.linear_gradient("L").resize((96, 96)).convert("RGB").save(files / "good.jpg", quality=90)
    good = (files / "good.jpg").read_bytes()
    for key, data, text in (
        ("sa_1", good, b"one"),
        ("sa_2", b"no image", b"two"),
        ("sa_3", good, b"\xff\xfe\xfd bytes"),
        ("sa_4", good, None),
    ):
        (files / f"{key}.jpg").write_bytes(data)
        if text is not None:
            (files / f"{key}.txt").write_bytes(text)
    for tar_name, keys in (("sa_000000.tar", ["sa_1", "sa_2"]), ("sa_000001.tar", ["sa_3", "sa_4", "sa_1"])):
        with tarfile.open(root / tar_name, "w") as tar:
            for key in keys:
                for file in sorted(files.glob(f"{key}.*")):
                    tar.add(file, file.name)
    torn = root / "sa_000001.tar"
    with tarfile.open(torn) as tar:
        end = tar.getmember("sa_1.jpg").offset_data + 100
    torn.write_bytes(torn.read_bytes()[:end])
    shutil.rmtree(files)
    return {
        "sa_000000.tar/sa_1.jpg": (KEPT, "", "one"),
        "sa_000000.tar/sa_2.jpg": ("rejected", "unreadable", ""),
        "sa_000001.tar/sa_3.jpg": ("failed", "bad_caption", ""),
        "sa_000001.tar": ("failed", "archive_damaged", ""),
    }


SETS: Mapping[str, Callable[[Path, Videos], Expected]] = {
    "openvid": openvid,
    "opens2v": opens2v,
    "vidgen": vidgen,
    "openhumanvid": openhumanvid,
    "blip3o": blip3o,
}
