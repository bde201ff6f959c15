"""Folders of other people and programs, and a snapshot to check that nothing in them was changed."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TABLE = pa.table({"week": [1, 2], "plan": ["a", "b"]})


def parquet(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(TABLE, path)
    return path


FOREIGN: dict[str, dict[str, str]] = {
    "notes": {"notes.txt": "mine"},
    "a dataset of another program": {"README.md": "# Mine", "manifest.json": "{}", "index/val.parquet": "x"},
    "an index for wids": {"wids-val.json": "{}", "wids-train.json": "{}"},
    "a page": {"report.html": "<p>mine</p>"},
    "settings": {"config.toml": "[server]\nport = 1\n"},
    "settings and a plan": {"config.toml": 'determining = "x"\n', "plan.parquet": "no Parquet"},
    "a lock": {"run.lock": "4711\n"},
    "drafts": {"thesis/.chapter.unfinished": "half", ".letter.0123abcd.unfinished": "half"},
    "recordings of calls": {"calls/2026-01-01.wav": "x"},
    "a repository": {".git/HEAD": "ref: refs/heads/main"},
    "another program's mark": {"nextscene.json": '{"theatre": "opera"}'},
    "a newer mark": {"nextscene.json": '{"kind": "dataset", "version": 2}'},
    "a mark that is no mark": {"nextscene.json": "[" * 50_000},
    "a mark that is torn": {"nextscene.json": '{"kind": "datas'},
    "an export": {"nextscene.json": '{"recipe": "sft", "step": 1, "determining": {}, "version": 1}'},
    "another trainer's runs": {"first/checkpoints/last.ckpt": "x", "first/metrics.jsonl": "{}", "export/model": "x"},
    "another trainer's checkpoints": {"sft/checkpoints/step-100/w.pt": "x", "sft/metrics.jsonl": '{"loss": 1}\n'},
    "another trainer's steps": {"sft/checkpoints/step-100/about.json": '{"step": 100, "model": "x"}'},
    "a trainer that logged nothing": {"sft/checkpoints/last.ckpt": "x", "sft/metrics.jsonl": ""},
    "videos by year": {"2023/videos/a.mp4": "x", "2024/videos/b.mp4": "x"},
    "a list of videos": {"videos.jsonl": '{"file": "a.mp4", "caption": "x"}\n', "a.mp4": "x"},
    "somebody's videos": {"0000.mp4": "x", "a/videos/0000.mp4": "x"},
    "other records": {"videos.jsonl": '{"url": "x"}\n', "a/videos.jsonl": "", "made.json": '{"by": "hand"}'},
    "figures": {"summary.json": "{}", "metrics.jsonl": "{}", "shots.csv": "a,b\n"},
}
"""Name of the folder → path → content. No command of this package writes any of these."""


def lay(folder: Path, name: str) -> Path:
    for path, text in FOREIGN[name].items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    if name == "settings and a plan":
        parquet(folder / "plan.parquet")
    return folder


def tree(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return inode number, time and content of a folder and of all below it, by path; empty if there is no folder."""
    found = sorted([folder, *folder.rglob("*")]) if folder.exists() else []
    stats = [(path, path.lstat()) for path in found]
    return {
        str(path): (stat.st_ino, stat.st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path, stat in stats
    }


def marked(folder: Path, kind: str) -> Path:
    """Create a folder with the mark of a kind and one other file, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nextscene.json").write_text(json.dumps({"kind": kind, "version": 1}))
    (folder / "mine.txt").write_text("mine")
    return folder
