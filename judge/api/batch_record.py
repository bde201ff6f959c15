"""The record of a batch, kept from before its creation until its answers are stored and their cost is recorded.

Tested in tests/judge/api/test_batches.py.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal

from nextscene.judge.errors import JudgeStopped
from nextscene.judge.spending.answer_segments import CALLS, AnswerFiles

BATCHES = f"{CALLS}/batches"


@dataclass(frozen=True)
class BatchRecord:
    """A batch on record. `questions` maps the key of each question to its clip, `aliases` to its alias if it has one.

    `worst` is the reserved worst-case cost of all questions and `dearest` that of one question, in US dollars; an older
    version did not record `dearest`, and recorded a folder name in place of the clip. `batch_id` is the id of the API,
    "" until it is known. `planned_at` is in seconds since 1970.
    """

    name: str
    planned_at: float
    worst: Decimal
    questions: dict[str, str]
    batch_id: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict)
    dearest: Decimal | None = None

    @property
    def path(self) -> str:
        return f"{BATCHES}/{self.name}.json.gz"

    def write(self, files: AnswerFiles) -> None:
        value = asdict(self) | {"worst": str(self.worst), "dearest": str(self.dearest or self.worst)}
        files.write(self.path, gzip.compress(json.dumps(value).encode(), mtime=0))

    @staticmethod
    def read_all(files: AnswerFiles) -> list[BatchRecord]:
        """Return the records of all open batches. Raise JudgeStopped for a damaged record."""
        found = []
        for entry in files.files(BATCHES):
            try:
                value = json.loads(gzip.decompress(files.read(entry.path)))
                clips = {key: "" if "/" in clip else clip for key, clip in value["questions"].items()}
                money = {name: Decimal(value[name]) for name in ("worst", "dearest") if name in value}
                found.append(BatchRecord(**{**value, **money, "questions": clips}))
            except FileNotFoundError:
                continue  # collected since it was listed
            except (
                OSError,
                EOFError,
                zlib.error,
                ValueError,
                KeyError,
                TypeError,
                ArithmeticError,
                RecursionError,
            ) as error:
                raise JudgeStopped(f"{entry.path} is damaged ({error!r}); restore it from a copy") from error
        return found
