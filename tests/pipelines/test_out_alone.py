"""`--out OUT` alone continues with what was begun there, and what is told besides is compared."""

from __future__ import annotations

import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nextscene.common.fence import LOCK
from nextscene.common.hashing import file_sha256
from nextscene.common.lease import Holder
from nextscene.common.storage import Storage
from nextscene.curation.config import LEGACY_VALUES
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.run.prepare import prepare
from nextscene.curation.run.recorded_budget import RecordedBudget, record_budget
from nextscene.curation.sealing.retry import OpenRetry
from nextscene.curation.sources import Source
from nextscene.pipelines import show
from nextscene.pipelines.cli.begun_dataset import BegunDataset
from nextscene.shards.format.checksums import update_checksum
from nextscene.shards.format.layout import CONFIG, PLAN, TERMS
from nextscene.shards.format.receipt import sealed_shards
from tests.command import SMALL_FLAGS
from tests.fakes.claude_api import AnswerRules, ClaudeApi
from tests.fakes.loopback import CLAUDE, CLAUDE_FLAGS, account, judge_budget, spans, stored
from tests.fakes.without_ray import build, command
from tests.support import SMALL, assert_same_clips, build_inline, captioned_spans, ledger

OTHERS = ("--rules.min-width", "64", "--rules.min-height", "48", "--encode.width", "64", "--encode.height", "48")


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("inline")]


def recorded(out: Path) -> RecordedConfig:
    found = RecordedConfig.read(Storage.at(out))
    assert found is not None
    return found


def look(out: Path) -> str:
    result = CliRunner().invoke(show.main, [str(out)])
    assert result.exit_code == 0, result.output
    return result.stdout


def publish(of: RecordedConfig, out: Path, identity_settings: dict[str, Any], config: dict[str, Any]) -> None:
    """A `config.toml` as another version would have written it, with its line in SHA256SUMS."""
    place = Storage.at(out)
    RecordedConfig(identity_settings, of.source, of.plan_sha256, config, of.begun_with_cut).publish(place)
    update_checksum(place, CONFIG, file_sha256(place, CONFIG))


def as_before_a_setting(out: Path, *names: str) -> None:
    """As a version wrote it that did not have these settings."""
    of = recorded(out)
    config = json.loads(json.dumps(of.config))
    for name in names:
        table, _, leaf = name.partition(".")
        del config[table][leaf]
    publish(of, out, {name: value for name, value in of.identity_settings.items() if name not in names}, config)


def test_out_alone_goes_on_with_source_settings_and_limits(tmp_path: Path) -> None:
    """The settings come from flags and a file; every way of asking knows them."""
    source, out, whole = captioned_spans(tmp_path / "in", 6, size="64x48"), tmp_path / "out", tmp_path / "whole"
    (tmp_path / "my.toml").write_text("unit_size = 2\nunits_per_shard = 2\n[limits]\nclip_seconds = 77.0\n")
    settings = ("--judge", "none", "--test", "0", *OTHERS, "--config", tmp_path / "my.toml")
    build("--source", source, "--out", out, *settings, "--stop-after", "2")
    assert len(ledger(out)) == 2
    said = build("--out", out, "--status")
    assert "2 of 6 decided" in said and f"next      python pipelines/build_nsp.py --out {out}\n" in said

    said = build("--out", out, "--stop-after", "2")
    assert len(ledger(out)) == 4
    assert f"next      python pipelines/build_nsp.py --out {out}  # for the 2 clips left" in said
    build("--out", out)
    build("--source", source, "--out", whole, *settings)
    assert_same_clips(out, whole)
    assert recorded(out).config["limits"]["clip_seconds"] == 77.0
    assert "The dataset is whole" in build("--out", out, "--verify")
    assert build("--out", out, "--limits.clip-seconds", "5").startswith("Nothing to do")
    # A file of settings that lacks some does not change those.
    (tmp_path / "less.toml").write_text("unit_size = 2\n")
    assert build("--out", out, "--config", tmp_path / "less.toml").startswith("Nothing to do")
    (tmp_path / "other.toml").write_text("unit_size = 3\n")
    assert "unit_size is 3, was 2" in command("--out", out, "--config", tmp_path / "other.toml").stderr


