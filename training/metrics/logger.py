"""The logs of training: a line of JSON for each step and evaluation, TensorBoard, and a picture of the curves."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from nextscene.common import atomic
from nextscene.training.checkpoint_info import METRICS
from nextscene.training.metrics.log_file import SIGMA_BUCKETS, read_metrics, sigma_bucket_name
from nextscene.training.metrics.wandb_log import WandbLog

Event = Literal["step", "evaluation"]
_CURVES = "curves.png"


class MetricsLogger:
    """`metrics.jsonl`, `tensorboard/` and `curves.png` in a run's folder, and a further log, if there is one.

    A run that resumes after a step deletes the log of later steps by an earlier run, because it repeats those steps.
    """

    def __init__(self, folder: Path, after_step: int, wandb: WandbLog | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        kept = [line for line in read_metrics(folder) if line["step"] <= after_step]
        atomic.write_file(folder / METRICS, "".join(f"{json.dumps(line)}\n" for line in kept).encode())
        self._file = (folder / METRICS).open("a", encoding="utf-8")
        self._wandb = wandb
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=after_step + 1)

    def log(self, event: Event, step: int, numbers: Mapping[str, float]) -> None:
        """Write the numbers of a step or evaluation, without those that are not finite: JSON cannot express them."""
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        self._file.write(json.dumps({"event": event, "step": step, **finite}) + "\n")
        self._file.flush()
        for name, value in finite.items():
            self._board.add_scalar(f"{event}/{name}", value, step)
        if self._wandb:
            self._wandb.log(event, step, finite)

    def save_curves(self) -> None:
        """Draw everything logged so far, and write the picture."""
        written = read_metrics(self._folder)
        rewarded = any("reward_mean" in line for line in written)
        curves = _OF_REWARDS if rewarded else _OF_LOSSES
        figure = Figure(figsize=(4.5 * len(curves), 3.4), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, (label, lines) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
            for line in lines:
                line.put_on(axes, written)
            axes.set(xlabel="step", ylabel=label)
            if axes.get_lines():
                axes.legend(frameon=False, fontsize="small")
        figure.savefig(self._folder / _CURVES, dpi=120)

    def close(self) -> None:
        self._file.close()
        self._board.close()
        if self._wandb:
            self._wandb.close()


@dataclass(frozen=True)
class _Curve:
    """One logged number, to be drawn over the steps, and the style of its line."""

    event: Event
    name: str
    look: Mapping[str, Any]

    def put_on(self, axes: Any, written: Sequence[Mapping[str, Any]]) -> None:
        points = [
            (line["step"], line[self.name]) for line in written if line["event"] == self.event and self.name in line
        ]
        if points:
            axes.plot(*zip(*points, strict=True), label=self.name.replace("_", " "), **self.look)


_HELD_OUT = (
    _Curve("evaluation", "heldout_loss", {"color": "C0", "marker": "o", "markersize": 3}),
    _Curve("evaluation", "zero_loss", {"color": "C3", "linestyle": "--", "linewidth": 1}),
)
_OF_LOSSES = {
    "mean squared error of the velocity": (_Curve("step", "loss", {"color": "0.75", "linewidth": 0.8}), *_HELD_OUT),
    "the same, by noise level": [
        _Curve("step", sigma_bucket_name(level), {"color": f"C{level}", "linewidth": 0.8})
        for level in range(SIGMA_BUCKETS)
    ],
}
_OF_REWARDS = {
    "reward of the candidates": [
        _Curve("step", "reward_mean", {"color": "C0", "linewidth": 1}),
        _Curve("step", "reward_deviation", {"color": "C2", "linewidth": 0.8}),
        _Curve("step", "groups_without_spread", {"color": "0.6", "linewidth": 0.8}),
        _Curve("step", "missing_judgements", {"color": "C3", "linewidth": 0.8}),
    ],
    "divergence from the start": [_Curve("step", "kl_to_start", {"color": "C1", "linewidth": 1})],
    "change of probabilities since sampling": [
        _Curve("step", "ratio_off", {"color": "C4", "linewidth": 1}),
        _Curve("step", "clip_share", {"color": "C5", "linewidth": 0.8}),
    ],
    "US dollars a step": [_Curve("step", "usd", {"color": "C6", "linewidth": 1})],
}
