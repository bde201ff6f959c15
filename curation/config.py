"""Settings of a build: those that decide the bytes of the dataset, and the few that do not.

Tested in tests/pipelines/cli/test_options.py.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from nextscene.common.config_loader import flat, setting
from nextscene.common.predicate import Predicate
from nextscene.curation.sources.selection import NO_SEED, Selection
from nextscene.judge.api.backoff import RetryPolicy
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.judge_kind import JudgeKind
from nextscene.judge.registry import JUDGES
from nextscene.prompts import load
from nextscene.shards.format.sample import SCHEMA_VERSION

CUT_VERSION = 2
"""Version of the cut's own logic. It is raised when the same file and settings give other bytes or another outcome."""

LEGACY_VALUES: dict[str, Any] = {
    "claude.prompt_version": 1,
    "cut_version": 1,
    "rules.further": "",
    "map": "",
    "source_settings": "",
    "where": "",
    "limit": 0,
    "sample_seed": NO_SEED,
    "caption_lines": "keep",
}
"""Setting → its value in datasets that were begun before the setting existed, which may differ from the default.

Every new setting gets an entry. A dataset with this value makes the same decisions and has the same fingerprint as one
without the setting.
"""

_MAX_CRF = 51
_ALL_PERCENT = 100
_MAY_BE_ZERO = frozenset(["encode.crf", "rules.max_damaged_frames", "limits.lock_wait_seconds"])


@dataclass(frozen=True)
class Rules:
    """Rules that a clip must pass to be kept (paper, section 11.2).

    Sizes are in pixels as displayed, after rotation and sample aspect.
    """

    min_width: int = setting(832, "Smallest displayed width of a video, in pixels.")
    min_height: int = setting(480, "Smallest displayed height of a video, in pixels.")
    min_image_side: int = setting(512, "Smallest shorter side of an image, in pixels.")
    hdr: Literal["convert", "reject"] = setting("convert", "Convert HDR video to BT.709, or reject it.")
    max_damaged_frames: int = setting(0, "Damaged frames that a clip may have.")
    further: str = setting("", "Names of further rules, separated by commas.")


@dataclass(frozen=True)
class EncodeConfig:
    """Encoding of a clip: H.264 in MP4; an image becomes a square JPEG.

    `width` and `height` apply to `resolution = "train"`.
    """

    width: int = setting(832, "Width of a clip in pixels, when resolution is train.")
    height: int = setting(480, "Height of a clip in pixels, when resolution is train.")
    image_side: int = setting(512, "Side of the square that an image becomes, in pixels.")
    fps: int = setting(16, "Frames per second.")
    max_frames: int = setting(81, "Most frames of a clip; the rest is cut off.")
    gop: int = setting(16, "Frames from one keyframe to the next.")
    crf: int = setting(18, "x264's constant rate factor, 0 (lossless) to 51.")
    preset: Literal[
        "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
    ] = setting("veryfast", "x264's preset; slower ones give smaller files.")


@dataclass(frozen=True)
class FilmConfig:
    """The judge `film`."""

    max_overlap: float = setting(
        0.5, "Share of content words in common at which scene and caption count as the same moment, which is a Fail."
    )


@dataclass(frozen=True)
class RunLimits:
    """Limits of time and memory. They protect the run and do not change its output."""

    clip_seconds: float = setting(120.0, "Seconds to decode and encode one clip.")
    clip_memory_mb: int = setting(4096, "Megabytes of memory to decode and encode one clip.")
    header_seconds: float = setting(10.0, "Seconds of CPU time to read the headers of one file.")
    header_memory_mb: int = setting(768, "Megabytes of memory to read the headers of one file.")
    calls_at_once: int = setting(RetryPolicy.calls_at_once, "Calls to the judge in flight at once.")
    call_seconds: float = setting(RetryPolicy.call_seconds, "Seconds that one call to the judge may take.")
    outage_seconds: float = setting(
        RetryPolicy.outage_seconds, "Seconds without any answer of the judge after which the run stops."
    )
    batch_clips: int = setting(100_000, "Clips asked about together in message batches.")
    batch_appear_hours: float = setting(
        RetryPolicy.batch_appear_hours,
        "Hours to search for a batch whose creation was interrupted before creating it again.",
    )
    lock_wait_seconds: float = setting(90.0, "Seconds to wait while a run on another host holds OUT.")


