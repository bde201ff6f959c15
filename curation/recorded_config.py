"""`config.toml`: the settings that decide the dataset in OUT, written by the version that began it.

Tested in tests/pipelines/test_out_alone.py.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from nextscene.common.config_loader import flat, flatten
from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.curation.config import LEGACY_VALUES, BuildConfig, fingerprint, legacy_value
from nextscene.shards.format.layout import CONFIG
from nextscene.shards.format.receipt import Receipt, sealed_shards
from nextscene.shards.format.sample import CLIP_TYPES, SCHEMA_VERSION
from nextscene.shards.format.sample_type import SampleType

CUT = "cut_version"
SCHEMA = "schema_version"
PROMPTS = "prompts."
"""The first part of the names of the prompts' hashes among the settings."""

_BEGIN = b"fingerprint = "
_NO_SETTINGS = frozenset(["ffmpeg", SCHEMA, CUT])


def is_record(file: Path) -> bool:
    """Return whether a local file is the `config.toml` of a dataset."""
    try:
        with file.open("rb") as opened:
            return opened.read(len(_BEGIN)) == _BEGIN
    except OSError:
        return False


class DamagedConfig(UsageError):
    """A damaged `config.toml` that this program wrote. `why` is the reason without the remedy."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}; give the command that built it as it was given then, or choose another `out`")
        self.why = why


@dataclass(frozen=True)
class RecordedConfig:
    """The contents of `config.toml`. Its existence commits the plan.

    `begun_with_cut` is the version of the cut with which work on the dataset began.
    """

    identity_settings: dict[str, Any]
    source: str
    plan_sha256: str
    config: dict[str, Any]
    begun_with_cut: int

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.identity_settings)

    @property
    def cut_version(self) -> int:
        """Return the version of the cut that made the clips in OUT. The first version did not record itself."""
        return int(self.identity_settings.get(CUT, LEGACY_VALUES[CUT]))

    @property
    def schema_version(self) -> int:
        """Return the version of the schema that OUT was begun with, and is finished with."""
        return int(self.identity_settings.get(SCHEMA, SCHEMA_VERSION))

    @property
    def settings(self) -> dict[str, Any]:
        """Return dotted name → value of every setting of this version; one that OUT lacks has its legacy value."""
        known = flatten(self.config)
        return {name: known[name] if name in known else legacy_value(name) for name in flat(BuildConfig())}

    @staticmethod
    def read(out: Storage) -> RecordedConfig | None:
        """Return the recorded configuration of OUT; None if there is no plan yet.

        Raise DamagedConfig, or UsageError if the file is not that of a dataset, was changed, or has settings that this
        version does not know.
        """
        try:
            data = out.read(CONFIG)
        except FileNotFoundError:
            return None
        try:
            value = tomllib.loads(data.decode())
            identity_settings = value["determining"]
            begun_with_cut = int(value.get("begun_with_cut", identity_settings.get(CUT, LEGACY_VALUES[CUT])))
            recorded = RecordedConfig(
                identity_settings, value["source"], value["plan_sha256"], value["config"], begun_with_cut
            )
            unknown = [*recorded._unknown()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if data.strip(b"\0 \n") and not data.startswith(_BEGIN):
                why = f"it has no {error}" if isinstance(error, KeyError) else error
                raise UsageError(
                    f"{out.display_uri}/{CONFIG} is not that of a dataset ({why}); choose another `out`"
                ) from error
            raise DamagedConfig(f"{out.display_uri}/{CONFIG} is damaged ({error})") from error
        if value.get("fingerprint") != recorded.fingerprint:
            raise UsageError(
                f"{out.display_uri}/{CONFIG} was changed: its fingerprint is of other settings; restore it, or choose"
                " another `out`"
            )
        if unknown:
            raise UsageError(
                f"`out` {out.display_uri} was begun by another version of this program, and this one does not know its"
                f" {', '.join(unknown)}; use that version or a newer one, or choose another `out`"
            )
        return recorded

    def _unknown(self) -> Iterator[str]:
        """Yield the names that this version does not know: newer or removed settings, and another schema of clips."""
        named = dict.fromkeys([*flatten(self.config), *self.identity_settings])
        known = _NO_SETTINGS | flat(BuildConfig()).keys()
        yield from (name for name in named if name not in known and not name.startswith(PROMPTS))
        if self.schema_version not in CLIP_TYPES:
            yield f"{SCHEMA} {self.identity_settings[SCHEMA]}"

    def publish(self, out: Storage) -> None:
        value = {
            "fingerprint": self.fingerprint,
            "source": self.source,
            "plan_sha256": self.plan_sha256,
            "begun_with_cut": self.begun_with_cut,
            "config": self.config,
            "determining": self.identity_settings,
        }
        out.write(CONFIG, tomli_w.dumps(value).encode())


def schema_of(out: Storage) -> int:
    """Return the version of the schema of OUT: the one that it was begun with, this program's if there is no plan yet.

    Raise as `RecordedConfig.read`.
    """
    recorded = RecordedConfig.read(out)
    return recorded.schema_version if recorded else SCHEMA_VERSION


def schema_of_shards(out: Storage) -> int:
    """Return the version of the schema by which the shards in OUT were sealed, this program's if there are none.

    Raise DamagedRecord.
    """
    for name in sealed_shards(out).values():
        members = Receipt.read(out, name).members
        return next((version for version, kind in CLIP_TYPES.items() if kind.members == members), SCHEMA_VERSION)
    return SCHEMA_VERSION


def clips_of(out: Storage) -> SampleType:
    """Return the type of the clips in OUT. Raise as `RecordedConfig.read`."""
    return CLIP_TYPES[schema_of(out)]
