"""Cases through the product: what each ended as, and how far its colors are off."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nextscene.curation.config import BuildConfig, Rules
from tests.colors.cases import Case, Unmade
from tests.colors.patches import JPEG, Clip, in_clip
from tests.support import build_inline, ledger, write_csv

CONFIG = BuildConfig(judge="none", test=0.0, unit_size=512, rules=Rules(min_width=64, min_height=64, min_image_side=64))
BT709_LIMITED = (1, 1, 1, 1)


@dataclass(frozen=True)
class Result:
    """`verdict`: right, MISS, rejected, unmade or noted; `off` is the worst channel's error in 255ths."""

    case: Case
    verdict: str
    off: float
    said: str

    def __str__(self) -> str:
        return f"{self.verdict:9}{self.off:6.1f}  {self.case.group:10} {self.case.file:34} {self.said}"


def results(cases: Sequence[Case], folder: Path, config: BuildConfig = CONFIG) -> list[Result]:
    """All cases as one source through the product."""
    unmade: dict[str, str] = {}
    for case in cases:
        try:
            case.make(folder)
        except Unmade as error:
            unmade[case.file] = str(error)
    made = [case for case in cases if case.file not in unmade]
    source = write_csv(folder / "clips.csv", [{"video": case.file, "caption": "patches"} for case in made])
    out = folder / "out"
    build_inline(source, out, config)
    rows = {row.source: row for row in ledger(out, config)}
    clips = media(out)
    found = [Result(case, "unmade", 0.0, unmade[case.file]) for case in cases if case.file in unmade]
    for case in made:
        row = rows[case.file]
        if row.outcome != "kept":
            allowed = case.or_rejected and row.outcome == "rejected"
            verdict = "noted" if case.noted else "rejected" if allowed else "MISS"
            found.append(Result(case, verdict, 0.0, f"{row.outcome}: {row.reason}: {row.detail}"))
        else:
            found.append(judged(case, Clip.of(clips[row.clip_id])))
    return found


def media(out: Path) -> dict[str, bytes]:
    """Clip id → its video or image, of all shards."""
    found = {}
    for path in sorted((out / "shards").rglob("*.tar")):
        with tarfile.open(path) as shard:
            for member in shard:
                if member.name.endswith((".mp4", ".jpg")):
                    contents = shard.extractfile(member)
                    assert contents is not None
                    found[Path(member.name).stem] = contents.read()
    return found


def judged(case: Case, clip: Clip) -> Result:
    """A clip's colors and tags against what they must be."""
    frame = clip.frames[-1]
    placed = [(i, in_clip(place, case.size, (frame.width, frame.height))) for i, place in enumerate(case.where)]
    seen = [(i, place) for i, place in placed if place is not None]
    got, wanted = clip.colors([place for _, place in seen]), case.expected[[i for i, _ in seen]]
    off = np.abs(got - wanted).max(axis=1)
    worst = int(off.argmax())
    said = f"{_triple(wanted[worst])} is {_triple(got[worst])}" if off[worst] > case.tolerance / 2 else ""
    if clip.pixel_format != JPEG and (clip.tags != BT709_LIMITED or clip.pixel_format != "yuv420p"):
        said += f" tagged {clip.tags} {clip.pixel_format}"
    right = off[worst] <= case.tolerance and "tagged" not in said
    return Result(case, "noted" if case.noted else "right" if right else "MISS", float(off[worst]), said.strip())


def _triple(color: np.ndarray) -> str:
    return "({:.0f},{:.0f},{:.0f})".format(*color)
