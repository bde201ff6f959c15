"""A run's folder that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.report.made import write_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only, but for the page."""
    return write_run(tmp_path_factory.mktemp("made") / "my run #1")
