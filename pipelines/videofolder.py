"""A folder of generated videos, and `videos.jsonl`, which has a line on how each of them was made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.errors import UsageMistake
from curation.write import write_clip
from shards.storage import Storage

RECORDS = "videos.jsonl"
Record = Mapping[str, Any]


class VideoFolder:
    """A video is there if its record is, and the same: the record is written after it.

    Before, a line with the file's name alone claims it, so that what a killed run left there is known from what is
    somebody else's. Records lie in `folder`, videos there too or in a folder `inside` it, where there is nothing else.
    """

    def __init__(self, folder: Storage, inside: str = "") -> None:
        """Makes the videos' folder in a `folder` that is claimed. Raises UsageMistake for records of something else."""
        self._storage, self._inside, self.videos = folder, inside, Path(folder.full(inside))
        folder.check_anchor()
        self.videos.mkdir(parents=True, exist_ok=True)
        try:
            lines = self._storage.read(RECORDS).decode().split("\n")[:-1]
            self._records: dict[str, Record] = {record["file"]: record for record in map(json.loads, lines)}
        except FileNotFoundError:
            self._records = {}
        except (ValueError, KeyError, TypeError) as error:
            raise UsageMistake(f"{folder.shown}/{RECORDS} is of something else; choose another --out") from error

    def holds(self, record: Record) -> bool:
        return self._records.get(record["file"]) == record and (self.videos / record["file"]).is_file()

    def claim(self, records: Sequence[Record]) -> None:
        """Before their videos are made. Raises UsageMistake where one is in the way, of which there is another record
        or none.
        """
        claims = {record["file"]: {"file": record["file"]} for record in records}
        for file, claim in claims.items():
            if (self.videos / file).exists() and self._records.get(file) != claim:
                raise UsageMistake(
                    f"--out: {self.videos / file} is there already, of another scene, model, seed or program; choose"
                    " another --out, or delete it"
                )
        self._records |= claims
        self._publish()

    def put(self, records: Sequence[Record], videos: npt.NDArray[np.uint8]) -> None:
        """Writes videos [B, F, H, W, RGB]. Raises as `write_clip`."""
        for record, video in zip(records, videos, strict=True):
            write_clip(video, self._storage, str(PurePosixPath(self._inside, record["file"])), record["fps"])
            self._records[record["file"]] = record
        self._publish()

    def _publish(self) -> None:
        lines = [json.dumps(self._records[file], ensure_ascii=False) + "\n" for file in sorted(self._records)]
        self._storage.keep(RECORDS, "".join(lines).encode())
