"""One stage of training, from its first step to its export: the same loop on one CPU and on any number of GPUs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from statistics import fmean

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from nextscene.training.checkpoint import Checkpoints
from nextscene.training.checkpoint_info import latest
from nextscene.training.data.batches import TrainingBatch
from nextscene.training.distributed.process_group import World
from nextscene.training.errors import TrainingPaused, TrainingStopped, TrainingUsageError
from nextscene.training.job import TrainingJob, TrainingObserver
from nextscene.training.metrics.logger import MetricsLogger, entries
from nextscene.training.metrics.throughput import Throughput
from nextscene.training.model.export import check_replaceable, export
from nextscene.training.objectives.base import Objective, StepOutput
from nextscene.training.objectives.flow_matching import FlowMatching
from nextscene.training.objectives.grpo.grpo import Grpo
from nextscene.training.optimizer.prodigy import Prodigy
from nextscene.training.stage import StageState, bridge_config, build_stage
from nextscene.training.summary import UNKNOWN, StageSummary


def train(job: TrainingJob, world: World, watcher: TrainingObserver) -> StageSummary:
    """Trains a stage to its end, or until the watcher has it stop. All processes of the world call this alike.

    Raises TrainingUsageError for what does not fit, TrainingStopped where the run cannot go on, TrainingPaused after a
    checkpoint of what it came to; TooManyBadClips.
    """
    return _Trainer(job, world, watcher).run()


class _Trainer:
    def __init__(self, job: TrainingJob, world: World, watcher: TrainingObserver) -> None:
        self._job, self._recipe, self._world, self._watcher = job, job.recipe, world, watcher
        check_replaceable(job.run / "export")
        self._setting: StageState = build_stage(job, world, watcher)
        self._step = self._setting.step
        self._checkpoints = Checkpoints(job.checkpoints, world, job.recipe.keeping.keep_last)
        self._journal = MetricsLogger(job.folder, self._step) if world.leads else None
        self._meter = Throughput(self._setting.model, self._setting.feed, world)
        self._method = method_of(self._setting, self._meter)
        self._saved = self._step
        self._data = self._setting.loader.state_dict()

    def run(self) -> StageSummary:
        setting = self._setting
        if self._world.leads:
            self._watcher.begin(setting.steps, self._step)
        try:
            stopping = self._world.any_of(self._watcher.stopping)
            if self._step == 0 and not stopping:
                self._evaluate()
            feed = iter(setting.feed)
            while self._step < setting.steps and not stopping:
                stopping = self._take_step(feed)
                if self._is_due(self._recipe.keeping.checkpoint_every) or stopping:
                    self._save()
                if self._is_due(self._recipe.keeping.evaluate_every) and self._step < setting.steps:
                    self._evaluate()
            return self._finish()
        except (TrainingUsageError, TrainingPaused):
            self._save()
            self._checkpoints.wait()
            raise
        finally:
            self._method.end()
            self._checkpoints.end()
            if self._journal:
                self._journal.close()

    def _is_due(self, every: int) -> bool:
        return every > 0 and self._step % every == 0

    def _take_step(self, feed: Iterator[TrainingBatch]) -> bool:
        """Whether the run is to stop after it."""
        setting, settings = self._setting, self._recipe.optimiser
        self._meter.begin()
        lesson = self._method.learn(feed, self._step)
        norm = _clipped(list(setting.trained.values()), settings.clip) if lesson.learnt else 0.0
        self._check_owner()
        stopping = self._world.any_of(self._watcher.stopping)
        if not math.isfinite(lesson.loss + norm):
            raise TrainingStopped(self._diverged(lesson, norm))
        if lesson.learnt:
            for group in setting.optimiser.param_groups:
                group["lr"] = settings.lr * min(1.0, (self._step + 1) / max(1, settings.warmup))
            setting.optimiser.step()
            setting.optimiser.zero_grad()
            if setting.average:
                setting.average.update()
        self._step += 1
        self._data = setting.loader.state_dict()
        if lesson.note and self._world.leads:
            self._watcher.note(f"step {self._step}: {lesson.note}")
        self._write(lesson, norm)
        return stopping

    def _diverged(self, lesson: StepOutput, norm: float) -> str:
        whole = latest(self._job.checkpoints)
        return (
            f"step {self._step + 1} has a loss of {lesson.loss} and a gradient of norm {norm}; nothing of it was"
            f" learnt. Its clips here were {', '.join(lesson.keys[:8])}. Look at those, or lower optimiser.lr or"
            f" optimiser.clip, and go on from {whole.name if whole else 'the beginning'}"
        )

    def _write(self, lesson: StepOutput, norm: float) -> None:
        numbers = {"loss": lesson.loss, "gradient_norm": norm, **lesson.numbers}
        optimiser = self._setting.optimiser
        numbers["lr"] = float(optimiser.param_groups[0]["lr"])
        if isinstance(optimiser, Prodigy):
            numbers["d"] = float(optimiser.d)
        numbers |= self._meter.end()
        if self._journal:
            self._journal.write("step", self._step, numbers)
            self._watcher.step(self._step, numbers)

    def _check_owner(self) -> None:
        """Before anything is written into the run's folder."""
        if self._world.leads:
            self._job.check_owner()

    def _evaluate(self) -> None:
        """On held-out clips, if there are any, with the averaged weights, likewise; draws the curves so far."""
        self._check_owner()
        panel, keeping = self._setting.heldout, self._recipe.keeping
        if panel:
            with self._setting.as_result():
                loss = panel.loss(self._setting.model)
                folder = self._job.folder / "samples" / f"step-{self._step}"
                panel.draw(self._setting.model, folder, keeping.sample_clips, keeping.sample_steps, keeping.guidance)
            if self._journal:
                self._journal.write("evaluation", self._step, {"heldout_loss": loss.model, "zero_loss": loss.zero})
                compared = f"{loss.model:.4f}, predicting zero {loss.zero:.4f}"
                self._watcher.note(f"step {self._step}: loss on {panel.count} held-out clips {compared}")
        if self._journal:
            self._journal.draw()

    def _save(self) -> None:
        if self._saved == self._step:
            return
        self._check_owner()
        self._checkpoints.save(self._setting.tensors(), self._setting.about(self._step, self._data))
        self._saved = self._step

    def _finish(self) -> StageSummary:
        self._save()
        setting, folder = self._setting, self._job.folder
        standing = StageSummary.read(folder) if self._step == setting.step else None
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
        self._check_owner()
        if self._world.leads:
            about = {**asdict(setting.about(self._step, self._data)), "summary": asdict(summary)}
            export(self._job.run / "export", bridge_config(setting.model), weights, self._job.originals, about)
            summary.write(folder)
        self._world.together()
        return summary

    def _summary(self) -> StageSummary:
        """With the losses and rewards that are written down, on the leading process."""
        written = entries(self._job.folder)
        losses = [line for line in written if line["event"] == "evaluation"]
        known = (
            {
                "heldout_before": losses[0]["heldout_loss"],
                "heldout_after": losses[-1]["heldout_loss"],
                "zero": losses[-1]["zero_loss"],
            }
            if losses
            else {}
        )
        if rewards := [line["reward_mean"] for line in written if "reward_mean" in line]:
            tenth = max(1, len(rewards) // 10)
            known |= {"reward_first": fmean(rewards[:tenth]), "reward_last": fmean(rewards[-tenth:])}
        recipe = self._recipe
        count = sum(parameter.numel() for parameter in self._setting.trained.values())
        return StageSummary(recipe.name, recipe.stage, self._step, self._setting.steps, count, **known)


def method_of(setting: StageState, meter: Throughput) -> Objective:
    if setting.reward:
        return Grpo(setting, meter, setting.reward)
    return FlowMatching(setting, meter)


def _clipped(parameters: list[Tensor], most: float) -> float:
    """The norm of all gradients together, before they were scaled to at most `most`."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, most)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
