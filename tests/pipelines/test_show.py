"""`show.py`: what it prints is what there is, harmless to a terminal, and whole where nobody looks."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given

from nextscene.common.storage import StorageFault
from nextscene.pipelines.show import main, visible
from nextscene.shards.format.layout import ShardName
from tests.fakes.claude_api import ClaudeApi
from tests.fakes.loopback import CLAUDE, calls, judge_budget, spans, stored
from tests.shards.samples import sample, sample_of, seal_dataset, texts
from tests.support import SMALL, build_inline, ledger, make_video, write_csv

HOSTILE = "a [bold red]caption[/] :smile: \x1b]0;title\x07\x1b[2J \x9b31m\x7f\rover\u202egnp\nline \\[x]"
"""Markup, an emoji code, escape sequences, a delete, a carriage return, reversed text, a second line."""
LONG = "long " * 700


def run(*arguments: object, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command; it must end by itself, not by an exception."""
    result = CliRunner(env=env).invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.stdout, result.stderr


def shown(*arguments: object, env: dict[str, str] | None = None) -> str:
    code, stdout, stderr = run(*arguments, env=env)
    assert (code, stderr) == (0, "")
    return stdout


def told(*arguments: object) -> Any:
    return json.loads(shown(*arguments, "--json"))


def refused(code: int, *arguments: object) -> str:
    """The one line on stderr, and after a stop how to continue; nothing on stdout."""
    ended, stdout, stderr = run(*arguments)
    assert (ended, stdout) == (code, ""), stderr
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == (2 if code == 3 else 1)
    return stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips: one of a hostile caption, one of a long one, one that does not exist."""
    folder = tmp_path_factory.mktemp("show")
    make_video(folder / "film.mp4", 1.0)
    rows = [("0", "0.5", HOSTILE.replace("\n", " ")), ("0.5", "1", LONG), ("50", "51", "behind the end")]
    named = [{"video": "film.mp4", "start": start, "end": end, "caption": text} for start, end, text in rows]
    build_inline(write_csv(folder / "clips.csv", named), folder / "out", SMALL)
    return folder / "out"


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(built, tmp_path / "out"))


# ---- what is shown ---------------------------------------------------------------------------------------------


def test_the_dataset_is_shown_with_what_it_came_to_and_what_to_run_next(built: Path) -> None:
    said = shown(built)
    for line in ("clips     3 of 3 decided", "          kept 2", "          rejected span_outside 1"):
        assert f"{line}\n" in said
    assert "train     2 samples in 1 shard, " in said
    assert f"next      python pipelines/build_nsp.py --out {built} --verify\n" in said


def test_the_commands_to_run_next_can_be_run(built: Path) -> None:
    [clip] = [line.split() for line in shown(built).splitlines() if "show.py" in line]
    assert shown(*clip[3:]).startswith(f"clip      {clip[-1]}\n")


def test_a_clip_is_shown_with_all_that_the_ledger_says_of_it(built: Path) -> None:
    for row in ledger(built):
        value = told(built, row.clip_id[:10])
        raw = vars(row) | {}
        del raw["turned_down"], raw["calls"]
        assert (value["kind"], value["clip_id"], value["ledger"]) == ("clip", row.clip_id, raw)
        said = shown(built, row.clip_id)
        assert f"outcome   {row.outcome}" in said
        assert row.detail in said
        assert ("sample    " in said) == row.kept


def test_a_shard_is_shown_by_its_name_and_by_its_path(built: Path) -> None:
    ways = ["train/nsp-000000", "shards/train/000/nsp-000000.tar", built / "shards/train/000/nsp-000000.tar"]
    assert len({shown(built, way) for way in ways}) == 1
    value = told(built, ways[0])
    assert value["kind"] == "shard"
    assert [one["clip_id"] for one in value["not_kept"]] == [r.clip_id for r in ledger(built) if not r.kept]
    assert [one["key"] for one in value["samples"]] == [row.clip_id for row in ledger(built) if row.kept]


def test_elsewhere_than_on_a_terminal_nothing_is_cut(built: Path) -> None:
    [line] = [line for line in shown(built, "train/nsp-000000").splitlines() if "long long" in line]
    assert line.endswith(LONG.rstrip())


def test_on_a_terminal_a_table_is_cut_to_its_width(built: Path) -> None:
    said = shown(built, "train/nsp-000000", env={"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "90"})
    table = said[said.index("key ") :].splitlines()
    assert max(map(len, table)) == 90
    assert sum(line.endswith("…") for line in table) >= 2


def test_without_plan_and_ledger_it_shows_the_rest_and_says_what_is_not_there(out: Path) -> None:
    rows = [row for row in ledger(out) if row.kept]
    for name in ("config.toml", "plan.parquet", "summary.json"):
        (out / name).unlink()
    shutil.rmtree(out / "ledger")
    for what in ("", "train/nsp-000000", rows[0].clip_id[:6]):
        said = shown(out, what) if what else shown(out)
        assert "not here  config.toml, plan.parquet, ledger: " in said
    said = shown(out, rows[1].clip_id)
    assert f"caption   {LONG.strip()}\n" in said
    assert "source_height 480\n" in said


# ---- data that would like to be more ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published dataset every text of which is hostile."""
    plain = sample(1)
    fields = {name: HOSTILE for name, value in vars(plain.record).items() if value == "" or name in ("source", "judge")}
    record = type(plain.record)(**{**vars(plain.record), **fields})
    folder = tmp_path_factory.mktemp("hostile")
    seal_dataset(folder, {ShardName("train", 0): [sample_of(record, plain.media, HOSTILE)]})
    return folder


