"""A folder of generated videos, and `videos.jsonl`, which has a line on how each of them was made.

Tested in tests/pipelines/test_generate.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.curation.media.video_writer import encode_video

RECORDS = "videos.jsonl"
VIDEOS = "videos"
"""The folder of a model's videos in an evaluation."""
Record = Mapping[str, Any]
_FLAGS = {"scene": "the scene", "seed": "its seed (--seed)", "model": "the model"}
"""Other fields of a record are called as the flags that set them."""


class VideoFolder:
    """A video is there if its record is, and the same: the record is written after it.

    Before, a line with the file's name alone claims it, so that what a killed run left there is known from what is
    somebody else's. Records lie in `folder`, videos there too or in a folder `inside` it, where there is nothing else.
    """

    def __init__(self, folder: Storage, inside: str = "") -> None:
        """`folder` is claimed. Raises UsageError for records of something else."""
        self._storage, self._inside, self.videos = folder, inside, Path(folder.full_path(inside))
        try:
            lines = self._storage.read(RECORDS).decode().split("\n")[:-1]
            self._records: dict[str, Record] = {record["file"]: record for record in map(json.loads, lines)}
        except FileNotFoundError:
            self._records = {}
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{folder.display_uri}/{RECORDS} is of something else; choose another --out") from error

    def holds(self, record: Record) -> bool:
        return self._records.get(record["file"]) == record and (self.videos / record["file"]).is_file()

    def check(self, records: Sequence[Record]) -> None:
        """Raises UsageError where a video is in the way, of which there is another record or none."""
        for record in records:
            video = self.videos / record["file"]
            if not self.holds(record) and video.exists() and self._records.get(record["file"]) != _claim(record):
                raise UsageError(
                    f"--out: {video} is there already, {self._unlike(record)} choose another --out, or delete it"
                )

    def claim(self, records: Sequence[Record]) -> None:
        """Before their videos are made, and the folder of these where there is none. Raises as `check`."""
        self.check(records)
        self._storage.check_anchor()
        self.videos.mkdir(parents=True, exist_ok=True)
        self._records |= {record["file"]: _claim(record) for record in records}
        self._publish()

    def _unlike(self, record: Record) -> str:
        """What of a video that stands there is otherwise than it is wanted, and what to do."""
        made = self._records.get(record["file"])
        if made is None:
            return f"and {RECORDS} does not say how it was made;"
        others = [name for name in record if name in made and made[name] != record[name]]
        if not others:
            return "made by another version of this program;"
        told = [f"{_FLAGS.get(name, f'--{name}')} was {made[name]!r}, is {record[name]!r}" for name in others]
        return f"made otherwise: {'; '.join(told)}; give what it was made with,"

    def put(self, records: Sequence[Record], videos: npt.NDArray[np.uint8]) -> None:
        """Writes videos [B, F, H, W, RGB]. Raises as `encode_video`."""
        for record, video in zip(records, videos, strict=True):
            encode_video(video, self._storage, str(PurePosixPath(self._inside, record["file"])), record["fps"])
            self._records[record["file"]] = record
        self._publish()

    def _publish(self) -> None:
        lines = [json.dumps(self._records[file], ensure_ascii=False) + "\n" for file in sorted(self._records)]
        self._storage.write_if_changed(RECORDS, "".join(lines).encode())


def _claim(record: Record) -> Record:
    return {"file": record["file"]}
