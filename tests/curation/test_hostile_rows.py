"""One row never stops the run: whatever strangers write, each clip has its own end, and its neighbors are whole."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.curation.ledger import Row
from nextscene.curation.media.probe import Measured
from nextscene.curation.outcome import ClipOutcome
from nextscene.curation.plan import PlannedClip
from nextscene.curation.report.cards import make_card
from nextscene.curation.report.filmstrips import Filmstrip
from nextscene.curation.run.crash_counts import CrashCounts
from nextscene.curation.sources import Clip, SkippedFiles, Source
from nextscene.curation.stages import clip_steps
from nextscene.pipelines import build_nsp, show
from nextscene.shards.format.layout import UnitName
from nextscene.shards.format.receipt import sealed_shards
from nextscene.shards.format.sample import Sample
from nextscene.shards.loading.reader import ShardReader
from tests.curation.planning import planned
from tests.curation.report.pages import report
from tests.fakes.claude_api import ClaudeApi, Question
from tests.fakes.loopback import CLAUDE, judge_budget, loopback, outcomes, spans
from tests.hostile_text import BYTE, HALF, STEERING, floats, integers, texts
from tests.support import SMALL, assert_conserved, build_inline, ledger, make_video

LONG = "x" * (2 << 20)


def samples(out: Path) -> dict[str, Sample]:
    """Clip id → its sample."""
    place = Storage.at(out)
    readers = [ShardReader(place, shard) for shard in sealed_shards(place).values()]
    return {key: reader.sample(key) for reader in readers for key in reader.receipt.clip_ids}


def looked_at(out: Path, clip_id: str) -> None:
    """Every way to look at a dataset shows it, and none lets a text steer the terminal."""
    for command, arguments in (
        (show.main, [str(out)]),
        (show.main, [str(out), clip_id]),
        (show.main, [str(out), "train/nsp-000000"]),
        (build_nsp.main, ["--out", str(out), "--status"]),
    ):
        found = CliRunner().invoke(command, arguments)
        assert found.exit_code == 0 and "\x1b" not in found.output and "\u202e" not in found.output, found.output
    assert "</script>|" not in (out / "README.md").read_text()


def row_of(video: str, second: int, caption: str, **more: Any) -> dict[str, Any]:
    return {"video": video, "start": second / 4, "end": (second + 1) / 4, "caption": caption, **more}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Sample]]:
    """A folder with a film, and the samples of two clips of it that have no neighbors."""
    folder = tmp_path_factory.mktemp("healthy")
    make_video(folder / "film.mp4", 2.0)
    write_jsonl(folder / "clips.jsonl", [row_of("film.mp4", 0, "first"), row_of("film.mp4", 1, "second")])
    build_inline(folder / "clips.jsonl", folder / "out", SMALL)
    return folder, samples(folder / "out")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """With a number that is beyond a float for infinity, which JSON lacks."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text.replace("NaN", "null").replace("Infinity", "1e400"))
    return path


def assert_unharmed(out: Path, alone: dict[str, Sample], config: Any = SMALL) -> dict[str, Row]:
    """Every row reads back, the account balances, the healthy clips are the same to the byte. Rows by caption."""
    assert_conserved(out, config)
    found = samples(out)
    assert {key: found[key] for key in alone} == alone
    rows = ledger(out, config)
    looked_at(out, rows[0].clip_id)
    return {row.caption: row for row in rows}


def test_what_a_manifest_says_ends_its_clip_or_is_kept_as_it_is(healthy: tuple[Path, dict[str, Sample]]) -> None:
    folder, alone = healthy
    steering = f"film {STEERING.strip()}\n.mp4"
    (folder / steering).symlink_to(folder / "film.mp4")
    rows = [
        row_of("film.mp4", 0, "first"),
        row_of(f"{HALF}.mp4", 0, "a half in the name"),
        row_of(f"{BYTE}.mp4", 0, "a byte in the name"),
        row_of("film.mp4", 0, "a zero in the id", id="\0"),
        row_of("x" * 20_000, 0, "a long name"),
        row_of("x" * 5000, 0, "a name that no disk takes"),
        {**row_of("film.mp4", 0, "a late start"), "start": 10**400},
        {**row_of("film.mp4", 0, "an early start"), "start": -1},
        row_of("film.mp4", 2, f"half a caption {HALF}"),
        row_of("film.mp4", 5, "half a licence", licence={HALF: [1e400]}),
        row_of("film.mp4", 3, "much provenance", much=LONG),
        row_of(steering, 4, STEERING, note=STEERING, number=10**400, endless=1e400),
        row_of("film.mp4", 1, "second"),
    ]
    out = folder / "of a manifest"
    build_inline(write_jsonl(folder / "hostile.jsonl", rows), out, SMALL)
    found = assert_unharmed(out, alone)
    assert {caption: (row.outcome, row.reason) for caption, row in found.items()} == {
        "first": ("kept", ""),
        "second": ("kept", ""),
        STEERING.strip(): ("kept", ""),
        "": ("failed", "bad_caption"),
        "a half in the name": ("failed", "bad_name"),
        "a byte in the name": ("failed", "bad_name"),
        "a zero in the id": ("failed", "bad_name"),
        "a long name": ("failed", "bad_name"),
        "a name that no disk takes": ("absent", "no_file"),
        "a late start": ("failed", "bad_span"),
        "an early start": ("failed", "bad_span"),
        "half a licence": ("failed", "bad_provenance"),
        "much provenance": ("failed", "bad_provenance"),
    }
    assert found[STEERING.strip()].source == steering
    record = samples(out)[found[STEERING.strip()].clip_id].record
    assert json.loads(record.provenance) == {"note": STEERING, "number": 10**400, "endless": "inf"}
    assert all("line" in row.detail for row in found.values() if row.reason in ("bad_name", "bad_span"))
    assert len(report(out, SMALL).cards()) == len(rows)


