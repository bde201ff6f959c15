"""Checks whether a run with its settings may continue the plan that OUT already has, and whether work on it has begun.

Tested in tests/curation/run/test_resume.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from nextscene.common.config_loader import differences, flat
from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig, legacy_value
from nextscene.curation.recorded_config import CUT, PROMPTS, SCHEMA, DamagedConfig, RecordedConfig
from nextscene.curation.sources import Source
from nextscene.judge.errors import JudgeStopped
from nextscene.judge.registry import JUDGES, is_paid
from nextscene.judge.spending.answer_index import INDEX
from nextscene.judge.spending.answer_segments import CALLS
from nextscene.judge.spending.budget_record import ACCOUNT
from nextscene.judge.spending.call_journal import JOURNALS
from nextscene.judge.spending.stored_answers import StoredAnswers
from nextscene.shards.format.layout import CRASHES, PARTS, TERMS, UNIT_LEDGERS
from nextscene.shards.format.receipt import sealed_shards


def find_existing_plan(out: Storage, source: Source, identity_settings: dict[str, Any]) -> RecordedConfig | None:
    """Return the record of the plan in OUT that a run with these settings continues; None if it has to make a plan.

    Raise UsageError if settings of this run differ from those that OUT was planned with; the message names each.
    """
    recorded = RecordedConfig.read(out)
    if recorded is None:
        return None
    different = settings_differences(recorded, identity_settings, source.recorded_uri)
    if not different:
        return recorded
    if is_paid(recorded.identity_settings.get("judge")) and has_only_plan(out):
        return None  # no question was ever answered, perhaps because the model does not exist
    raise UsageError(
        f"`out` {out.display_uri} holds another plan: {'; '.join(different.values())}. {_remedy(different.keys())},"
        " or choose another `out`"
    )


def check_settings(out: Storage, source: Source, identity_settings: dict[str, Any]) -> None:
    """Raise as `find_existing_plan` if a setting differs. A different source alone is accepted: it may have moved."""
    with suppress(DamagedConfig):
        recorded = RecordedConfig.read(out)
        if recorded and settings_differences(recorded, identity_settings, recorded.source):
            find_existing_plan(out, source, identity_settings)


def _remedy(different: Collection[str]) -> str:
    if "ffmpeg" in different:
        return "Install the imageio-ffmpeg that it was begun with"
    if set(different) <= {PROMPTS, SCHEMA}:
        return "Use the version of this program that it was begun with"
    return "Leave out what differs, to continue with what it was begun with"


def settings_differences(recorded: RecordedConfig, identity_settings: dict[str, Any], source: str) -> dict[str, str]:
    """Return name → description of each setting that differs from the recorded one, the most important first.

    Settings that differ only because the judge or the version of the prompts differs are left out.
    """
    names = {"source", *recorded.identity_settings, *identity_settings}
    before = _completed({**recorded.identity_settings, "source": recorded.source}, names)
    different = differences(before, _completed({**identity_settings, "source": source}, names))
    followers: tuple[str, ...] = (CUT,)  # which is not a setting
    if "judge" in different:
        followers += (PROMPTS, *(f"{kind.settings}." for kind in JUDGES.values() if kind.settings))
    elif "claude.prompt_version" in different:
        followers += (PROMPTS,)
    ordered = [(name, *different[name]) for name in _in_order(different) if not name.startswith(followers)]
    told = {name: f"{name} is {now}, was {then}" for name, then, now in ordered}
    prompts = [name.removeprefix(PROMPTS) for name in told if name.startswith(PROMPTS)]
    if prompts:
        told = {name: text for name, text in told.items() if not name.startswith(PROMPTS)}
        told[PROMPTS] = f"the prompts {', '.join(prompts)} are those of another version"
    return told


def _in_order(named: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of what decides a dataset, in order: the source, the settings (the judge first), all others."""
    order = dict.fromkeys(["source", *flat(BuildConfig())])
    yield from (name for name in order if name in named)
    yield from sorted(named.keys() - order.keys(), key=lambda name: (name in ("ffmpeg", SCHEMA), name))


def _completed(settings: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return a value for each name; for a setting that did not exist when the dataset was begun, its legacy value."""
    return {name: settings[name] if name in settings else legacy_value(name) for name in names}


def has_only_plan(out: Storage) -> bool:
    """Return whether OUT has at most a plan: no clip is decided, and no answer was paid for."""
    done = sealed_shards(out) or any(out.files(folder) for folder in (UNIT_LEDGERS, PARTS, CRASHES))
    try:
        asked = done or StoredAnswers(out).count
    except JudgeStopped:
        return False
    left = (entry for entry in out.files(CALLS, recursive=True) if entry.path not in (ACCOUNT, INDEX, TERMS))
    return not asked and all(entry.path.startswith(JOURNALS) and not entry.size for entry in left)
