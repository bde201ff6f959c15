"""The page of an evaluation: scores, differences, and the videos of all models side by side."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from selectolax.lexbor import LexborHTMLParser

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.evaluation.report import make
from nextscene.evaluation.report.make import write_evaluation_report
from nextscene.shards.format.layout import REPORT
from tests.evaluation.report.made import REASON, SCENES, VERDICTS, write_model
from tests.support import REPOSITORY


def page_of(folder: Path) -> LexborHTMLParser:
    write_evaluation_report(Storage.at(folder))
    return LexborHTMLParser((folder / REPORT).read_bytes().decode("utf-8"))


def scenes(page: LexborHTMLParser) -> list[str]:
    return [node.text() for node in page.css(".scene-card > .scene")]


def test_scenes_on_which_the_models_differ_come_first(evaluated: Path) -> None:
    assert scenes(page_of(evaluated)) == [SCENES[1], SCENES[2], SCENES[0], SCENES[3]]


def test_each_video_stands_beside_those_of_the_other_models_with_its_verdict(evaluated: Path) -> None:
    page = page_of(evaluated)
    for card in page.css(".scene-card"):
        number = int(card.attributes["data-number"] or "")
        cells = card.css(".cell")
        assert len(cells) == 2
        for cell, (name, verdicts) in zip(cells, VERDICTS.items(), strict=True):
            assert cell.css_first(".model").text().split() == [name, *(verdicts[number] or "no verdict").split()]
            assert cell.css_first(".caption").text() == f"caption {number}"
            source = (cell.css_first("img").attributes["src"] or "").removeprefix("data:image/jpeg;base64,")
            with Image.open(io.BytesIO(base64.b64decode(source))) as picture:
                light = picture.convert("L").resize((1, 1)).getpixel((0, 0))
            assert light == pytest.approx(255 if name == "rl" else 0, abs=6)
            video = cell.css_first("[data-video]").attributes["data-video"] or ""
            assert video == f"{name}/videos/{number:05}-0.mp4" and (evaluated / video).is_file()


def test_scores_are_sorted_and_differences_taken_from_the_better_model(evaluated: Path) -> None:
    scores, differences = page_of(evaluated).css("table.scores")
    assert [row.attributes["data-name"] for row in scores.css("tr")] == ["rl", "sft"]
    (row,) = differences.css("tr")
    assert row.attributes["data-name"] == "sft − rl" and float(row.attributes["data-mean"] or "") == 0.1
    assert "-0.200 to +0.300" in row.text() and "not clear" in row.text()


def test_text_from_elsewhere_is_text(evaluated: Path) -> None:
    page = page_of(evaluated)
    assert len(page.css("script")) == 1 and page.css("img:not([src^='data:image/jpeg'])") == []
    assert {node.text() for node in page.css(".reason")} == {REASON}


def test_before_it_has_ended_the_page_has_no_scores(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no video of a model yet"):
        page_of(tmp_path)
    write_model(tmp_path / "rl", judged=False)
    page = page_of(tmp_path)
    assert page.css("table.scores") == [] and "has not ended yet" in page.css_first("#unfinished").text()
    (tmp_path / "rl/videos/00000-0.mp4").unlink()
    assert "The video is not there." in page_of(tmp_path).css_first(".cell .missing").text()


def test_many_scenes_make_a_page_of_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "MAX_SCENES", 3)
    monkeypatch.setattr(make, "MAX_STRIPS", 2)
    write_model(tmp_path / "rl")
    page = page_of(tmp_path)
    assert (len(page.css(".scene-card")), len(page.css("img"))) == (3, 2)
    assert page.css_first("#shown").text().startswith("3 of 4 scenes")


def test_names_of_files_become_addresses(tmp_path: Path) -> None:
    write_model(tmp_path / "rl")
    (tmp_path / "rl/videos/00000-0.mp4").rename(tmp_path / "rl/videos/50% of #1?.mp4")
    item = {"scene": "x", "file": "50% of #1?.mp4"}
    (tmp_path / "rl/items.jsonl").write_text(json.dumps(item) + "\n")
    assert page_of(tmp_path).css_first("[data-video]").attributes["data-video"] == "rl/videos/50%25%20of%20%231%3F.mp4"


def test_the_page_needs_no_torch(evaluated: Path) -> None:
    code = (
        "import sys; from nextscene.common.storage import Storage\n"
        "from nextscene.evaluation.report.make import write_evaluation_report\n"
        f"write_evaluation_report(Storage.at({str(evaluated)!r})); print(*{{'torch', 'ray'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
