"""One stage of training, from its first step to its export: the same loop on one CPU and on any number of GPUs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from statistics import fmean

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from nextscene.common.errors import UsageError
from nextscene.training.checkpoint import Checkpoints
from nextscene.training.checkpoint_info import latest
from nextscene.training.data.batches import TrainingBatch
from nextscene.training.distributed.process_group import World
from nextscene.training.errors import TrainingPaused, TrainingStopped
from nextscene.training.job import TrainingJob, TrainingObserver
from nextscene.training.metrics.logger import MetricsLogger, read_metrics
from nextscene.training.metrics.throughput import Throughput
from nextscene.training.model.export import check_replaceable, export
from nextscene.training.objectives.base import Objective, StepOutput
from nextscene.training.objectives.flow_matching import FlowMatching
from nextscene.training.objectives.grpo.grpo import Grpo
from nextscene.training.optimizer.prodigy import Prodigy
from nextscene.training.stage import StageState, bridge_config, build_stage
from nextscene.training.summary import UNKNOWN, StageSummary


def train(job: TrainingJob, world: World, observer: TrainingObserver) -> StageSummary:
    """Trains a stage to its end, or until the observer has it stop. All processes of the world call this alike.

    Raises UsageError for what does not fit, TrainingStopped where the run cannot go on, TrainingPaused after a
    checkpoint of what it came to; TooManyBadClips.
    """
    return _Trainer(job, world, observer).run()


class _Trainer:
    def __init__(self, job: TrainingJob, world: World, observer: TrainingObserver) -> None:
        self._job, self._recipe, self._world, self._observer = job, job.recipe, world, observer
        check_replaceable(job.run / "export")
        self._state: StageState = build_stage(job, world, observer)
        self._step = self._state.step
        self._checkpoints = Checkpoints(job.checkpoints, world, job.recipe.keeping.keep_last)
        self._logger = MetricsLogger(job.folder, self._step) if world.is_leader else None
        self._throughput = Throughput(self._state.model, self._state.batches, world)
        self._method = build_objective(self._state, self._throughput)
        self._saved = self._step
        self._data = self._state.loader.state_dict()

    def run(self) -> StageSummary:
        state = self._state
        if self._world.is_leader:
            self._observer.begin(state.steps, self._step)
        try:
            stopping = self._world.any_rank(self._observer.stopping)
            if self._step == 0 and not stopping:
                self._evaluate()
            batches = iter(state.batches)
            while self._step < state.steps and not stopping:
                stopping = self._take_step(batches)
                if self._is_due(self._recipe.keeping.checkpoint_every) or stopping:
                    self._save()
                if self._is_due(self._recipe.keeping.evaluate_every) and self._step < state.steps:
                    self._evaluate()
            return self._finish()
        except (UsageError, TrainingPaused):
            self._save()
            self._checkpoints.wait()
            raise
        finally:
            self._method.end()
            self._checkpoints.end()
            if self._logger:
                self._logger.close()

    def _is_due(self, every: int) -> bool:
        return every > 0 and self._step % every == 0

    def _take_step(self, batches: Iterator[TrainingBatch]) -> bool:
        """Whether the run is to stop after it."""
        state, settings = self._state, self._recipe.optimiser
        self._throughput.begin()
        output = self._method.compute_gradient(batches, self._step)
        norm = _clipped(list(state.trained_parameters.values()), settings.clip) if output.learnt else 0.0
        self._check_owner()
        stopping = self._world.any_rank(self._observer.stopping)
        if not math.isfinite(output.loss + norm):
            raise TrainingStopped(self._diverged(output, norm))
        if output.learnt:
            for group in state.optimiser.param_groups:
                group["lr"] = settings.lr * min(1.0, (self._step + 1) / max(1, settings.warmup))
            state.optimiser.step()
            state.optimiser.zero_grad()
            if state.ema:
                state.ema.update()
        self._step += 1
        self._data = state.loader.state_dict()
        if output.note and self._world.is_leader:
            self._observer.note(f"step {self._step}: {output.note}")
        self._write(output, norm)
        return stopping

    def _diverged(self, output: StepOutput, norm: float) -> str:
        whole = latest(self._job.checkpoints)
        return (
            f"step {self._step + 1} has a loss of {output.loss} and a gradient of norm {norm}; nothing of it was"
            f" learnt. Its clips here were {', '.join(output.keys[:8])}. Look at those, or lower optimiser.lr or"
            f" optimiser.clip, and go on from {whole.name if whole else 'the beginning'}"
        )

    def _write(self, output: StepOutput, norm: float) -> None:
        numbers = {"loss": output.loss, "gradient_norm": norm, **output.numbers}
        optimiser = self._state.optimiser
        numbers["lr"] = float(optimiser.param_groups[0]["lr"])
        if isinstance(optimiser, Prodigy):
            numbers["d"] = float(optimiser.d)
        numbers |= self._throughput.end()
        if self._logger:
            self._logger.write("step", self._step, numbers)
            self._observer.step(self._step, numbers)

    def _check_owner(self) -> None:
        """Before anything is written into the run's folder."""
        if self._world.is_leader:
            self._job.check_owner()

    def _evaluate(self) -> None:
        """On held-out clips, if there are any, with the averaged weights, likewise; draws the curves so far."""
        self._check_owner()
        panel, keeping = self._state.heldout, self._recipe.keeping
        if panel:
            with self._state.ema_weights():
                loss = panel.loss(self._state.model)
                folder = self._job.folder / "samples" / f"step-{self._step}"
                panel.save_samples(
                    self._state.model, folder, keeping.sample_clips, keeping.sample_steps, keeping.guidance
                )
            if self._logger:
                self._logger.write("evaluation", self._step, {"heldout_loss": loss.model, "zero_loss": loss.zero})
                compared = f"{loss.model:.4f}, predicting zero {loss.zero:.4f}"
                self._observer.note(f"step {self._step}: loss on {panel.count} held-out clips {compared}")
        if self._logger:
            self._logger.save_curves()

    def _save(self) -> None:
        if self._saved == self._step:
            return
        self._check_owner()
        self._checkpoints.save(self._state.tensors(), self._state.about(self._step, self._data))
        self._saved = self._step

    def _finish(self) -> StageSummary:
        self._save()
        state, folder = self._state, self._job.folder
        standing = StageSummary.read(folder) if self._step == state.step else None
        self._checkpoints.wait()
        if self._step < state.steps:
            return self._summary()
        if standing and standing.finished:
            return standing
        self._evaluate()
        with state.ema_weights():
            seen = state.seen.text_ablation(state.model) if state.seen else UNKNOWN
            heldout = state.heldout.text_ablation(state.model) if state.heldout else UNKNOWN
        weights = state.result()
        summary = replace(self._summary(), seen=seen, heldout=heldout)
        self._check_owner()
        if self._world.is_leader:
            about = {**asdict(state.about(self._step, self._data)), "summary": asdict(summary)}
            export(self._job.run / "export", bridge_config(state.model), weights, self._job.pretrained, about)
            summary.write(folder)
        self._world.barrier()
        return summary

    def _summary(self) -> StageSummary:
        """With the losses and rewards that are written down, on the leading process."""
        written = read_metrics(self._job.folder)
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
        count = sum(parameter.numel() for parameter in self._state.trained_parameters.values())
        return StageSummary(recipe.name, recipe.stage, self._step, self._state.steps, count, **known)


def build_objective(state: StageState, throughput: Throughput) -> Objective:
    if state.reward:
        return Grpo(state, throughput, state.reward)
    return FlowMatching(state, throughput)


def _clipped(parameters: list[Tensor], most: float) -> float:
    """The norm of all gradients together, before they were scaled to at most `most`."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, most)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