@pytest.mark.parametrize("what", [[], ["train/nsp-000000"], [sample(1).key]])
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_no_text_of_the_data_steers_the_terminal(hostile: Path, what: list[str], flags: list[str]) -> None:
    said = shown(hostile, *what, *flags)
    assert {letter for letter in said if unicodedata.category(letter) in ("Cc", "Cf")} <= {"\n"}
    if not flags:
        assert "a [bold red]caption[/] :smile: \\x1b]0;title\\x07" in said


def test_hostile_text_comes_back_whole_from_json(hostile: Path) -> None:
    assert told(hostile, sample(1).key)["sample"]["text"] == HOSTILE


def test_a_caption_from_the_ledger_is_as_harmless(built: Path) -> None:
    said = shown(built, ledger(built)[0].clip_id) + shown(built, "train/nsp-000000")
    assert {letter for letter in said if unicodedata.category(letter) in ("Cc", "Cf")} == {"\n"}
    assert said.count("a [bold red]caption[/] :smile: \\x1b]0;title\\x07") >= 3


@given(texts)
def test_visible_text_holds_nothing_invisible_and_keeps_what_is_plain(text: str) -> None:
    seen = visible(text)
    categories = {unicodedata.category(letter) for letter in seen if letter not in "\u200c\u200d"}
    assert not categories & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    plain = "".join(letter for letter in text if letter.isprintable())
    assert visible(plain) == plain


# ---- taking out ------------------------------------------------------------------------------------------------


def test_the_members_of_a_clip_are_written_beside_what_is_shown(built: Path, tmp_path: Path) -> None:
    clip = ledger(built)[0]
    code, stdout, stderr = run(built, clip.clip_id, "--extract", tmp_path / "new", "--json")
    assert (code, stderr) == (0, f"3 files written into {tmp_path / 'new'}\n")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        f"{clip.clip_id}.{m}" for m in ("json", "mp4", "txt")
    }
    assert json.loads((tmp_path / "new" / f"{clip.clip_id}.json").read_text()) == json.loads(stdout)["sample"]["record"]


