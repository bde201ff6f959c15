"""Has the product cut clips from many videos and compares every frame with what the oracle wants there."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.ledger import Row
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.loading.reader import ShardReader
from tests.moments.files import Maker, Video
from tests.moments.frames import in_cells, number_of
from tests.moments.oracle import FPS, Decoded, Span, decode, wanted
from tests.support import build_inline, ledger, write_csv

RIGHT, MOVED, NO_CLIP, WRONG = "right", "moved", "failed as expected", "WRONG"


@dataclass(frozen=True)
class Verdict:
    """What became of one span, and for a wrong one what was wanted and what came."""

    video: Video
    span: Span
    kind: str
    detail: str = ""


def judge(maker: Maker, videos: Sequence[Video], out: Path) -> list[Verdict]:
    """Cuts all spans of the videos in one run of the product into `out`, and judges them."""
    asked: dict[str, tuple[Video, Span]] = {}
    rows: list[dict[str, object]] = []
    for video in videos:
        path = maker.make(video)
        for span in video.spans:
            name = f"{path.name}@{span}"
            asked[name] = (video, span)
            end = "" if span.end is None else f"{span.end / 1000:.3f}"
            start = f"{span.start / 1000:.3f}" if span.start or end else ""
            rows.append({"video": str(path.resolve()), "start": start, "end": end, "caption": name, "id": len(rows)})
    decodes = {video.name: decode(maker.make(video)) for video in videos}
    out.mkdir(parents=True)
    source = write_csv(out / "clips.csv", rows)
    config = BuildConfig(judge="none", test=0.0, unit_size=8, units_per_shard=max(2, len(rows)))
    build_inline(source, out / "out", config)
    clips = _clips(out / "out")
    verdicts = []
    for row in ledger(out / "out", config):
        video, span = asked[row.caption]
        kind, detail = compare(decodes[video.name], span, video, row, clips.get(row.clip_id))
        verdicts.append(Verdict(video, span, kind, detail))
    assert len(verdicts) == len(asked), f"{len(asked)} spans were asked for, {len(verdicts)} have an end"
    return verdicts


def numbers_of(mp4: bytes) -> list[int | None]:
    """The numbers in a clip's frames. Raises ValueError for a frame that is not at its time."""
    numbers = []
    with av.open(io.BytesIO(mp4), "r") as container:
        for slot, frame in enumerate(container.decode(video=0)):
            if frame.pts is None or frame.time_base is None or frame.pts * frame.time_base * FPS != slot:
                raise ValueError(f"frame {slot} of the clip is at {frame.time} s")
            numbers.append(number_of(in_cells(np.asarray(frame.to_ndarray()[: frame.height], np.uint8))))
    return numbers


def _clips(out: Path) -> dict[str, bytes]:
    place = Storage.at(str(out))
    clips: dict[str, bytes] = {}
    for shard in Manifest.read(place).shards:
        reader = ShardReader(place, shard.name)
        clips |= {key: reader.sample(key).media for key in reader.receipt.clip_ids}
    return clips


def compare(decoded: Decoded, span: Span, video: Video, row: Row, mp4: bytes | None) -> tuple[str, str]:
    aim = wanted(decoded, span, video.container.rounding)
    end = f"{row.outcome} {row.reason}: {row.detail}"
    if mp4 is None:
        if row.outcome == "failed" and row.reason == "short_decode" and (aim.why_none or aim.may_end_short):
            return NO_CLIP, ""
        if row.outcome == "rejected" and row.reason == "span_outside" and aim.may_end_short:
            return NO_CLIP, ""
        return WRONG, f"not kept ({end}), but {aim.why_none or f'{aim.least}–{aim.most} frames are there'}"
    got = numbers_of(mp4)
    if aim.why_none:
        return WRONG, f"kept, but {aim.why_none}; got {got}"
    places = [tuple(decoded.numbers[index] for index in slot) for slot in aim.slots]
    if None in got:
        return WRONG, f"unreadable frames; wanted {[place[0] for place in places]}, got {got}"
    if len(got) != row.frames or not aim.least <= len(got) <= aim.most:
        return WRONG, f"{len(got)} frames (ledger: {row.frames}), wanted {aim.least}–{aim.most}; got {got}"
    if wrong := [slot for slot, number in enumerate(got) if number not in places[slot]]:
        right = [place[0] for place in places[: len(got)]]
        return WRONG, f"{len(wrong)} of {len(got)} frames, first in slot {wrong[0]}: wanted {right}, got {got}"
    is_exact = all(number == places[slot][0] for slot, number in enumerate(got))
    return (RIGHT, "") if is_exact else (MOVED, "")
