"""The page of a run: it shows what is in the folder, believes no text, and needs no torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from selectolax.lexbor import LexborHTMLParser

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.shards.format.layout import REPORT
from nextscene.training.report.make import write_run_report
from tests.support import REPOSITORY
from tests.training.report.made import REASON, flow_steps, write_metrics


def page_of(run: Path) -> LexborHTMLParser:
    write_run_report(Storage.at(run))
    return LexborHTMLParser((run / REPORT).read_bytes().decode("utf-8"))


def test_the_page_has_each_stage_with_its_parts(run: Path) -> None:
    page = page_of(run)
    assert page.css_first("h1").text() == "my run #1"
    assert [node.attributes["data-stage"] for node in page.css("section.stage")] == ["sft", "rl"]
    assert "finished after 40 steps" in page.css_first(".lede").text() and "at step 4" in page.css_first(".lede").text()
    assert len(page.css(".film-card")) == 3 and len(page.css("details.group")) == 4
    assert "$2.00" in page.css_first(".figures").text()


def test_text_from_elsewhere_is_text(run: Path) -> None:
    page = page_of(run)
    assert len(page.css("script")) == 1
    assert page.css("img:not([src^='data:image/jpeg'])") == []
    assert REASON in {node.text() for node in page.css(".candidate .reason")}
    assert [name for node in page.css("*") for name in node.attributes if name.startswith("on")] == []


def test_the_videos_it_names_are_there_and_their_names_are_those_of_an_address(run: Path) -> None:
    videos = [node.attributes["data-video"] or "" for node in page_of(run).css("[data-video]")]
    assert len(videos) > 20
    assert all((run / video).is_file() for video in videos)


def test_the_same_run_gives_the_same_page_and_an_earlier_page_is_replaced(run: Path) -> None:
    page_of(run)
    before = (run / REPORT).read_bytes()
    (run / REPORT).write_text("an earlier page")
    page_of(run)
    assert (run / REPORT).read_bytes() == before


def test_a_run_that_has_just_begun_has_a_page_and_one_without_a_stage_has_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no stage of a training yet"):
        page_of(tmp_path)
    write_metrics(tmp_path / "sft", [], rest="")
    assert "No step is finished yet" in page_of(tmp_path).css_first("main").text()
    write_metrics(tmp_path / "sft", flow_steps(3))
    assert len(page_of(tmp_path).css(".chart")) == 5


def test_half_a_character_does_not_keep_the_page_from_being_written(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for file in (copy / "rl/candidates/step-4").glob("*.json"):
        file.write_text(file.read_text().replace("caption 0", "caption \\ud83d"))
    assert "caption ?" in {node.text() for node in page_of(copy).css(".candidate details p")}


def test_what_disappears_while_the_page_is_made_is_not_on_it(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for gone in ("sft/samples/step-40", "rl/candidates/step-4", "sft/summary.json"):
        path = copy / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = page_of(copy)
    assert "at step 40" in page.css_first(".lede").text()
    assert len(page.css("details.group")) == 3


def test_the_page_needs_no_torch(run: Path) -> None:
    code = (
        "import sys; from nextscene.common.storage import Storage\n"
        "from nextscene.training.report.make import write_run_report\n"
        f"write_run_report(Storage.at({str(run)!r})); print(*{{'torch', 'ray', 'matplotlib'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
