"""What `summary.json` says of the dataset as the last run left it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from nextscene.common.errors import DamagedRecord
from nextscene.common.storage import Storage
from nextscene.curation.summary import Spending
from nextscene.shards.format.layout import SUMMARY


@dataclass(frozen=True)
class LastRun:
    """The tars and their bytes, the seconds of the last run, and what was paid; `spending` is None where nothing is."""

    tars: int
    bytes: int
    seconds: float
    spending: Spending | None

    @staticmethod
    def read(out: Storage) -> LastRun | None:
        """None where no run has come to its end. Raises DamagedRecord for a file that is no summary."""
        try:
            value = json.loads(out.read(SUMMARY))
            spending = value["spending"]
            return LastRun(
                int(value["tars"]),
                int(value["bytes"]),
                float(value["seconds"]),
                None if spending is None else Spending(**spending),
            )
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedRecord(f"{SUMMARY} is not a summary: {error}") from error
