"""The file of a stage's metrics, read without torch; also while a run writes it.

Tested in tests/training/metrics/test_logger.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nextscene.training.checkpoint_info import METRICS

SIGMA_BUCKETS = 4


def sigma_bucket_name(bucket: int) -> str:
    """Return the name of the mean loss in one of SIGMA_BUCKETS equal ranges of σ."""
    return f"loss_sigma_{bucket / SIGMA_BUCKETS:.2f}_{(bucket + 1) / SIGMA_BUCKETS:.2f}"


def heldout_name(sigma: float) -> str:
    """Return the name of the held-out loss at one noise level."""
    return f"heldout_loss_sigma_{sigma:.1f}"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of `metrics.jsonl`, without an incomplete last line that a killed run left."""
    return list(iterate_metrics(folder))


def iterate_metrics(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines as `read_metrics`, one at a time in memory."""
    try:
        with (folder / METRICS).open(encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n"):  # the text after the last newline is incomplete
                    yield json.loads(line)
    except FileNotFoundError:
        return
