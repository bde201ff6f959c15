"""Datasets of given scenes: what they record, and that nothing about them claims a verification."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.curation.plan import Plan
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.run.source_changes import compare
from nextscene.curation.sources import Source
from nextscene.evaluation.scenes import dataset_scenes
from nextscene.judge.given import GIVEN
from nextscene.shards.format.layout import PLAN
from nextscene.shards.format.sample import read_samples
from tests.curation.planning import planned
from tests.curation.report.pages import report
from tests.fakes.without_ray import build, command, without_ray
from tests.pipelines.test_show import shown, told
from tests.support import (
    SMALL,
    as_before_sums,
    assert_conserved,
    assert_same_dataset,
    build_inline,
    ledger,
    make_video,
    problems,
    write_csv,
)

CONFIG = replace(SMALL, judge="given")
FLAGS = ["--judge", "given", "--test", 0, "--unit-size", 2, "--units-per-shard", 2]
NO_KEY = {"ANTHROPIC_API_KEY": "", "ANTHROPIC_AUTH_TOKEN": "", "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}
CELLS = ["the cat sits", "a cat leaps", "", " ", "\x1b[31mred\u202e <b>{{ 7 * 7 }}</b>", "a\0b", "", "the cat sits"]
"""The scene of each clip. The second is word for word its caption, and the seventh has no caption either."""
ENDS = [
    *[("kept", ""), ("kept", ""), ("rejected", "no_scene"), ("rejected", "no_scene"), ("kept", "")],
    *[("failed", "bad_scene"), ("rejected", "no_caption"), ("kept", "")],
]
KEPT = [CELLS[place] for place, end in enumerate(ENDS) if end[0] == "kept"]


def write_source(folder: Path) -> Path:
    """Eight clips: seven spans of a video, and an image."""
    make_video(folder / "film.mp4", 2.0)
    make_video(folder / "still.png", 0.01, "854x520", "100", "-frames:v", "1", "-c:v", "png", "-pix_fmt", "rgb24")
    captions = [f"caption {n}" if n != 1 else CELLS[1] for n in range(6)] + ["", "a picture"]
    rows = [
        {"video": "film.mp4", "start": f"{n / 4}", "end": f"{(n + 1) / 4}"} if n < 7 else {"video": "still.png"}
        for n in range(8)
    ]
    for row, caption, scene in zip(rows, captions, CELLS, strict=True):
        row |= {"caption": caption, "scene": scene, "by": "Ada"}
    return write_csv(folder / "clips.csv", rows)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("given"))


@pytest.fixture(scope="module")
def out(source: Path) -> Path:
    build_inline(source, source.parent.parent / "out-given", CONFIG)
    return source.parent.parent / "out-given"


def records(out: Path) -> list[tuple[dict[str, Any], str]]:
    """Return the record and the text of each sample."""
    found = []
    for path in sorted(out.rglob("*.tar")):
        with path.open("rb") as file:
            found += [(json.loads(sample.json), sample.text.decode()) for sample in read_samples(file, path.name)]
    return found


def test_clips_with_a_scene_are_kept_and_others_end_for_a_reason(out: Path) -> None:
    assert [(row.outcome, row.reason) for row in ledger(out)] == ENDS
    assert_conserved(out, CONFIG)


def test_records_have_the_scene_as_given_and_no_verdict(out: Path) -> None:
    made = records(out)
    assert [text for _, text in made] == KEPT
    for record, text in made:
        assert record["scene_description"] == text and record["judge"] == "given"
        assert (record["verdict"], record["rounds"], record["judge_model"], record["prompt_sha256"]) == ("", 0, "", "")
        assert record["provenance"] == '{"by": "Ada"}'
    assert [row.verdict_reason + row.turned_down + row.calls for row in ledger(out)] == [""] * len(ENDS)
    assert dataset_scenes(str(out), "train") and set(dataset_scenes(str(out), "train")) == set(KEPT)


def test_under_another_judge_the_column_is_provenance_and_not_its_scene(source: Path, tmp_path: Path) -> None:
    """And the plan is what it was before there were scenes."""
    config = replace(SMALL, judge="film")
    build_inline(source, tmp_path / "out", config)
    made = records(tmp_path / "out")
    assert made and all(record["scene_description"].startswith(("caption ", "a cat")) for record, _ in made)
    given = {cell for record, _ in made if (cell := json.loads(record["provenance"]).get("scene"))}
    assert CELLS[1] in given and not given & {text for _, text in made if text != CELLS[1]}
    assert_conserved(tmp_path / "out", config)
    assert "scene" not in next(iter(Plan(Storage.at(tmp_path / "out"), config).rows()))


def test_page_card_and_summary_claim_no_verification(out: Path, source: Path) -> None:
    page = report(out, CONFIG, source.parent)
    assert page.text("h1") == "4 scenes, and what happened next"
    assert page.text("#method") == f"{GIVEN.heading} Judge given: {GIVEN.method}."
    assert page.nodes("#rounds") == [] and page.nodes(".verdict") == []
    assert page.text("#cost") == "Nothing: the judge given makes no paid calls."
    labels = [node.text().strip() for node in page.nodes(".label") if node.text().startswith("before")]
    assert labels == ["before · not verified"] * 4
    card, croissant = (out / "README.md").read_text(), (out / "croissant.json").read_text()
    for said in (card, croissant, (out / "summary.json").read_text()):
        assert GIVEN.method in said or GIVEN.method.replace("'", "&#x27;") in said
    assert "machine-generated" not in card and "Pass, or empty where no scene was verified" in card


def test_status_and_show_tell_the_scene_and_that_it_was_given(out: Path) -> None:
    assert f"given: {GIVEN.method}" in " ".join(shown(out).split())
    rows = {row.reason or row.caption: row for row in ledger(out)}
    said = shown(out, rows["caption 0"].clip_id)
    assert f"{CELLS[0]} (given, not verified)" in said and "Pass" not in said and "round" not in said
    assert "(given, not verified)" not in shown(out, rows["no_scene"].clip_id)
    assert "\x1b" not in shown(out, rows["caption 4"].clip_id)
    assert told(out, rows["caption 0"].clip_id)["planned"]["scene"] == CELLS[0]


def test_verify_finds_a_scene_that_is_not_the_planned_one(source: Path, tmp_path: Path) -> None:
    """A ledger and a tar that agree with each other, made from another plan."""
    other = source.parent / "other.csv"
    other.write_text(source.read_text().replace("the cat sits", "the dog sits"))
    build_inline(other, tmp_path / "out", CONFIG)
    planned(source, tmp_path / "plan", CONFIG)
    plan = (tmp_path / "plan" / PLAN).read_bytes()
    (tmp_path / "out" / PLAN).write_bytes(plan)
    recorded = RecordedConfig.read(Storage.at(tmp_path / "out"))
    assert recorded
    replace(recorded, plan_sha256=hashlib.sha256(plan).hexdigest()).publish(Storage.at(tmp_path / "out"))
    as_before_sums(tmp_path / "out")
    found = problems(tmp_path / "out", CONFIG)
    assert sum("does not fit the plan" in text for text in found) == 2


def test_a_stopped_run_and_a_retry_give_the_same_dataset(source: Path, out: Path, tmp_path: Path) -> None:
    build_inline(source, tmp_path / "out", CONFIG, stop_after=3)
    build_inline(source, tmp_path / "out", CONFIG)
    assert [(row.outcome, row.reason) for row in ledger(tmp_path / "out")] == ENDS
    build_inline(source, tmp_path / "again", CONFIG)
    assert_same_dataset(out, tmp_path / "again", CONFIG)
    build_inline(source, tmp_path / "again", CONFIG, frozenset({"failed", "rejected"}))
    assert [(row.outcome, row.reason) for row in ledger(tmp_path / "again")] == ENDS
    assert_conserved(tmp_path / "again", CONFIG)


EDITS: dict[str, tuple[Callable[[str], str], str]] = {
    "another scene": (lambda text: text.replace(",the cat sits", ",the dog sits"), "2 clips with another scene"),
    "a scene gone": (lambda text: text.replace(",the cat sits", ","), "2 clips with another scene"),
    "a bad scene": (lambda text: text.replace(",the cat sits", ",a\0b"), "2 clips with another scene"),
    "another caption": (lambda text: text.replace("caption 0", "other"), "1 clip with another caption"),
    "both": (lambda text: text.replace("caption 0,the cat", "other,the"), "1 clip with another caption"),
    "a column": (lambda text: text.replace("the cat sits,Ada", "the cat sits,Bob"), "2 clips with other columns"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_scenes_that_changed_after_the_plan_are_told(edit: str, source: Path, out: Path) -> None:
    changed = source.parent / "changed.csv"
    change, said = EDITS[edit]
    changed.write_bytes(change(source.read_bytes().decode()).encode())
    found = compare(Storage.at(out), Source.at(str(changed)), "given")
    assert found.told().startswith(said)
    assert compare(Storage.at(out), Source.at(str(source)), "given").is_same


def test_a_scene_that_changed_under_another_judge_is_another_column(source: Path, tmp_path: Path) -> None:
    planned(source, tmp_path, SMALL)
    changed = source.parent / "changed.csv"
    changed.write_text(source.read_text().replace("the cat sits", "the dog sits"))
    assert (
        compare(Storage.at(tmp_path), Source.at(str(changed)), "none").told().startswith("2 clips with other columns")
    )


def test_a_source_that_moved_keeps_its_planned_scenes(source: Path, out: Path, tmp_path: Path) -> None:
    build_inline(source, tmp_path / "out", CONFIG)
    moved = source.parent / "moved.csv"
    moved.write_text(source.read_text().replace("the cat sits", "the dog sits"))
    build_inline(moved, tmp_path / "out", CONFIG)
    recorded = RecordedConfig.read(Storage.at(tmp_path / "out"))
    assert recorded and recorded.source.endswith("moved.csv")
    assert_same_dataset(out, tmp_path / "out", CONFIG)


def test_a_lost_plan_is_made_again_with_its_scenes(source: Path, tmp_path: Path) -> None:
    build_inline(source, tmp_path / "out", CONFIG)
    plan = (tmp_path / "out" / PLAN).read_bytes()
    (tmp_path / "out" / PLAN).unlink()
    build_inline(source, tmp_path / "out", CONFIG)
    assert (tmp_path / "out" / PLAN).read_bytes() == plan


@pytest.mark.parametrize("rows", [[{"caption": "x"}], [{"caption": "x", "scene": " "}, {"caption": "y", "scene": ""}]])
def test_a_source_without_any_scene_is_refused_before_any_work(rows: list[dict[str, str]], tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    named = [{"video": "a.mp4", "id": str(number), **row} for number, row in enumerate(rows)]
    table = write_csv(tmp_path / "clips.csv", named)
    ended = command("--source", table, "--out", tmp_path / "out", *FLAGS, env=NO_KEY)
    (line,) = ended.stderr.splitlines()
    assert ended.exit_code == 2 and line.startswith("error: --source ")
    assert "no clip has a scene" in line and "column `scene`" in line and "--judge given" in line
    assert not (tmp_path / "out").exists()


def test_a_source_with_scenes_and_no_caption_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(UsageError, match="no clip has a caption, which `judge` given needs"):
        planned(write_csv(tmp_path / "clips.csv", [{"video": "a.mp4", "scene": "x"}]), tmp_path / "out", CONFIG)


def test_the_command_needs_no_key_and_there_is_nothing_to_estimate(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    given = ["--source", source, "--out", tmp_path / "out", *FLAGS]
    estimate = command(*given, "--estimate", env=NO_KEY)
    assert estimate.exit_code == 2 and "--judge given, which asks nobody" in estimate.stderr
    assert not (tmp_path / "out").exists()
    said = build(*given, code=1, env=NO_KEY)
    assert "no_scene" in said and "bad_scene" in said
    assert "$" not in said and not (tmp_path / "out" / "calls").exists()
    assert command("--out", tmp_path / "out", "--verify", env=NO_KEY).exit_code == 0


def test_a_dataset_of_another_judge_is_not_continued_with_given_scenes(source: Path, tmp_path: Path) -> None:
    build_inline(source, tmp_path / "out", SMALL)
    ended = command("--source", source, "--out", tmp_path / "out", *FLAGS, env=NO_KEY)
    assert ended.exit_code == 2 and "judge is given, was none" in ended.stderr
