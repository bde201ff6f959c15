"""The making of RUN/report.html: read each stage, choose samples and groups, write the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nextscene.common.errors import UsageError
from nextscene.common.page.render import render_page
from nextscene.common.storage import Storage
from nextscene.shards.format.layout import REPORT
from nextscene.training.recipe import STAGES
from nextscene.training.report.groups import GroupCard, read_groups
from nextscene.training.report.samples import SampleStrip, read_strips
from nextscene.training.report.stage_charts import ChartGroup, chart_groups
from nextscene.training.report.stage_data import StageData, is_stage, read_stage

_HERE = Path(__file__).parent
_MAX_STAGES = 12


@dataclass(frozen=True)
class StageSection:
    """All that the page shows of a stage."""

    data: StageData
    charts: list[ChartGroup]
    strips: list[SampleStrip]
    groups: list[GroupCard]

    @property
    def state(self) -> str:
        """The progress of the stage, in words."""
        summary = self.data.summary
        if summary and summary.finished and summary.step >= self.data.step:
            return f"finished after {summary.step:,} steps"
        return f"at step {self.data.step:,}"


def write_run_report(run: Storage) -> None:
    """Write the page about the run in a local folder, by what is in it now.

    Raise UsageError if there is no stage in it, StorageFault if the page cannot be written.
    """
    folder = run.local_path("")
    sections = read_sections(folder) if folder else []
    if not folder or not sections:
        raise UsageError(f"{run.display_uri} holds no stage of a training yet; there is a page once a stage has begun")
    run.write(REPORT, render_run(folder.resolve().name, sections).encode("utf-8", "replace"))


def read_sections(run: Path) -> list[StageSection]:
    """Return the stages of a run in the order of training. Stages beyond a dozen are left out."""
    names = [path.name for path in sorted(run.iterdir()) if is_stage(path)][:_MAX_STAGES]
    sections = []
    for name in names:
        data = read_stage(run, name)
        sections.append(StageSection(data, chart_groups(data), read_strips(run, name), read_groups(run, name)))
    order = {stage: place for place, stage in enumerate(STAGES)}
    return sorted(sections, key=lambda one: (order.get(one.data.stage, len(order)), one.data.name))


def render_run(name: str, sections: list[StageSection]) -> str:
    """Return the page as text. The same sections give the same page."""
    return render_page(
        _HERE,
        ("page.css", "chart.css", "film.css", "run.css"),
        ("chart.js", "film.js", "run.js"),
        videos=True,
        name=name,
        sections=sections,
        seconds=sum(one.data.seconds for one in sections),
        usd=sum(one.data.usd for one in sections),
    )
