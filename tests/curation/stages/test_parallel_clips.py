"""Clips of a unit side by side: the same rows and bytes as one after another, within bounds, and each its own cost."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nextscene.common import child_process, ffmpeg
from nextscene.common.storage import Storage
from nextscene.curation.config import RunLimits
from nextscene.curation.ledger import RUN_SPECIFIC, read_ledger
from nextscene.curation.plan import Plan
from nextscene.curation.run.prepare import prepare
from nextscene.curation.sources import Source
from nextscene.curation.sources.reader import SourceReader
from nextscene.curation.stages.parallel_clips import ClipWorkspace, map_clips
from nextscene.curation.stages.unit import UnitContext, cut_unit, screen_unit
from tests.faults.kill_at_step import TINY
from tests.support import captioned_spans

PATIENCE_SECONDS = 60


def test_results_come_in_order_and_few_are_held(tmp_path: Path) -> None:
    begun: list[int] = []
    both = threading.Barrier(2, timeout=PATIENCE_SECONDS)

    def step(item: int, workspace: ClipWorkspace) -> tuple[int, Path]:
        begun.append(item)
        both.wait()  # two are at work at once, or this never ends
        return item, workspace.scratch

    found = []
    for item, scratch in map_clips(partial(SourceReader, Storage.at(tmp_path)), step, range(20), 2):
        found.append(item)
        assert scratch.is_dir()
        assert len(begun) <= len(found) + 3
    assert found == [*range(20)]


def test_no_two_share_a_bench(tmp_path: Path) -> None:
    taken = threading.Lock()
    at_work: set[Path] = set()
    seen: set[Path] = set()

    def step(_: int, workspace: ClipWorkspace) -> None:
        with taken:
            assert workspace.scratch not in at_work
            at_work.add(workspace.scratch)
            seen.add(workspace.scratch)
        (workspace.scratch / "clip.mp4").write_bytes(b"")
        with taken:
            at_work.remove(workspace.scratch)

    assert len([*map_clips(partial(SourceReader, Storage.at(tmp_path)), step, range(200), 3)]) == 200
    assert len(seen) <= 3
    assert not any(scratch.exists() for scratch in seen)


def test_the_first_fault_ends_it(tmp_path: Path) -> None:
    begun: list[int] = []

    def step(item: int, _: ClipWorkspace) -> int:
        begun.append(item)
        if item == 3:
            raise ZeroDivisionError
        return item

    with pytest.raises(ZeroDivisionError):
        list(map_clips(partial(SourceReader, Storage.at(tmp_path)), step, range(1000), 2))
    assert len(begun) < 20


def test_a_unit_is_the_same_however_many_are_worked_on_at_once(tmp_path: Path) -> None:
    source = Source.at(str(captioned_spans(tmp_path / "in", 5, seconds=0.125, size="64x48")))
    config = replace(TINY, unit_size=5)

    def made(at_once: int) -> tuple[bytes, list[dict[str, Any]]]:
        out = Storage.at(tmp_path / f"out-{at_once}")
        prepare(out, source, config)
        (shard,) = (name for name, _ in Plan(out, config).shards())
        (unit,) = Plan(out, config).units(shard)
        job = UnitContext(config, source.root, out, ffmpeg.build(), "r")
        cut_unit(job, unit, screen_unit(job, unit, at_once), [None] * 5, at_once)
        rows = read_ledger(out, unit.name.ledger)
        lasting = [{name: value for name, value in vars(row).items() if name not in RUN_SPECIFIC} for row in rows]
        return out.read(unit.name.part), lasting

    assert made(1) == made(3)
    assert all(row["outcome"] == "kept" for row in made(3)[1])


def test_each_child_is_told_its_own_cpu_time() -> None:
    """One works while others, which end meanwhile, sleep."""
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    lines = [[sys.executable, "-S", "-c", burn], *([sys.executable, "-S", "-c", "import time; time.sleep(1)"],) * 3]
    with ThreadPoolExecutor(4) as pool:
        busy, *idle = pool.map(lambda line: child_process.run(line, RunLimits()), lines)
    assert busy.code == 0
    assert busy.cpu_seconds >= 0.5
    assert [run.code for run in idle] == [0, 0, 0]
    assert max(run.cpu_seconds for run in idle) < 0.4


def test_a_child_whose_time_is_up_has_no_code_and_is_gone() -> None:
    run = child_process.run(
        [sys.executable, "-S", "-c", "import time; time.sleep(600)"], replace(RunLimits(), clip_seconds=0.5)
    )
    assert run.code is None