def test_a_missing_picture_is_reported_even_for_an_unstorable_reason() -> None:
    row = Row(
        position=0,
        clip_id="0" * 24,
        split="train",
        unit=0,
        shard=0,
        source="a.mp4",
        start_ms=0,
        end_ms=-1,
        outcome="failed",
    )
    assert make_card(row, Filmstrip(missing=f"{HALF} {BYTE}"), 16).missing.text == "\\ud83d \\udce9"


HEADERS: dict[str, Callable[[Measured], Measured | ClipOutcome]] = {
    "half a codec": lambda measured: replace(measured, codec=f"V_{HALF}"),
    "much codec": lambda measured: replace(measured, codec=LONG),
    "a width": lambda measured: replace(measured, width=10**20),
    "no duration": lambda measured: replace(measured, duration=float("nan")),
    "an endless duration": lambda measured: replace(measured, duration=float("inf"), end=float("inf")),
    "half a reason": lambda measured: ClipOutcome("rejected", "unreadable", f"{HALF}{STEERING}{LONG}"),
}
ENDS = {
    "half a codec": ("kept", ""),
    "much codec": ("kept", ""),
    "a width": ("failed", "unwritable"),
    "no duration": ("failed", "unwritable"),
    "an endless duration": ("failed", "unwritable"),
    "half a reason": ("rejected", "unreadable"),
    "half an error": ("failed", "unexpected"),
    "half of what was said": ("failed", "cut_error"),
    "first": ("kept", ""),
    "second": ("kept", ""),
}