def test_a_default_that_is_given_is_told_from_one_that_is_not(tmp_path: Path) -> None:
    source, out = captioned_spans(tmp_path, 2, size="64x48"), tmp_path / "out"
    build("--source", source, "--out", out, *SMALL_FLAGS, *OTHERS)
    assert build("--out", out).startswith("Nothing to do")
    ended = command("--out", out, "--rules.min-width", "832")
    assert ended.exit_code == 2 and "rules.min_width is 832, was 64." in ended.stderr


def test_without_a_plan_the_source_is_to_be_given(tmp_path: Path) -> None:
    ended = command("--out", tmp_path / "out")
    assert ended.exit_code == 2 and "--source is missing, and" in ended.stderr and "holds no plan yet" in ended.stderr
    source, out = captioned_spans(tmp_path, 2, size="64x48"), tmp_path / "out"
    build("--source", source, "--out", out, *SMALL_FLAGS, *OTHERS)
    (out / CONFIG).rename(tmp_path / CONFIG)
    assert f"has lost its {CONFIG}" in command("--out", out).stderr
    (out / CONFIG).write_bytes(b"")
    ended = command("--out", out)
    assert ended.exit_code == 2 and "is damaged" in ended.stderr and "give the command" in ended.stderr


# ---- what is paid ----------------------------------------------------------------------------------------------


