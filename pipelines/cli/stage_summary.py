"""The summary that `train` prints at the end of a stage.

Tested in tests/pipelines/test_train.py.
"""

from __future__ import annotations

from pathlib import Path

from nextscene.pipelines.cli import console
from nextscene.shards.format.layout import REPORT
from nextscene.training.summary import StageSummary


def print_summary(summary: StageSummary, out: Path) -> None:
    """Print the summary of a stage in the runs folder `out`."""
    folder = out / summary.recipe
    lines = {"stage": f"{summary.stage}, {summary.step:,} steps, {summary.trained_parameters:,} parameters trained"}
    if summary.heldout_before >= 0:
        lines["held out"] = (
            f"loss {summary.heldout_before:.4f} before, {summary.heldout_after:.4f} after"
            f"{f' ({summary.unaveraged:.4f} unaveraged)' if summary.unaveraged >= 0 else ''}; predicting zero"
            f" {summary.zero:.4f}"
        )
    if summary.reward_first >= 0:
        lines["reward"] = (
            f"{summary.reward_first:.2f} in the first tenth of the steps, {summary.reward_last:.2f} in the last"
        )
    for name, pair in {"own text": summary.seen, "held out ": summary.heldout}.items():
        if pair.clips:
            of = "training clips" if name == "own text" else "held-out clips"
            lines[name] = (
                f"a lower loss than under another's for {pair.share:.0%} of {pair.clips} {of}, by {pair.gain:.4f}"
            )
    lines |= {
        "run": f"{folder}: checkpoints, metrics.jsonl, tensorboard, curves.png, samples",
        "report": f"{out / REPORT}",
        "model": f"{out / 'export'}",
    }
    for name, line in lines.items():
        console.out.print(f"{name.strip():<10}{line}", markup=False)
