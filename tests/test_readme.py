"""The Python code of README.md, run unchanged; its output must be what the README says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.shards.clips import clip_dataset
from tests.support import REPOSITORY


def python_blocks(heading: str) -> list[str]:
    section = (REPOSITORY / "README.md").read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


class Enough(Exception):
    """Exception that ends the endless loop over the loader."""


def test_python_blocks_run_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip_dataset(tmp_path / "data" / "nsp-film", [9, 17, 1, 25])
    monkeypatch.chdir(tmp_path)
    trained: list[tuple[int, ...]] = []
    saved: list[dict[str, int]] = []

    def save(state: dict[str, int]) -> None:
        saved.append(state)
        if len(saved) == 3:
            raise Enough

    names: dict[str, Any] = {"train": lambda video, text: trained.append(tuple(video.shape)), "save": save}
    reading, training = python_blocks("Reading shards in Python")
    exec(reading, names)  # the README's own code
    assert capsys.readouterr().out.splitlines() == [
        f"scene {number} → torch.Size([{frames}, {height}, {width}, 3])"
        for number, (frames, height, width) in enumerate([(9, 48, 64), (17, 48, 64), (1, 32, 32), (25, 48, 64)])
    ]
    with pytest.raises(Enough):
        exec(training, names)
    assert [shape[0] for shape in trained] == [2, 2, 2]
    assert [state["position"] for state in saved] == [1, 2, 3]
    assert len(saved[0]) == 5
