"""A folder of generated videos, and `videos.jsonl`, which has a line for each that says how it was made.

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
_WORDS = {"scene": "the scene", "seed": "its seed (`seed`)", "model": "the model"}
"""Fields of a record that no setting has the name of, in words."""


class VideoFolder:
    """A folder of videos with a record of each.

    A video is complete if its record is there and equal to the wanted one: the record is written after the video.
    Before the video is written, a line with only the file's name claims it, to tell the leftovers of a killed run from
    files of others. Records are in `folder`. Videos are there too, or in the subfolder `inside`, which contains nothing
    else.
    """

    def __init__(self, folder: Storage, inside: str = "") -> None:
        """Read the records of `folder`, which must be claimed. Raise UsageError if its file has other contents."""
        self._storage, self._inside, self.videos = folder, inside, Path(folder.full_path(inside))
        try:
            lines = self._storage.read(RECORDS).decode().split("\n")[:-1]
            self._records: dict[str, Record] = {record["file"]: record for record in map(json.loads, lines)}
        except FileNotFoundError:
            self._records = {}
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{folder.display_uri}/{RECORDS} is of something else; choose another `out`") from error

    def holds(self, record: Record) -> bool:
        return self._records.get(record["file"]) == record and (self.videos / record["file"]).is_file()

    def check(self, records: Sequence[Record]) -> None:
        """Raise UsageError if a file exists for a record and is neither that video nor claimed.

        Its record differs, or is missing.
        """
        for record in records:
            video = self.videos / record["file"]
            if not self.holds(record) and video.exists() and self._records.get(record["file"]) != _claim(record):
                raise UsageError(
                    f"`out`: {video} is there already, {self._unlike(record)} choose another `out`, or delete it"
                )

    def claim(self, records: Sequence[Record]) -> None:
        """Claim the files of these records before their videos are made, and create the folder. Raise as `check`."""
        self.check(records)
        self._storage.check_anchor()
        self.videos.mkdir(parents=True, exist_ok=True)
        self._records |= {record["file"]: _claim(record) for record in records}
        self._publish()

    def _unlike(self, record: Record) -> str:
        """Return a phrase that says how an existing video differs from the wanted one, and part of the remedy."""
        made = self._records.get(record["file"])
        if made is None:
            return f"and {RECORDS} does not say how it was made;"
        others = [name for name in record if name in made and made[name] != record[name]]
        if not others:
            return "made by another version of this program;"
        told = [f"{_WORDS.get(name, f'`{name}`')} was {made[name]!r}, is {record[name]!r}" for name in others]
        return f"made otherwise: {'; '.join(told)}; give what it was made with,"

    def put(self, records: Sequence[Record], videos: npt.NDArray[np.uint8]) -> None:
        """Write the videos, uint8 [B, F, H, W, RGB], and then their records. Raise as `encode_video`."""
        for record, video in zip(records, videos, strict=True):
            encode_video(video, self._storage, str(PurePosixPath(self._inside, record["file"])), record["fps"])
            self._records[record["file"]] = record
        self._publish()

    def _publish(self) -> None:
        lines = [json.dumps(self._records[file], ensure_ascii=False) + "\n" for file in sorted(self._records)]
        self._storage.write_if_changed(RECORDS, "".join(lines).encode())


def _claim(record: Record) -> Record:
    return {"file": record["file"]}
