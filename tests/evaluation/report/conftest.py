"""An evaluation's folder that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.report.made import write_evaluation


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only, but for the page."""
    return write_evaluation(tmp_path_factory.mktemp("made") / "my eval")