@dataclass(frozen=True)
class BuildConfig:
    """The settings of a build. All but `limits` are part of the dataset's fingerprint."""

    judge: str = setting(
        "film",
        "Where the scene before a clip comes from. film: the caption of the shot before it; claude: Claude writes and"
        " verifies it, which costs money; given: the source, in a column scene, unverified; none: no scene.",
        choices=JUDGES,
    )
    map: str = setting("", "A TOML file that says how the source is laid out.")
    source_settings: str = setting("", "Settings of several sources, in the form that a dataset records.")
    where: str = setting("", 'Predicate of the clips to use, such as "aesthetic >= 5 and caption is not null".')
    limit: int = setting(0, "Clips to take of the source, before the rules; 0 means all.")
    sample_seed: int = setting(NO_SEED, "Seed by which the clips of limit are drawn by lot; -1 takes the first.")
    caption_lines: Literal["keep", "first", "join"] = setting(
        "keep",
        "What becomes of a caption of several lines. keep: all of it; first: its first line; join: its lines, with"
        " spaces between them.",
    )
    resolution: Literal["train", "native"] = setting(
        "train", "train: scale to cover encode.width × encode.height and crop the rest; native: keep the size."
    )
    test: float = setting(0.01, "Share of the test split, from 0 to 1.")
    split_by: Literal["source", "clip"] = setting(
        "source", "What goes into one split as a whole: all clips of a source, or each clip by itself."
    )
    unit_size: int = setting(32, "Clips in a unit; a unit is committed as a whole.")
    units_per_shard: int = setting(16, "Units in a shard.")
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
        _ = self.selection  # raises now if it is not valid
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

    @property
    def selection(self) -> Selection:
        """Return which of the source's clips are taken. Raise UsageError for a predicate that cannot be read."""
        return Selection(Predicate.parse(self.where) if self.where else None, self.limit, self.sample_seed)

    @property
    def judge_kind(self) -> JudgeKind:
        return JUDGES[self.judge]

    @property
    def judge_settings(self) -> Any:
        """Return the settings that decide the judge's answers; None if it has none."""
        table = self.judge_kind.settings
        return getattr(self, table) if table else None

    def identity_settings(self, ffmpeg_build: str, schema_version: int = SCHEMA_VERSION) -> dict[str, Any]:
        """Return all settings that decide the dataset's bytes, as dotted name → value, to compare two runs.

        `schema_version` is the one that the dataset was begun with.
        """
        unused = {"limits", *(kind.settings for kind in JUDGES.values())} - {self.judge_kind.settings}
        chosen = {
            name: value
            for name, value in flat(self).items()
            if name.partition(".")[0] not in unused and not (name in LEGACY_VALUES and LEGACY_VALUES[name] == value)
        }
        prompts = self.judge_kind.prompts(self.judge_settings)
        chosen |= {f"prompts.{name}": load(name).sha256 for name in prompts}
        return {**chosen, "ffmpeg": ffmpeg_build, "schema_version": schema_version, "cut_version": CUT_VERSION}


def fingerprint(identity_settings: Mapping[str, Any]) -> str:
    """Return the sha256 of `BuildConfig.identity_settings` as canonical JSON."""
    return hashlib.sha256(json.dumps(identity_settings, sort_keys=True).encode()).hexdigest()


def as_tables(config: BuildConfig) -> dict[str, Any]:
    """Return the configuration as nested tables, for TOML."""
    tree = asdict(config)
    # What is not used is left out, so that versions that do not know the setting can continue the dataset.
    if not config.rules.further:
        del tree["rules"]["further"]
    for name in ("map", "source_settings", "where", "limit", "sample_seed", "caption_lines"):
        if tree[name] == LEGACY_VALUES[name]:
            del tree[name]
    return tree


def legacy_value(name: str) -> Any:
    """Return a setting's value in datasets that were begun before the setting existed; None for an unknown name."""
    return LEGACY_VALUES[name] if name in LEGACY_VALUES else flat(BuildConfig()).get(name)
