"""A folder of generated videos, and `videos.jsonl`, which has a line on how each of them was made."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.errors import UsageMistake
from curation.write import write_clip
from shards.storage import Storage

RECORDS = "videos.jsonl"
Record = Mapping[str, Any]


class VideoFolder:
    """A video is there if its record is, and the same: the record is written after it, and taken back before it.

    Records lie in `folder`, videos there too or in a folder `inside` it, where there is nothing else.
    """

    def __init__(self, folder: Path, inside: str = "") -> None:
        """Raises UsageMistake for a folder with other records, and for one that cannot be written to."""
        self.videos, self._storage = folder / inside, Storage.at(folder)
        check_writable(self.videos)
        try:
            lines = self._storage.read(RECORDS).decode().split("\n")[:-1]
            self._records: dict[str, Record] = {record["file"]: record for record in map(json.loads, lines)}
        except FileNotFoundError:
            self._records = {}
        except (ValueError, KeyError, TypeError) as error:
            raise UsageMistake(f"{folder / RECORDS} is of something else; choose another --out") from error

    def holds(self, record: Record) -> bool:
        return self._records.get(record["file"]) == record and (self.videos / record["file"]).is_file()

    def forget(self, records: Iterable[Record]) -> None:
        """Before their videos are made, another or for the first time."""
        for record in records:
            self._records.pop(record["file"], None)
        self._publish()

    def put(self, records: Sequence[Record], videos: npt.NDArray[np.uint8]) -> None:
        """Writes videos [B, F, H, W, RGB]. Raises as `write_clip`."""
        for record, video in zip(records, videos, strict=True):
            write_clip(video, self.videos / record["file"], record["fps"])
            self._records[record["file"]] = record
        self._publish()

    def _publish(self) -> None:
        lines = [json.dumps(self._records[file], ensure_ascii=False) + "\n" for file in sorted(self._records)]
        self._storage.keep(RECORDS, "".join(lines).encode())


def check_writable(folder: Path) -> None:
    """Makes a folder where there is none. Raises UsageMistake where nothing can be written."""
    if "://" in str(folder) or ":/" in str(folder):
        raise UsageMistake(f"--out {folder}: videos are written to a local folder; name one, and copy it from there")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageMistake(f"--out: {folder} cannot be written to: {error.strerror}") from error
