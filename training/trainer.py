"""One stage of training, from its first step to its export: the same loop on one CPU and on any number of GPUs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from training.checkpoint import Checkpoints, latest
from training.errors import TrainingStopped
from training.feed import Examples
from training.flow.objective import loss_per_sample, noised
from training.job import Job, Watcher
from training.journal import BUCKETS, Journal, bucket_name, entries
from training.meter import Meter
from training.model.export import export
from training.optimise.prodigy import Prodigy
from training.parallel import sharded
from training.setting import Setting, bridge_config, set_up
from training.summary import UNKNOWN, Summary
from training.world import World


class _Learnt(NamedTuple):
    """One step, summed over all ranks. `buckets` [2, BUCKETS] are losses and their number by noise level."""

    loss: float
    norm: float
    buckets: list[list[float]]
    stopping: bool


def train(job: Job, world: World, watcher: Watcher) -> Summary:
    """Trains a stage to its end, or until the watcher has it stop. All processes of the world call this alike.

    Raises TrainingMistake before anything is done; TrainingStopped where the run cannot go on; TooManyBadClips.
    """
    return _Trainer(job, world, watcher).run()


class _Trainer:
    def __init__(self, job: Job, world: World, watcher: Watcher) -> None:
        self._job, self._recipe, self._world, self._watcher = job, job.recipe, world, watcher
        self._setting: Setting = set_up(job, world, watcher)
        self._step = self._setting.step
        self._checkpoints = Checkpoints(job.checkpoints, world, job.recipe.keeping.keep_last)
        self._journal = Journal(job.folder, self._step) if world.leads else None
        self._meter = Meter(self._setting.model, self._setting.feed, world)
        self._saved = self._step

    def run(self) -> Summary:
        setting = self._setting
        if self._world.leads:
            self._watcher.begin(setting.steps, self._step)
        stopping = False
        try:
            if self._step == 0:
                self._evaluate()
            feed = iter(setting.feed)
            while self._step < setting.steps and not stopping:
                stopping = self._take_step(feed)
                if self._is_due(self._recipe.keeping.checkpoint_every) or stopping:
                    self._save()
                if self._is_due(self._recipe.keeping.evaluate_every) and self._step < setting.steps:
                    self._evaluate()
            return self._finish()
        finally:
            self._checkpoints.end()
            if self._journal:
                self._journal.close()

    def _is_due(self, every: int) -> bool:
        return every > 0 and self._step % every == 0

    def _take_step(self, feed: Iterator[Examples]) -> bool:
        """Whether the run is to stop after it."""
        setting, settings = self._setting, self._recipe.optimiser
        self._meter.begin()
        learnt, keys = self._learn(feed)
        if not math.isfinite(learnt.loss + learnt.norm):
            raise TrainingStopped(self._diverged(learnt, keys))
        for group in setting.optimiser.param_groups:
            group["lr"] = settings.lr * min(1.0, (self._step + 1) / max(1, settings.warmup))
        setting.optimiser.step()
        setting.optimiser.zero_grad()
        if setting.average:
            setting.average.update()
        self._step += 1
        self._write(learnt)
        return learnt.stopping

    def _learn(self, feed: Iterator[Examples]) -> tuple[_Learnt, list[str]]:
        """The gradient of one global batch, clipped: the mean over its samples, whatever the ranks had of them."""
        setting, world = self._setting, self._world
        sums = torch.zeros(2, BUCKETS, device=world.device)
        keys: list[str] = []
        for turn in range(setting.accumulation):
            examples = next(feed)
            for part in sharded(setting.model):
                part.set_requires_gradient_sync(turn == setting.accumulation - 1)
            noisy = noised(examples.clean, examples.noise, examples.sigma)
            predicted = setting.model(examples.words, noisy, examples.sigma, examples.grid, examples.fps)
            losses = loss_per_sample(predicted, examples.clean, examples.noise)
            # The gradients of the ranks are averaged, so each counts for as many.
            torch.autograd.backward(losses.sum() * (world.size / self._recipe.data.global_batch))
            bucket = (examples.sigma * BUCKETS).long().clamp(max=BUCKETS - 1)
            sums[0].index_add_(0, bucket, losses.detach())
            sums[1].index_add_(0, bucket, torch.ones_like(losses))
            self._meter.count(examples)
            keys += examples.keys
        norm = _clipped(list(setting.trained.values()), self._recipe.optimiser.clip)
        flag = torch.tensor([float(self._watcher.stopping)], device=world.device)
        *flat, stopping = world.summed(torch.cat([sums.flatten(), flag])).tolist()
        buckets = [flat[:BUCKETS], flat[BUCKETS:]]
        return _Learnt(sum(buckets[0]) / sum(buckets[1]), norm, buckets, stopping > 0), keys

    def _diverged(self, learnt: _Learnt, keys: list[str]) -> str:
        whole = latest(self._job.checkpoints)
        return (
            f"step {self._step + 1} has a loss of {learnt.loss} and a gradient of norm {learnt.norm}; nothing of it was"
            f" learnt. Its clips here were {', '.join(keys[:8])}. Look at those, or lower optimiser.lr or"
            f" optimiser.clip, and go on from {whole.name if whole else 'the beginning'}"
        )

    def _write(self, learnt: _Learnt) -> None:
        numbers = {"loss": learnt.loss, "gradient_norm": learnt.norm}
        for bucket, (total, count) in enumerate(zip(*learnt.buckets, strict=True)):
            numbers[bucket_name(bucket)] = total / count if count else math.nan
        optimiser = self._setting.optimiser
        numbers["lr"] = float(optimiser.param_groups[0]["lr"])
        if isinstance(optimiser, Prodigy):
            numbers["d"] = float(optimiser.d)
        numbers |= self._meter.end()
        if self._journal:
            self._journal.write("step", self._step, numbers)
            self._watcher.step(self._step, numbers)

    def _evaluate(self) -> None:
        """On held-out clips, with the averaged weights where there are any."""
        panel, keeping = self._setting.heldout, self._recipe.keeping
        if panel is None:
            return
        with self._setting.as_result():
            loss = panel.loss(self._setting.model)
            folder = self._job.folder / "samples" / f"step-{self._step}"
            panel.draw(self._setting.model, folder, keeping.sample_clips, keeping.sample_steps, keeping.guidance)
        if self._journal:
            self._journal.write("evaluation", self._step, {"heldout_loss": loss.model, "zero_loss": loss.zero})
            self._journal.draw()
            compared = f"{loss.model:.4f}, predicting zero {loss.zero:.4f}"
            self._watcher.note(f"step {self._step}: loss on {panel.count} held-out clips {compared}")

    def _save(self) -> None:
        if self._saved == self._step:
            return
        self._checkpoints.save(self._setting.tensors(), self._setting.about(self._step))
        self._saved = self._step

    def _finish(self) -> Summary:
        self._save()
        setting, folder = self._setting, self._job.folder
        standing = Summary.read(folder) if self._step == setting.step else None
        self._checkpoints.wait()
        if self._step < setting.steps:
            return self._summary()
        if standing and standing.finished:
            return standing
        self._evaluate()
        with setting.as_result():
            seen = setting.seen.own_or_swapped(setting.model) if setting.seen else UNKNOWN
            heldout = setting.heldout.own_or_swapped(setting.model) if setting.heldout else UNKNOWN
        weights = setting.result()
        summary = replace(self._summary(), seen=seen, heldout=heldout)
        if self._world.leads:
            about = {**asdict(setting.about(self._step)), "summary": asdict(summary)}
            export(self._job.run / "export", bridge_config(setting.model), weights, self._job.originals, about)
            summary.write(folder)
        self._world.together()
        return summary

    def _summary(self) -> Summary:
        """With the held-out losses that are written down, on the leading process."""
        losses = [line for line in entries(self._job.folder) if line["event"] == "evaluation"]
        known = (
            {
                "heldout_before": losses[0]["heldout_loss"],
                "heldout_after": losses[-1]["heldout_loss"],
                "zero": losses[-1]["zero_loss"],
            }
            if losses
            else {}
        )
        recipe = self._recipe
        count = sum(parameter.numel() for parameter in self._setting.trained.values())
        return Summary(recipe.name, recipe.stage, self._step, self._setting.steps, count, **known)


def _clipped(parameters: list[Tensor], most: float) -> float:
    """The norm of all gradients together, before they were scaled to at most `most`."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, most)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
