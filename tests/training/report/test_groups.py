"""Groups of candidates: which are chosen, and what is read of them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from nextscene.training.report.groups import MAX_GROUPS, read_groups
from tests.training.report.made import REASON, write_group


def test_a_group_has_its_candidates_highest_reward_first(run: Path) -> None:
    group = read_groups(run, "rl")[0]
    assert (group.step, group.passes, group.mean, group.judged_by) == (4, 2, 0.4, "toy")
    assert group.usd == pytest.approx(0.06)
    assert [one.number for one in group.candidates] == [0, 3, 1, 4, 5, 2]
    assert [one.verdict for one in group.candidates] == ["Pass", "Pass", "Fail", "Fail", "Fail", "missing"]
    assert [one.advantage for one in group.candidates] == [0.5, 0.5, -0.5, -0.5, -0.5, None]
    assert [one.learnt_from for one in group.candidates] == [True] + [False] * 5
    assert {one.reason.text for one in group.candidates} == {REASON}


def test_each_candidate_has_its_own_picture_and_video(run: Path) -> None:
    for one in read_groups(run, "rl")[0].candidates:
        with Image.open(io.BytesIO(base64.b64decode(one.jpeg))) as picture:
            assert picture.convert("L").getpixel((80, 60)) == pytest.approx(255 * one.number // 6, abs=3)
        assert one.video == f"rl/candidates/step-4/{0:024x}-{one.number:02}.mp4"
        assert (run / one.video).is_file()


def test_few_of_many_groups_are_shown_the_newest_and_the_extremes(tmp_path: Path) -> None:
    for step in range(1, 41):
        rewards: list[float | None] = [0.5, 0.5] if step not in (3, 4, 5) else [float(step > 3), float(step > 4)]
        write_group(tmp_path / "rl", step, rewards)
    groups = read_groups(tmp_path, "rl")
    assert len(groups) <= MAX_GROUPS
    chosen = {group.step: group.why for group in groups}
    assert [*chosen][:6] == [40, 39, 38, 37, 36, 35]
    assert (chosen[3], chosen[4], chosen[5]) == ("lowest rewards", "most spread", "highest rewards")
    assert len(groups) == MAX_GROUPS and "one of the others" in chosen.values()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"candidates": 3}', '{"candidates": [3]}', '{"candidates": [{"reward": "x"}]}']
)
def test_a_record_that_is_none_of_ours_is_left_out(tmp_path: Path, text: str) -> None:
    write_group(tmp_path / "rl", 1, [1.0])
    (tmp_path / "rl/candidates/step-1/other.json").write_text(text)
    assert [group.step for group in read_groups(tmp_path, "rl")] == [1]


def test_a_record_of_an_earlier_version_shows_the_picture_of_the_group(tmp_path: Path) -> None:
    write_group(tmp_path / "rl", 1, [1.0, 0.0])
    (file,) = (tmp_path / "rl/candidates/step-1").glob("*.json")
    record = json.loads(file.read_text())
    for one, box in zip(record["candidates"], (None, [0, 0, 99999, 9]), strict=True):
        one["box"] = box
    file.write_text(json.dumps(record))
    (group,) = read_groups(tmp_path, "rl")
    assert [one.jpeg for one in group.candidates] == ["", ""] and group.sheet == ""
    for one in record["candidates"]:
        del one["box"]
    file.write_text(json.dumps(record))
    (group,) = read_groups(tmp_path, "rl")
    assert [one.jpeg for one in group.candidates] == ["", ""]
    with Image.open(file.with_suffix(".png")) as drawn, Image.open(io.BytesIO(base64.b64decode(group.sheet))) as shown:
        assert shown.size == drawn.size  # it is narrower than the page
    (file.with_suffix(".png")).unlink()
    assert len(read_groups(tmp_path, "rl")) == 1 and read_groups(tmp_path, "sft") == []
