"""What training is for: clips that were held out are drawn better after it, and not where nothing is learned."""

from __future__ import annotations

from pathlib import Path

import pytest

from nextscene.training.summary import StageSummary
from tests.training.stages import SMALL, by_ranks, make_data, make_job, make_originals, on_rank, replace

pytestmark = pytest.mark.slow

LEARNING = replace(
    SMALL,
    steps=40,
    data=replace(SMALL.data, micro_batch=4),
    optimizer=replace(SMALL.optimizer, kind="adamw", ema=0.0),
    logging=replace(SMALL.logging, checkpoint_every=0, sample_clips=0),
)


def test_the_loss_on_held_out_clips_falls_and_does_not_where_nothing_is_learned(tmp_path: Path) -> None:
    data, pretrained = make_data(tmp_path / "data"), make_originals(tmp_path / "originals")

    def trained(lr: float) -> StageSummary:
        recipe = replace(LEARNING, optimizer=replace(LEARNING.optimizer, lr=lr))
        summary: StageSummary
        summary, _ = by_ranks(1, on_rank, make_job(data, pretrained, tmp_path / f"{lr}", recipe))
        return summary

    learned, control = trained(1e-2), trained(0.0)
    assert control.heldout_after == control.heldout_before == learned.heldout_before
    assert learned.heldout_after < learned.zero < learned.heldout_before
