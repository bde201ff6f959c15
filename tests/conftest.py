"""Settings of all tests. Each test gets a temporary folder for scratch files of the tested code, to detect leaks."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.clocks.fake import FakeClocks

# Threads do not speed up toy tensors, neither here nor in the commands that are started.
os.environ["OMP_NUM_THREADS"] = "1"

# A shell makes background processes ignore SIGINT, but some tests send it to the commands that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Imports create a million objects that are never freed: scanning them repeatedly takes long.
gc.disable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with the most slow tests first, so that at the end no process waits long for another."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


# The time that an example takes depends on the machine, not on the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that is TMPDIR during the test."""
    folder = tmp_path_factory.mktemp("scratch")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> FakeClocks:
    """Return clocks under which a wait takes no time."""
    fake = FakeClocks()
    fake.installed(monkeypatch)
    return fake
