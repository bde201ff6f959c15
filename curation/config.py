"""What a run is told: every setting that decides the bytes it makes, and the few that do not."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from nextscene.common.config_loader import flat
from nextscene.judge.config import ClaudeConfig
from nextscene.prompts import load
from nextscene.shards.format.sample import SCHEMA_VERSION

CUT_VERSION = 2
"""Counts up whenever the cut's own logic makes other bytes or other ends of the same file, as settings would."""

BEFORE: dict[str, Any] = {"claude.prompt_version": 1, "cut_version": 1}
"""What a dataset had of each setting before there was that setting: the old behavior, which need not be the default.

Every setting that is new from now on stands here. A dataset that has this value of it is decided as one from before,
and has the same fingerprint.
"""

_MAX_CRF = 51
_ALL_PERCENT = 100
_MAY_BE_ZERO = frozenset(["encode.crf", "rules.max_damaged_frames", "limits.lock_wait_seconds"])
_FIRST_PROMPTS = ("caption", "preceding_description", "retry", "verification")
_CLAUDES_PROMPTS = {1: _FIRST_PROMPTS, 2: (*_FIRST_PROMPTS, "notice")}


@dataclass(frozen=True)
class Rules:
    """Which clips are kept. Sizes in pixels as displayed, after rotation and sample aspect (paper, section 11.2).

    HDR is converted to BT.709, or rejected. `max_damaged_frames` of a clip may be damaged.
    """

    min_width: int = 832
    min_height: int = 480
    min_image_side: int = 512
    hdr: Literal["convert", "reject"] = "convert"
    max_damaged_frames: int = 0


@dataclass(frozen=True)
class EncodeConfig:
    """How a clip is written: H.264 in MP4. Sizes apply to `--resolution train`; images are always square."""

    width: int = 832
    height: int = 480
    image_side: int = 512
    fps: int = 16
    max_frames: int = 81
    gop: int = 16
    crf: int = 18
    preset: Literal[
        "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
    ] = "veryfast"


@dataclass(frozen=True)
class FilmConfig:
    """The judge `film`: a scene and a caption that share this much of their content words are one moment."""

    max_overlap: float = 0.5


@dataclass(frozen=True)
class RunLimits:
    """Bounds on one clip's decoder and on the asking. They protect the run and do not change what it makes.

    Headers are read within `header_seconds` of CPU time and `header_memory_mb`.
    A call to the judge is given up after `call_seconds`; with no answer to any for `outage_seconds` the run stops.
    A batch whose creation broke off is looked for during `batch_appear_hours` before it is made anew.
    A run on another host that holds OUT is waited for during `lock_wait_seconds`; 0 is not at all.
    """

    clip_seconds: float = 120.0
    clip_memory_mb: int = 4096
    header_seconds: float = 10.0
    header_memory_mb: int = 768
    calls_at_once: int = 256
    call_seconds: float = 180.0
    outage_seconds: float = 900.0
    batch_clips: int = 100_000
    batch_appear_hours: float = 24.0
    lock_wait_seconds: float = 90.0


@dataclass(frozen=True)
class BuildConfig:
    """A run's configuration. All of it but `limits` is the fingerprint of the dataset."""

    judge: Literal["film", "claude", "none"] = "film"
    resolution: Literal["train", "native"] = "train"
    test: float = 0.01
    split_by: Literal["source", "clip"] = "source"
    unit_size: int = 32
    units_per_shard: int = 16
    rules: Rules = field(default_factory=Rules)
    encode: EncodeConfig = field(default_factory=EncodeConfig)
    film: FilmConfig = field(default_factory=FilmConfig)
    claude: ClaudeConfig = field(default_factory=ClaudeConfig)
    limits: RunLimits = field(default_factory=RunLimits)

    def __post_init__(self) -> None:
        positive = {**flat(self.rules, "rules."), **flat(self.encode, "encode."), **flat(self.limits, "limits.")}
        positive |= flat(self.claude, "claude.")
        positive |= {"unit_size": self.unit_size, "units_per_shard": self.units_per_shard}
        for name, value in positive.items():
            if isinstance(value, (int, float)) and not 0 < value < math.inf and name not in _MAY_BE_ZERO:
                raise ValueError(f"{name} must be above 0, not {value}")
        for name in ("rules.max_damaged_frames", "limits.lock_wait_seconds"):
            if not 0 <= flat(self)[name] < math.inf:
                raise ValueError(f"{name} must not be below 0, not {flat(self)[name]}")
        if not 0 <= self.encode.crf <= _MAX_CRF:
            raise ValueError(f"encode.crf must lie between 0 and {_MAX_CRF}, not {self.encode.crf}")
        for name in ("test", "film.max_overlap"):
            value = flat(self)[name]
            if not 0 <= value <= 1:
                percent = f"; {value:g} % is {value / 100:g}" if 1 < value <= _ALL_PERCENT else ""
                raise ValueError(f"{name} must lie between 0 and 1, not {value}{percent}")
        for name in ("encode.width", "encode.height", "encode.image_side"):
            if flat(self)[name] % 2:
                raise ValueError(f"{name} must be even, not {flat(self)[name]}")

    def determining(self, ffmpeg_build: str) -> dict[str, Any]:
        """Dotted name → value of all that decides the dataset's bytes, for comparing two runs."""
        idle = {"limits", "film", "claude"} - {self.judge}
        chosen = {
            name: value
            for name, value in flat(self).items()
            if name.partition(".")[0] not in idle and not (name in BEFORE and BEFORE[name] == value)
        }
        if self.judge == "claude":
            chosen |= {f"prompts.{name}": load(name).sha256 for name in _CLAUDES_PROMPTS[self.claude.prompt_version]}
        return {**chosen, "ffmpeg": ffmpeg_build, "schema_version": SCHEMA_VERSION, "cut_version": CUT_VERSION}


def fingerprint(determining: Mapping[str, Any]) -> str:
    """sha256 over the canonical JSON of `BuildConfig.determining`."""
    return hashlib.sha256(json.dumps(determining, sort_keys=True).encode()).hexdigest()


def as_tree(config: BuildConfig) -> dict[str, Any]:
    """The configuration as nested tables, for TOML."""
    return asdict(config)


def was_before(name: str) -> Any:
    """Return what a dataset without this setting had; None for what is no setting."""
    return BEFORE[name] if name in BEFORE else flat(BuildConfig()).get(name)