def test_nothing_is_overwritten(built: Path, tmp_path: Path) -> None:
    clip = ledger(built)[0].clip_id
    (tmp_path / f"{clip}.mp4").write_text("mine")
    assert f"{clip}.mp4 is there already" in refused(2, built, clip, "--extract", tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


# ---- by name ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of equal names in two folders, a film of two spans, one of which has an `id` of its own."""
    folder = tmp_path_factory.mktemp("named")
    for name in ("one/a.mp4", "two/a.mp4", "two/b.mp4", "film.mp4"):
        make_video(folder / name, 0.5, "64x48")
    rows = [{"video": name, "caption": name} for name in ("one/a.mp4", "two/a.mp4", "two/b.mp4")]
    rows += [{"video": "film.mp4", "start": "0", "end": "0.25", "caption": "x", "id": "abcdef"}]
    rows += [{"video": "film.mp4", "start": "0.25", "end": "0.5", "caption": "y"}]
    build_inline(write_csv(folder / "clips.csv", rows), folder / "out", SMALL)
    return folder / "out"


@pytest.mark.parametrize("without", [(), ("plan.parquet",)])
def test_a_clip_is_found_by_its_file_and_by_the_last_part_of_its_name(
    without: tuple[str, ...], named: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(named, tmp_path / "out", ignore=shutil.ignore_patterns(*without))
    ids = {(row.source, row.start_ms): row.clip_id for row in ledger(out)}
    assert told(out, "one/a.mp4")["clip_id"] == ids["one/a.mp4", 0]
    assert told(out, "b.mp4")["clip_id"] == told(out, "two/b.mp4")["clip_id"] == ids["two/b.mp4", 0]
    for name, spans_of in (
        ("a.mp4", ("one/a.mp4", "two/a.mp4")),
        ("film.mp4", ("film.mp4 0–0.25 s", "film.mp4 0.25–0.5 s")),
    ):
        line = refused(2, out, name)
        assert f"2 clips are called {name}; give the id of one of them: " in line
        assert all(f"({span})" in line for span in spans_of)
        assert sum(clip_id in line for clip_id in ids.values()) == 2
    if not without:
        assert told(out, "abcdef")["clip_id"] == ids["film.mp4", 0], "the manifest's own id"
    assert "neither a clip id" in refused(2, out, "4.mp4")
    assert "neither a clip id" in refused(2, out, "/b.mp4")


@pytest.mark.parametrize("without", [(), ("plan.parquet",)])
def test_a_clip_is_found_by_its_file_without_the_suffix(tmp_path: Path, without: tuple[str, ...]) -> None:
    """A file of exactly this name goes first; several are listed."""
    folder, out = tmp_path / "in", tmp_path / "out"
    for name in ("deep/v05.mp4", "v06.mp4", "v06.mkv", "v07.0.mp4", "w.mp4", "w"):
        make_video(folder / f"{name}.mp4", 0.25, "64x48").rename(folder / name)
    rows = [{"video": path.relative_to(folder), "caption": "x"} for path in sorted(folder.rglob("*")) if path.is_file()]
    build_inline(write_csv(folder / "clips.csv", rows), out, SMALL)
    for name in without:
        (out / name).unlink()
    ids = {row.source: row.clip_id for row in ledger(out)}
    ways = {"v05": "deep/v05.mp4", "deep/v05": "deep/v05.mp4", "v07.0": "v07.0.mp4", "w": "w"}
    assert {way: told(out, way)["clip_id"] for way in ways} == {way: ids[name] for way, name in ways.items()}
    line = refused(2, out, "v06")
    assert "2 clips are called v06; give the id of one of them: " in line
    assert all(f"{ids[name]} ({name}" in line for name in ("v06.mp4", "v06.mkv"))
    assert "'v0' is neither a clip id (at least 6 letters of it), nor a clip's file" in refused(2, out, "v0")


def test_the_clips_of_an_outcome_or_a_reason_are_listed(built: Path) -> None:
    rows = ledger(built)
    for wanted in {word for row in rows for word in (row.outcome, row.reason) if word}:
        ended = [row.clip_id for row in rows if wanted in (row.outcome, row.reason)]
        found = told(built, wanted)
        assert (found["kind"], found["count"], [clip["clip_id"] for clip in found["clips"]]) == (
            "ended",
            len(ended),
            ended,
        )
        assert all(clip_id in shown(built, wanted) for clip_id in ended)
    assert shown(built, "refused") == "clips     0 ended as refused\n"
    assert "'no_captoin' is neither" in refused(2, built, "no_captoin")


def test_a_clip_is_found_by_its_path_and_by_either_unicode_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    nfc, nfd = (unicodedata.normalize(form, "é.mp4") for form in ("NFC", "NFD"))
    for name in ("deep/b.mp4", f"deep/{nfc}", "one.mp4"):
        make_video(folder / name, 0.25, "64x48").with_suffix(".txt").write_text("words")
    build_inline(folder, out, SMALL)
    ids = {row.source: row.clip_id for row in ledger(out)}
    (tmp_path / "link").symlink_to(folder)
    ways = {
        "deep/b.mp4": ["./deep/b.mp4", "deep/../deep/b.mp4", folder / "deep/b.mp4", tmp_path / "link/deep/b.mp4"],
        f"deep/{nfc}": [nfd, f"./deep/{nfd}", folder / "deep" / nfd, folder / "deep" / nfc],
        "one.mp4": ["./one.mp4", folder / "one.mp4"],
    }
    for name, written in ways.items():
        assert [told(out, way)["clip_id"] for way in written] == [ids[name]] * len(written)
    monkeypatch.chdir(folder / "deep")
    assert told(out, "../one.mp4")["clip_id"] == ids["one.mp4"]
    for other in (tmp_path / "other" / "one.mp4", "./two.mp4", "\udcff.mp4"):
        assert "neither a clip id" in refused(2, out, other)


def test_what_is_not_kept_is_shown_with_its_file(built: Path, named: Path) -> None:
    said = shown(named, "train/nsp-000000")
    heading = next(line for line in said.splitlines() if line.startswith("not kept"))
    assert heading.split() == ["not", "kept", "file", "outcome", "reason", "detail"]
    for row in ledger(named)[:4]:
        assert f"{row.clip_id}  {row.source}" in said
    assert "film.mp4 50–51 s  rejected  span_outside" in shown(built, "train/nsp-000000")


# ---- errors ----------------------------------------------------------------------------------------------------


def test_wrong_usage_is_one_line_that_says_what_there_is(built: Path, tmp_path: Path) -> None:
    dropped = ledger(built)[2].clip_id
    assert "holds no dataset" in refused(2, tmp_path)
    assert "holds no dataset" in refused(2, tmp_path / "nowhere")
    assert "at least 6 letters" in refused(2, built, "abc")
    assert "no clip has the id abcdefabcdef" in refused(2, built, "abcdefabcdef")
    assert "no shard train/nsp-000009, but train/nsp-000000" in refused(2, built, "train/nsp-000009")
    assert "neither a clip id" in refused(2, built, "What is this?")
    assert "is not in" in refused(2, built, tmp_path / "shards/train/000/nsp-000000.tar")
    assert "name one" in refused(2, built, "--extract", tmp_path / "new")
    assert "no sample of it" in refused(2, built, dropped, "--extract", tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_sample_is_shown_and_told_and_not_taken_out(out: Path, tmp_path: Path) -> None:
    path = out / "shards/train/000/nsp-000000.tar"
    data = bytearray(path.read_bytes())
    data[data.index(b"mdat") + 100] ^= 1
    path.write_bytes(data)
    first, second, _ = (row.clip_id for row in ledger(out))
    for what in (first, "train/nsp-000000"):
        code, stdout, stderr = run(out, what, "--extract", tmp_path / "new")
        assert code == 1
        assert f"{first!r}: its contents are not those that were sealed" in stdout
        assert stderr.startswith("error: ") and "damaged" in stderr and first in stderr
    assert not (tmp_path / "new").exists()
    shown(out, second)
    assert first in shown(out)


@pytest.mark.parametrize("name", ["plan.parquet", "manifest.json", "ledger/train/000/nsp-000000.parquet"])
def test_damaged_records_are_named(out: Path, name: str) -> None:
    (out / name).write_bytes((out / name).read_bytes()[:100])
    assert name in refused(1, out, ledger(out)[0].clip_id if "ledger" not in name else "train/nsp-000000")


def test_a_storage_that_fails_has_an_exit_code_of_its_own(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StorageFault("cannot read manifest.json in s3://away: \x1b[31mthe network is down")

    monkeypatch.setattr("nextscene.common.storage.Storage.read", fail)
    assert "\\x1b[31mthe network is down" in refused(3, built)


# ---- asked of a model ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("asked")
    markers = ["", "FAIL2", "FAIL3", "REFUSE-VERIFY"]
    source = spans(folder, [f"clip {number} shows a thing {marker}" for number, marker in enumerate(markers)])
    with ClaudeApi() as api, pytest.MonkeyPatch.context() as patch:
        patch.setattr("nextscene.judge.spending.cached_client._STORE_SECONDS", 0.02)
        for name, value in api.env.items():
            patch.setenv(name, value)
        build_inline(source, folder / "out", CLAUDE, judge_budget=judge_budget())
        yield folder / "out"


@pytest.mark.slow
def test_every_round_is_shown_with_what_was_turned_down_and_why(asked: Path) -> None:
    passed, failed_twice, dropped, declined = ledger(asked, CLAUDE)
    verdicts = [[one["verdict"] for one in told(asked, row.clip_id)["rounds"]] for row in ledger(asked, CLAUDE)]
    assert verdicts == [["Pass"], ["Fail", "Fail", "Pass"], ["Fail"] * 3, []]
    said = shown(asked, failed_twice.clip_id)
    for attempt in json.loads(failed_twice.turned_down):
        assert f"Fail: {attempt['scene']}\n          {attempt['reason']}\n" in said
    assert f"round 3   Pass: {failed_twice.scene_description}\n          {failed_twice.verdict_reason}\n" in said
    assert f"verdict   Pass in round 3, by {failed_twice.judge_model} (claude)\n" in said
    assert f"outcome   dropped no_pass: {dropped.detail}\n" in shown(asked, dropped.clip_id)
    assert f"outcome   refused {declined.reason}: {declined.detail}\n" in shown(asked, declined.clip_id)
    assert passed.prompt_sha256 in shown(asked, passed.clip_id)


@pytest.mark.slow
def test_every_paid_call_is_shown_with_its_price_and_its_stored_answer(asked: Path) -> None:
    answers = stored(asked)
    for row in ledger(asked, CLAUDE):
        value = told(asked, row.clip_id)
        assert [
            {**call, "answer": answers[call["key"]].text, "explanation": answers[call["key"]].explanation}
            for call in calls(row)
        ] == value["calls"]
        lines = [line for line in shown(asked, row.clip_id).splitlines() if line.startswith(("describe ", "verify "))]
        assert [line.split()[0] for line in lines] == [call["task"] for call in calls(row)]
        assert sum(Decimal(line.split()[5]) for line in lines) == sum(Decimal(call["usd"]) for call in calls(row))


@pytest.mark.slow
def test_without_the_stored_answers_the_calls_are_shown_and_the_answers_missed(asked: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(asked, tmp_path / "copy", ignore=shutil.ignore_patterns("calls")))
    for row in ledger(copy, CLAUDE):
        assert told(copy, row.clip_id)["calls"] == calls(row)
        assert "not here  calls: " in shown(copy, row.clip_id)


@pytest.mark.slow
def test_a_glance_says_what_was_paid(asked: Path) -> None:
    answers = stored(asked).values()
    spent = sum(answer.usd for answer in answers)
    assert f"spent     ${spent:,.4f} for {len(answers)} answers\n" in shown(asked)
