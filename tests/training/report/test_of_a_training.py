"""The page that training itself writes: at evaluations, at the end, when it is stopped, and never at its cost."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
from selectolax.lexbor import LexborHTMLParser

from tests.training.objectives.grpo.toys import RL, odd_passes, rl_on_rank
from tests.training.stages import SMALL, Stage, by_ranks, on_rank, replace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage.made(tmp_path_factory.mktemp("stage"), SMALL)


def page(run: Path) -> LexborHTMLParser:
    return LexborHTMLParser((run / "report.html").read_bytes().decode("utf-8"))


def test_the_stages_of_a_run_are_on_one_page(stage: Stage) -> None:
    job = stage.job("run")
    by_ranks(1, on_rank, job)
    assert "generator, finished after 4 steps" in page(job.run).css_first(".lede").text()
    rewarded = stage.job("run", RL)
    by_ranks(1, rl_on_rank, rewarded, odd_passes)
    found = page(job.run)
    assert [node.attributes["data-stage"] for node in found.css("section.stage")] == ["generator", "rl"]
    assert len(found.css("details.group")) == 8 and len(found.css(".candidate")) == 8 * RL.policy.group_size
    videos = [node.attributes["data-video"] or "" for node in found.css("[data-video]")]
    assert len(videos) > 40 and all((job.run / video).is_file() for video in videos)


def test_a_run_that_is_stopped_has_a_page_up_to_there(stage: Stage) -> None:
    job = stage.job("stopped")
    by_ranks(1, on_rank, job, 2)
    assert "generator, at step 2" in page(job.run).css_first(".lede").text()


def test_a_run_has_a_page_from_its_first_evaluation_on(stage: Stage) -> None:
    job, seen = stage.job("begun"), []
    with patch("nextscene.training.report.page_thread.PageThread.submit", lambda _: seen.append(job.write_page())):
        by_ranks(1, on_rank, job)
    assert len(seen) == 2


def test_a_page_that_cannot_be_written_costs_a_line_and_not_the_run(stage: Stage) -> None:
    job = stage.job("without")
    (job.run / "report.html").mkdir(parents=True)
    summary, observer = by_ranks(1, on_rank, job)
    assert summary.finished and (job.run / "export").is_dir()
    (line,) = [note for note in observer.notes if note.startswith("the page of the run was not written: ")]
    assert "report.html" in line


def test_the_terminal_has_a_few_lines_and_no_list_of_parameters(
    stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    job = stage.job("quiet", replace(SMALL, steps=1))
    _, observer = by_ranks(1, on_rank, job)
    assert capfd.readouterr() == ("", ""), "no progress bar of another library"
    assert len(observer.notes) < 10
    assert any(note.endswith("trained_parameters.txt") for note in observer.notes)
    assert len((job.folder / "trained_parameters.txt").read_text().splitlines()) > 30