def test_the_recorded_budget_holds_and_is_shown_before_the_first_question(
    api: ClaudeApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api.rules = AnswerRules(thinking_tokens=900)
    source, out = spans(tmp_path, [f"thing {number:02d}" for number in range(5)]), tmp_path / "out"
    given = ("--source", source, "--out", out, *CLAUDE_FLAGS)
    assert command(*given, "--budget-usd", "0.03").exit_code == 3
    spent, asked = account(out).spent, len(api.exchanges)
    caplog.clear()
    assert command("--out", out).exit_code == 3
    assert account(out).spent <= account(out).allowance and float(account(out).spent) <= 0.03
    first = caplog.messages[0]
    assert first == f"claude-sonnet-5-5 is asked, one by one, up to $0.03 in all; ${spent:,.4f} is spent"
    assert len(api.exchanges) - asked < 5
    assert "clips to be decided" in build("--out", out, "--estimate")

    caplog.clear()
    build("--out", out, "--budget-usd", "5")
    assert "up to $5 in all" in caplog.messages[0]
    assert RecordedBudget.read(Storage.at(out)) == RecordedBudget(Decimal(5), plan_sha256=recorded(out).plan_sha256)
    assert len(api.paid) == len(set(api.paid)) == len(stored(out))
    caplog.clear()
    assert build("--out", out).startswith("Nothing to do")
    assert caplog.messages == []


def test_batches_are_kept_too_and_may_be_left(api: ClaudeApi, tmp_path: Path) -> None:
    source, out = spans(tmp_path, ["thing a", "thing b"]), tmp_path / "out"
    build("--source", source, "--out", out, *CLAUDE_FLAGS, "--stop-after", "1")
    plan = recorded(out).plan_sha256
    assert RecordedBudget.read(Storage.at(out)) == RecordedBudget(plan_sha256=plan)
    record_budget(Storage.at(out), judge_budget("5", in_batches=True), plan)
    begun = BegunDataset.at(Storage.at(out))
    for given, then in ((None, True), (False, False), (True, True)):
        found = begun.judge_budget(CLAUDE, None, given, "mistake", None).judge_budget
        assert found and (found.in_batches, found.budget) == (then, 5)
    build("--out", out, "--no-batches")
    assert api.batches == [] and RecordedBudget.read(Storage.at(out)) == RecordedBudget(Decimal(5), plan_sha256=plan)


@pytest.mark.parametrize("flag", ["--caption-missing", "--skip-uncaptioned"])
def test_a_plan_that_is_lost_is_had_again_without_the_flag_it_was_made_with(
    api: ClaudeApi, flag: str, tmp_path: Path
) -> None:
    source, out = spans(tmp_path, ["one", "", "three"]), tmp_path / "out"
    build("--source", source, "--out", out, *CLAUDE_FLAGS, flag, "--stop-after", "1")
    plan = (out / PLAN).read_bytes()
    (out / PLAN).unlink()
    build("--out", out)
    assert (out / PLAN).read_bytes() == plan
    assert [row.outcome for row in ledger(out, CLAUDE)].count("kept") == (3 if flag == "--caption-missing" else 2)


@pytest.mark.parametrize("note", [b"", b"[]", b'{"budget_usd": "-1", "batches": false}', b'{"budget_usd": "x"}'])
def test_a_damaged_note_of_the_budget_is_told_and_nothing_is_spent(api: ClaudeApi, tmp_path: Path, note: bytes) -> None:
    source, out = spans(tmp_path, ["thing a", "thing b"]), tmp_path / "out"
    build("--source", source, "--out", out, *CLAUDE_FLAGS, "--stop-after", "1")
    (out / TERMS).write_bytes(note)
    asked = len(api.exchanges)
    ended = command("--out", out)
    assert ended.exit_code == 2 and f"{TERMS} is damaged" in ended.stderr and "--budget-usd" in ended.stderr
    assert len(api.exchanges) == asked


# ---- a retry that is open, a run at work -----------------------------------------------------------------------


def retries_told(said: str) -> list[str]:
    return [line.split()[line.split().index("--retry") + 1] for line in said.splitlines() if "--retry" in line]


@pytest.fixture
def ended(api: ClaudeApi, tmp_path: Path) -> Path:
    """A finished OUT under claude, with a clip that a retry may ask about anew."""
    source, out = spans(tmp_path, ["thing a", "thing b REFUSE-VERIFY"]), tmp_path / "out"
    build("--source", source, "--out", out, *CLAUDE_FLAGS)
    return out


def test_an_unfinished_retry_is_what_is_advised_and_it_goes_on(ended: Path) -> None:
    assert retries_told(build("--out", ended)) == retries_told(look(ended)) == ["refused"]
    assert "to ask about 1 clip once more" in look(ended)
    place = Storage.at(ended)
    OpenRetry(frozenset({"dropped", "refused"}), tuple(sealed_shards(place).values())).publish(place)
    said = build("--out", ended)
    assert said.startswith("Nothing to do but the unfinished --retry dropped,refused: every clip")
    assert retries_told(said.partition("\n")[2]) == retries_told(look(ended)) == ["dropped,refused"]
    estimated = build("--out", ended, "--estimate")
    assert "0 clips to be decided" in estimated
    assert "retry     --retry dropped,refused is not finished: 1 clip in 1 shard is left, not counted here" in estimated
    assert retries_told(build("--out", ended, "--retry", "dropped,refused")) == ["refused"]
    assert "retry " not in build("--out", ended, "--estimate")


def test_a_retry_that_the_build_would_refuse_is_not_advised(ended: Path) -> None:
    """As an older version of the cut would have finished it."""
    of = recorded(ended)
    publish(
        of, ended, {name: value for name, value in of.identity_settings.items() if name != "cut_version"}, of.config
    )
    assert command("--out", ended, "--retry", "refused").exit_code == 2
    assert retries_told(build("--out", ended)) == retries_told(look(ended)) == []


def test_to_verify_while_a_run_is_at_work_says_so_first(tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_inline(captioned_spans(tmp_path, 2, size="64x48"), out, SMALL)
    (out / "SHA256SUMS").unlink()
    assert not build("--out", out, "--verify", code=1).startswith("A run is at work")
    me = Holder.me("20260101T000000-abcdef")
    (out / LOCK).write_bytes(me.to_bytes())
    first, second, *_ = build("--out", out, "--verify", code=1).splitlines()
    assert first.startswith(f"A run is at work there: 20260101T000000-abcdef on {me.host}, process {me.pid}.")
    assert "SHA256SUMS is missing" in second


@pytest.mark.parametrize("text", ["", ",", " , "])
def test_a_retry_of_nothing_is_wrong_usage(text: str, tmp_path: Path) -> None:
    build_inline(captioned_spans(tmp_path, 1, size="64x48"), tmp_path / "out", SMALL)
    for more in ((), ("--estimate",), ("--status",), ("--verify",)):
        result = command("--out", tmp_path / "out", "--retry", text, *more)
        assert (result.exit_code, result.stdout) == (2, "") and "--retry" in result.stderr


def test_the_record_of_a_dataset_is_not_taken_for_settings(tmp_path: Path) -> None:
    source, out = captioned_spans(tmp_path, 1, size="64x48"), tmp_path / "out"
    build_inline(source, out, SMALL)
    for other in (out, tmp_path / "new"):
        result = command("--source", source, "--out", other, "--config", out / CONFIG)
        (line,) = result.stderr.splitlines()
        assert result.exit_code == 2 and "is the record of a dataset; leave --config out, --out knows it" in line


# ---- what differs ----------------------------------------------------------------------------------------------


def test_another_judge_is_told_first_and_what_follows_from_it_is_not(
    api: ClaudeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = spans(tmp_path, ["thing a", "thing b"]), tmp_path / "out"
    build("--source", source, "--out", out, *CLAUDE_FLAGS)
    same = ("--source", source, "--out", out)

    def differences(*given: object) -> str:
        ended = command(*given)
        assert ended.exit_code == 2 and "holds another plan: " in ended.stderr
        return ended.stderr.partition("holds another plan: ")[2].partition(". ")[0]

    assert differences(*same, "--judge", "film") == "judge is film, was claude"
    other = shutil.copytree(
        tmp_path / "in" if (tmp_path / "in").exists() else source.parent,
        tmp_path / "other",
        ignore=shutil.ignore_patterns("out", "other"),
    )
    told = differences("--source", other / "clips.csv", "--out", out, "--encode.crf", "20", "--judge", "film")
    assert told == f"source is {other / 'clips.csv'}, was {source}; judge is film, was claude; encode.crf is 20, was 18"
    monkeypatch.setattr("nextscene.common.ffmpeg.build", lambda: "another")
    assert differences(*same, "--encode.crf", "20").startswith("encode.crf is 20, was 18; ffmpeg is another, was ")
    assert "Install the imageio-ffmpeg" in command(*same).stderr


def test_an_estimate_by_another_judge_and_other_prompts_show_no_hashes(
    api: ClaudeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out, film = spans(tmp_path, ["thing a", "thing b"]), tmp_path / "out", tmp_path / "film"
    build("--source", source, "--out", film, *SMALL_FLAGS)
    ended = command("--out", film, "--judge", "claude", "--estimate")
    assert ended.exit_code == 2
    assert ended.stderr.partition("another plan: ")[2].partition(". ")[0] == "judge is claude, was none"

    build("--source", source, "--out", out, *CLAUDE_FLAGS)
    of = recorded(out)
    publish(of, out, of.identity_settings | {"prompts.retry": "0" * 64, "prompts.caption": "1" * 64}, of.config)
    ended = command("--out", out)
    assert ended.exit_code == 2 and "0000" not in ended.stderr
    assert "another plan: the prompts caption, retry are those of another version. Use the version" in ended.stderr


# ---- other versions --------------------------------------------------------------------------------------------


def test_a_setting_that_is_new_keeps_the_old_behavior_in_an_old_out(
    api: ClaudeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a rule were new: an OUT from before tolerated 3 damaged frames, a new one by default none."""
    monkeypatch.setitem(LEGACY_VALUES, "rules.max_damaged_frames", 3)
    source, out, whole = spans(tmp_path, [f"thing {number}" for number in range(3)]), tmp_path / "out", tmp_path / "new"
    new = ("--source", source, *CLAUDE_FLAGS)
    old = (*new, "--rules.max-damaged-frames", "3")
    build(*old, "--out", out, "--stop-after", "1")
    build(*old, "--out", whole)
    fingerprint, asked = recorded(out).fingerprint, sorted(stored(out))
    assert "rules.max_damaged_frames" not in recorded(out).identity_settings
    as_before_a_setting(out, "rules.max_damaged_frames")
    assert recorded(out).fingerprint == fingerprint == recorded(whole).fingerprint
    assert recorded(out).settings["rules.max_damaged_frames"] == 3

    ended = command(*new, "--out", out, "--rules.max-damaged-frames", "0")
    assert ended.exit_code == 2 and "rules.max_damaged_frames is 0, was 3" in ended.stderr
    before = {answer.request_id for answer in stored(out).values()}
    build(*new, "--out", out)
    assert recorded(out).fingerprint == fingerprint
    assert before <= {answer.request_id for answer in stored(out).values()} and set(asked) <= set(stored(out))
    assert all(api.paid.count(digest) == 2 for digest in api.paid), "once for each OUT"
    assert_same_clips(out, whole, CLAUDE)
    assert "The dataset is whole" in build("--out", out, "--verify")
    assert build("--out", out).startswith("Nothing to do")

    today = prepare(Storage.at(tmp_path / "today"), Source.at(str(source)), CLAUDE)
    assert today.identity_settings["rules.max_damaged_frames"] == 0 and today.fingerprint != fingerprint


def test_a_setting_that_an_out_does_not_know_is_as_it_was_before(tmp_path: Path) -> None:
    source, out = captioned_spans(tmp_path, 2, size="64x48"), tmp_path / "out"
    build("--source", source, "--out", out, *SMALL_FLAGS, *OTHERS)
    as_before_a_setting(out, "rules.hdr", "rules.max_damaged_frames")
    assert recorded(out).settings["rules.hdr"] == "convert"
    assert build("--out", out).startswith("Nothing to do")
    assert "rules.hdr is reject, was convert" in command("--out", out, "--rules.hdr", "reject").stderr


@pytest.mark.parametrize("asking", [(), ("--verify",), ("--status",), ("--retry", "failed")])
def test_an_out_of_a_newer_version_is_refused_by_one_line(asking: tuple[str, ...], tmp_path: Path) -> None:
    source, out = captioned_spans(tmp_path, 2, size="64x48"), tmp_path / "out"
    build_inline(source, out, SMALL)
    of = recorded(out)
    newer = {**of.config, "rules": {**of.config["rules"], "max_blur": 0.5}}
    for identity_settings, config, word in (
        (of.identity_settings | {"rules.max_blur": 0.5}, newer, "rules.max_blur"),
        (of.identity_settings | {"schema_version": 99}, of.config, "schema_version 99"),
        (of.identity_settings | {"judge": "oracle"}, {**of.config, "judge": "oracle"}, "judge = 'oracle'"),
    ):
        publish(of, out, identity_settings, config)
        ended = command("--out", out, *asking)
        (line,) = ended.stderr.splitlines()
        assert ended.exit_code == 2 and word in line and "version or a newer one" in line


# The settings that every OUT has told since it had settings. One that is newer says in BEFORE what was before it.
FIRST = """
judge resolution test split_by unit_size units_per_shard rules.min_width rules.min_height rules.min_image_side
encode.width encode.height encode.image_side encode.fps encode.max_frames encode.gop encode.crf encode.preset
film.max_overlap claude.model claude.effort claude.rounds claude.max_tokens claude.frames claude.frame_height
""".split()
HAD_THEIR_DEFAULT = {"rules.hdr", "rules.max_damaged_frames"}


def test_every_setting_that_came_later_says_what_was_before_it() -> None:
    from nextscene.common.config_loader import flat
    from nextscene.curation.config import BuildConfig

    later = {name for name in flat(BuildConfig()) if not name.startswith("limits.")} - {*FIRST} - HAD_THEIR_DEFAULT
    assert later == {name for name in LEGACY_VALUES if name != "cut_version"}


# ---- what goes together ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        ("--verify", "--retry", "failed"),
        ("--status", "--retry", "failed"),
        ("--verify", "--stop-after", "3"),
        ("--status", "--estimate"),
        ("--status", "--verify"),
        ("--verify", "--assume", "pass_rate=1"),
        ("--assume", "pass_rate=1"),
    ],
)
def test_what_would_be_left_undone_beside_another_flag_is_refused(given: tuple[str, ...], tmp_path: Path) -> None:
    build_inline(captioned_spans(tmp_path, 1, size="64x48"), tmp_path / "out", SMALL)
    ended = command("--out", tmp_path / "out", *given)
    (line,) = ended.stderr.splitlines()
    assert ended.exit_code == 2 and "leave" in line and [flag for flag in given if flag.startswith("--")][-1] in line
