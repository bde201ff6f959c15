"""A dataset begun with one version of the prompts ends with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nextscene.common.storage import Storage
from nextscene.curation.config import fingerprint
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.run.prepare import prepare, with_recorded_prompt_version
from nextscene.curation.sources import Source
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.errors import JudgeStopped
from nextscene.judge.prompt_version import PROMPTS, prompt_version
from nextscene.judge.spending.answer_segments import write_segments
from nextscene.shards.format.layout import CONFIG
from tests.fakes.loopback import CLAUDE
from tests.judge.support import MemoryFiles, answer
from tests.support import captioned_spans

FIRST = replace(CLAUDE, claude=ClaudeConfig(prompt_version=1))


def test_a_dataset_begun_with_the_first_version_keeps_it_and_its_fingerprint(tmp_path: Path) -> None:
    source, out = Source.at(str(captioned_spans(tmp_path, 3))), Storage.at(tmp_path / "out")
    before = prepare(out, source, FIRST)
    # As the version before wrote it: it had no such setting, and no prompt for it.
    assert not [
        name for name in before.identity_settings if ("version" in name and "prompt" in name) or "notice" in name
    ]
    config = tmp_path / "out" / CONFIG
    config.write_text("".join(line for line in config.open() if not line.startswith("prompt_version")))
    recorded = RecordedConfig.read(out)
    assert recorded and recorded.fingerprint == before.fingerprint == fingerprint(recorded.identity_settings)
    assert recorded.settings["claude.prompt_version"] == 1, "estimate, show and verify read it from here"
    assert with_recorded_prompt_version(out, CLAUDE) == FIRST
    assert prepare(out, source, with_recorded_prompt_version(out, CLAUDE)).fingerprint == before.fingerprint


def test_a_new_dataset_has_the_newest_version_and_another_fingerprint(tmp_path: Path) -> None:
    source = Source.at(str(captioned_spans(tmp_path, 3)))
    first, out = Storage.at(tmp_path / "first"), Storage.at(tmp_path / "out")
    assert with_recorded_prompt_version(out, CLAUDE) == CLAUDE
    recorded = prepare(out, source, CLAUDE)
    assert recorded.identity_settings["claude.prompt_version"] == 2
    assert recorded.fingerprint != prepare(first, source, FIRST).fingerprint
    assert with_recorded_prompt_version(out, CLAUDE) == with_recorded_prompt_version(out, FIRST) == CLAUDE


def test_beside_answers_alone_the_first_use_decides() -> None:
    files = MemoryFiles()
    assert prompt_version(files) == 2 and json.loads(files.data[PROMPTS]) == {"version": 2}
    write_segments(files, [answer("a" * 64)])
    assert prompt_version(files) == 2
    old = MemoryFiles({path: data for path, data in files.data.items() if path != PROMPTS})
    assert prompt_version(old) == prompt_version(old) == 1


@pytest.mark.parametrize("note", [b"", b"[]", b"{}", b'{"version": 3}', b'{"version": "1"}'])
def test_a_note_that_cannot_be_read_stops_the_asking(note: bytes) -> None:
    with pytest.raises(JudgeStopped, match=PROMPTS):
        prompt_version(MemoryFiles({PROMPTS: note}))