def test_what_headers_errors_and_ffmpeg_say_is_evidence_or_ends_the_clip(
    healthy: tuple[Path, dict[str, Sample]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, alone = healthy
    screen, cut = clip_steps.screen, clip_steps.cut

    def screened(clip: PlannedClip, *rest: Any) -> Measured | ClipOutcome:
        measured = screen(clip, *rest)
        assert isinstance(measured, Measured)
        return HEADERS[clip.caption](measured) if clip.caption in HEADERS else measured

    def cut_or_not(source: Path, span: Any, *rest: Any) -> Any:
        if span.start == 1.5:
            raise ValueError(f"{HALF}{STEERING}{LONG}")
        return ClipOutcome("failed", "cut_error", f"{HALF}{LONG}") if span.start == 1.75 else cut(source, span, *rest)

    monkeypatch.setattr(clip_steps, "screen", screened)
    monkeypatch.setattr(clip_steps, "cut", cut_or_not)
    rows = [row_of("film.mp4", 0, "first"), row_of("film.mp4", 1, "second")]
    rows += [row_of("film.mp4", 2, caption, id=caption) for caption in HEADERS]
    rows += [row_of("film.mp4", 6, "half an error"), row_of("film.mp4", 7, "half of what was said")]
    out = folder / "of headers"
    build_inline(write_jsonl(folder / "headers.jsonl", rows), out, SMALL)
    found = assert_unharmed(out, alone)
    assert {caption: (row.outcome, row.reason) for caption, row in found.items()} == ENDS
    assert all(len(row.detail) <= 4096 and len(row.codec) <= 200 for row in found.values())
    assert found["half a codec"].codec == "V_\\ud83d" and found["half an error"].detail.startswith("ValueError at ")


def said(text: str, **changes: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], **changes}


def refused(**details: Any) -> dict[str, Any]:
    return {"content": [], "stop_reason": "refusal", "stop_details": details}


KEPT, UNREADABLE = ("kept", ""), ("failed", "unreadable_answer")
UNCOUNTED = ("failed", "judge_error")
ANSWERS: dict[str, tuple[str, dict[str, Any], tuple[str, str]]] = {
    "half a scene": ("describe", said(f"Earlier {HALF}\0 (attempt 1)"), KEPT),
    "much scene": ("describe", said(LONG), UNREADABLE),
    "many braces": ("verify", said("{\n" * 300_000), UNREADABLE),
    "half a verdict": ("verify", said('{"reason": "\\ud83d\\u001b[31m", "verdict": "Pass"}'), KEPT),
    "a deep reason": ("verify", said(f'{{"reason": {"[" * 400}{"]" * 400}, "verdict": "Pass"}}'), KEPT),
    "half an id": ("verify", {"id": f"msg_{HALF}{LONG}", "model": f"claude {HALF}{STEERING}"}, KEPT),
    "a category": (
        "describe",
        refused(category=f"bio {STEERING}|{HALF}{LONG}", explanation=LONG),
        ("refused", f"bio_31mred_0m_back_{'x' * 36}"),
    ),
    "an odd category": ("describe", refused(category={"a": [HALF]}), ("refused", "a_ud83d")),
    "half a stop": ("describe", {"stop_reason": f"end {HALF}"}, KEPT),
    "less than nothing": ("describe", {"usage": {"input_tokens": -5, "output_tokens": -(10**6)}}, UNCOUNTED),
}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Any:
    yield from loopback(monkeypatch)


@pytest.mark.slow
def test_what_a_model_answers_is_cleaned_where_it_comes_in_or_ends_the_clip(tmp_path: Path, api: ClaudeApi) -> None:
    source = spans(tmp_path, ["first", *ANSWERS])
    answer = api.answer

    def hostile(question: Question, tier: str) -> dict[str, Any]:
        message = answer(question, tier)
        task = "describe" if "Predict the most likely prior event" in question.text else "verify"
        for caption, (of, changes, _) in ANSWERS.items():
            if caption in question.text and of == task:
                return {**message, **changes}
        return message

    api.answer = hostile  # type: ignore[method-assign]
    build_inline(source, tmp_path / "out", CLAUDE, judge_budget=judge_budget())
    assert_conserved(tmp_path / "out", CLAUDE)
    rows = ledger(tmp_path / "out", CLAUDE)
    looked_at(tmp_path / "out", rows[0].clip_id)
    assert outcomes(tmp_path / "out") == [("kept", ""), *(end for _, _, end in ANSWERS.values())]
    by_caption = {row.caption: row for row in rows}
    assert by_caption["half a scene"].scene_description == "Earlier ?? (attempt 1)"
    assert by_caption["half a verdict"].verdict_reason == "\\ud83d\\x1b[31m"
    assert all(len(value) <= 4096 for row in rows for value in (row.detail, row.verdict_reason))
    assert all(len(row.calls) < 10_000 for row in rows)


# ---- planning --------------------------------------------------------------------------------------------------

values = st.recursive(st.none() | st.booleans() | integers | floats | texts, lambda inner: st.lists(inner, max_size=2))
hostile_rows = st.fixed_dictionaries(
    {"video": texts},
    optional={
        "caption": texts,
        "id": texts,
        "start": floats | integers,
        "end": floats | integers,
        "x": values,
        "y": values,
    },
)


@settings(max_examples=60, deadline=None)
@given(st.lists(hostile_rows, max_size=3), st.sampled_from(["none", "film"]))
def test_any_text_and_number_of_a_manifest_is_planned_and_reads_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], judge: str
) -> None:
    """Or it is a mistake of the table, refused by its row: another type, a span that runs backwards, a name twice."""
    folder = tmp_path_factory.getbasetemp() / "planning"
    folder.mkdir(exist_ok=True)
    (folder / "a.mp4").write_bytes(b"four")
    healthy = {"video": "a.mp4", "caption": "it", "start": 1, "id": "healthy"}
    path = write_jsonl(folder / "clips.jsonl", [healthy])
    config = replace(SMALL, judge=judge)
    (alone,) = planned(path, folder / "plan", config)
    try:
        first, *others = planned(write_jsonl(path, [healthy, *rows]), folder / "plan", config)
    except UsageError as mistake:
        assert str(path) in str(mistake) and "\n" not in str(mistake)
        return
    assert first == alone and len(others) == len(rows)


def test_names_that_are_not_utf_8_are_skipped_and_counted(tmp_path: Path) -> None:
    source = os.fsencode(tmp_path / "source")
    for name in (b"a.mp4", b"a\xe9.mp4", b"a\xe9.txt", b"b/c.mp4", b"\xff/d.mp4", b".\xff"):
        path = source + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"four")
    with tarfile.open(tmp_path / "source" / "c.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("a.mp4", f"b{BYTE}.mp4", f"b{BYTE}.txt"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"four"))
    passed = SkippedFiles()
    found: list[Clip] = list(Source.at(str(tmp_path / "source")).clips(passed))
    assert [clip.name for clip in found] == ["a.mp4", "b/c.mp4", "c.tar/a.mp4"]
    assert passed.counts == {"with a name that is not UTF-8": 5, "hidden": 1}


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff", b"[]", b'{"unit": "1", "clips": {}}', b'{"unit": 1, "clips": {"a": "b"}}', b"[" * 10**5],
)
def test_crash_counts_that_are_damaged_begin_anew_with_a_warning(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    place, name = Storage.at(tmp_path), UnitName("train", 0)
    place.write(name.crashes, data)
    assert CrashCounts.read(place, name) == CrashCounts() and name.crashes in caplog.text
    CrashCounts(2, {"a": 1}).publish(place, name)
    assert CrashCounts.read(place, name) == CrashCounts(2, {"a": 1})
