"""The charts of a stage: which metrics are drawn together, and what their names mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nextscene.common.page.charts import Chart, Line, line_chart
from nextscene.common.page.series import Point, Series
from nextscene.training.metrics.catalog import EVALUATION_METRICS, HELDOUT_SIGMAS, STEP_METRICS
from nextscene.training.metrics.log_file import SIGMA_BUCKETS, heldout_name, sigma_bucket_name
from nextscene.training.report.stage_data import SUMMED, StageData

_MAX_OTHERS = 12


@dataclass(frozen=True)
class _Plan:
    """A chart: its title and the metrics in it, all of one event."""

    title: str
    names: tuple[str, ...]
    event: str = "step"
    may_be_log: bool = False


_HELD_OUT = (
    _Plan("Held-out loss", ("heldout_loss", "heldout_loss_unaveraged", "zero_loss"), "evaluation"),
    _Plan("Held-out loss by noise level", tuple(map(heldout_name, HELDOUT_SIGMAS)), "evaluation"),
)
_LOSS = (_Plan("Loss", ("loss",)), _Plan("Loss by noise level", tuple(map(sigma_bucket_name, range(SIGMA_BUCKETS)))))
_REWARD = (
    _Plan("Reward", ("reward_mean", "reward_deviation")),
    _Plan("Groups and verdicts", ("groups_without_spread", "missing_judgements")),
    _Plan("Divergence from the start", ("kl_to_start",), may_be_log=True),
    _Plan("Probabilities since sampling", ("ratio_off", "clip_share"), may_be_log=True),
    _Plan("Extra scenes", ("extra_scenes",)),
)
_OPTIMIZER = (
    _Plan("Gradient norm", ("gradient_norm",), may_be_log=True),
    _Plan("Learning rate", ("lr",), may_be_log=True),
    _Plan("Prodigy's step size", ("d",), may_be_log=True),
)
_MACHINE = (
    _Plan("Cost so far", ("usd",)),
    _Plan("Time of a step", ("seconds",)),
    _Plan("Tokens per second", ("tokens_per_second",)),
    _Plan("Samples per second", ("samples_per_second",)),
    _Plan("Memory", ("peak_memory_gb",)),
    _Plan("Use of the machine", ("mfu", "data_wait")),
    _Plan("Straggling", ("straggling",)),
    _Plan("Work of a step", tuple(f"tflops_{part}" for part in ("transformer", "language", "connector", "vae"))),
    _Plan("Texts cut so far", ("texts_cut",)),
)
_SHOWN_ELSEWHERE = {"heldout_loss_low_sigma"}  # it is that of the lowest noise level
_UNITS = {"seconds": "s", "peak_memory_gb": "GB", "usd": "US dollars"}


@dataclass(frozen=True)
class ChartGroup:
    """Charts below one heading; those of the machine are closed at first."""

    title: str
    charts: tuple[Chart, ...]
    closed: bool = False


def chart_groups(stage: StageData) -> list[ChartGroup]:
    """Return the charts that have data, most important first. Metrics that no plan names have charts of their own."""
    by_sigma = [chart for chart in [_over_sigma(stage)] if chart]
    learning = [*_REWARD, *_HELD_OUT] if stage.is_rewarded else [*_LOSS, *_HELD_OUT]
    rest = [*_OPTIMIZER, *(_LOSS if stage.is_rewarded else ())]
    known = {name for plan in (*_HELD_OUT, *_LOSS, *_REWARD, *_OPTIMIZER, *_MACHINE) for name in plan.names}
    others = [_Plan(name, (name,), event) for event, name in stage.series if name not in known | _SHOWN_ELSEWHERE]
    groups = [
        ChartGroup("Learning", (*_drawn(stage, learning), *by_sigma)),
        ChartGroup("Optimizer", _drawn(stage, rest), closed=True),
        ChartGroup("Time, memory, cost", _drawn(stage, _MACHINE), closed=True),
        ChartGroup("Others", _drawn(stage, others[:_MAX_OTHERS]), closed=True),
    ]
    return [group for group in groups if group.charts]


def _drawn(stage: StageData, plans: Sequence[_Plan]) -> tuple[Chart, ...]:
    return tuple(chart for plan in plans if (chart := _chart(stage, plan)))


def _chart(stage: StageData, plan: _Plan) -> Chart | None:
    lines = [
        Line(name, found.points(), _is_smoothed(plan, name), name == "zero_loss") for name, found in _found(stage, plan)
    ]
    documented = STEP_METRICS if plan.event == "step" else EVALUATION_METRICS
    notes = [(line.name, documented[line.name]) for line in lines if line.name in documented]
    units = {_UNITS[name] for name in plan.names if name in _UNITS}
    title = f"{plan.title}, {units.pop()}" if units else plan.title
    return line_chart(f"{stage.name}-{plan.names[0]}", title, lines, notes=notes, may_be_log=plan.may_be_log)


def _found(stage: StageData, plan: _Plan) -> Iterator[tuple[str, Series]]:
    for name in plan.names:
        if found := stage.series.get((plan.event, name)):
            yield name, found


def _is_smoothed(plan: _Plan, name: str) -> bool:
    return plan.event == "step" and name not in (*SUMMED, "peak_memory_gb", "lr", "d")


def _over_sigma(stage: StageData) -> Chart | None:
    """Return the held-out loss over the noise level, at the first and at the last evaluation."""
    lines = []
    for name, evaluation in (("first", stage.first), ("last", stage.last)):
        values = [(sigma, evaluation.get(heldout_name(sigma))) for sigma in HELDOUT_SIGMAS]
        points = [Point(sigma, value, value, value, value) for sigma, value in values if value is not None]
        if points and (name == "first" or evaluation is not stage.first):
            lines.append(Line(f"step {evaluation['step']:,.0f}", points, smoothed=False, dashed=name == "first"))
    notes = [
        ("σ", "The noise level: 0 is the clean clip, 1 is noise alone. Low levels decide details, high ones motion.")
    ]
    return line_chart(f"{stage.name}-by-sigma", "Held-out loss over the noise level", lines, "σ", notes)
