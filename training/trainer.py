"""The training loop of one stage, from its first step to its export, on one CPU or on any number of GPUs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from statistics import fmean

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
from nextscene.training.objectives import OBJECTIVES
from nextscene.training.objectives.base import StepOutput
from nextscene.training.optimizer.gradient_clipping import clip_gradients
from nextscene.training.optimizer.lr_schedule import learning_rate, set_learning_rate
from nextscene.training.optimizer.prodigy import Prodigy
from nextscene.training.recipe import STAGES
from nextscene.training.stage import StageState, bridge_config, build_stage
from nextscene.training.summary import UNKNOWN, StageSummary


def train(job: TrainingJob, world: World, observer: TrainingObserver) -> StageSummary:
    """Train a stage to its end, or until the observer asks to stop. All ranks call this alike.

    Raise UsageError if recipe, data, models and checkpoint do not fit together, TrainingStopped if the run cannot
    continue, TrainingPaused, after a checkpoint, if it can continue later, and TooManyBadClips.
    """
    return _Trainer(job, world, observer).run()


class _Trainer:
    def __init__(self, job: TrainingJob, world: World, observer: TrainingObserver) -> None:
        self._job, self._recipe, self._world, self._observer = job, job.recipe, world, observer
        check_replaceable(job.run / "export")
        self._state: StageState = build_stage(job, world, observer)
        self._step = self._state.step
        self._checkpoints = Checkpoints(job.checkpoints, world, job.recipe.logging.keep_last)
        self._logger = MetricsLogger(job.folder, self._step) if world.is_leader else None
        self._throughput = Throughput(self._state.model, self._state.batches, world)
        self._objective = OBJECTIVES[STAGES[job.recipe.stage]](self._state, self._throughput)
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
                if self._is_due(self._recipe.logging.checkpoint_every) or stopping:
                    self._save()
                if self._is_due(self._recipe.logging.evaluate_every) and self._step < state.steps:
                    self._evaluate()
            return self._finish()
        except (UsageError, TrainingPaused):
            self._save()
            self._checkpoints.wait()
            raise
        finally:
            self._objective.close()
            self._checkpoints.close()
            if self._logger:
                self._logger.close()

    def _is_due(self, every: int) -> bool:
        return every > 0 and self._step % every == 0

    def _take_step(self, batches: Iterator[TrainingBatch]) -> bool:
        """Take one optimizer step, and return True if the run is to stop after it."""
        state, config = self._state, self._recipe.optimizer
        self._throughput.start_step()
        output = self._objective.compute_gradient(batches, self._step)
        norm = 0.0
        if output.has_gradient:
            norm = clip_gradients(list(state.trained_parameters.values()), config.max_grad_norm)
        self._check_owner()
        stopping = self._world.any_rank(self._observer.stopping)
        if not math.isfinite(output.loss + norm):
            raise TrainingStopped(self._diverged(output, norm))
        if output.has_gradient:
            set_learning_rate(state.optimizer, learning_rate(config, self._step))
            state.optimizer.step()
            state.optimizer.zero_grad()
            if state.ema:
                state.ema.update()
        self._step += 1
        self._data = state.loader.state_dict()
        if output.note and self._world.is_leader:
            self._observer.note(f"step {self._step}: {output.note}")
        self._log_step(output, norm)
        return stopping

    def _diverged(self, output: StepOutput, norm: float) -> str:
        newest = latest(self._job.checkpoints)
        return (
            f"step {self._step + 1} has a loss of {output.loss} and a gradient of norm {norm}, and was not applied."
            f" Its clips here were {', '.join(output.keys[:8])}. Look at those, or lower optimizer.lr or"
            f" optimizer.max_grad_norm, and go on from {newest.name if newest else 'the beginning'}"
        )

    def _log_step(self, output: StepOutput, norm: float) -> None:
        metrics = {"loss": output.loss, "gradient_norm": norm, **output.metrics}
        optimizer = self._state.optimizer
        metrics["lr"] = float(optimizer.param_groups[0]["lr"])
        if isinstance(optimizer, Prodigy):
            metrics["d"] = float(optimizer.d)
        metrics |= self._throughput.end_step()
        if self._logger:
            self._logger.log("step", self._step, metrics)
            self._observer.step(self._step, metrics)

    def _check_owner(self) -> None:
        """Raise TrainingStopped, on the leading rank, if the run's lock was lost. Called before anything is written."""
        if self._world.is_leader:
            self._job.check_owner()

    def _evaluate(self) -> None:
        """Log the validation loss of the averaged weights on held-out clips, if there are any, and make samples."""
        self._check_owner()
        validator, config = self._state.heldout, self._recipe.logging
        if validator:
            with self._state.ema_weights():
                loss = validator.loss(self._state.model)
                folder = self._job.folder / "samples" / f"step-{self._step}"
                validator.save_samples(
                    self._state.model, folder, config.sample_clips, config.sample_steps, config.guidance
                )
            if self._logger:
                self._logger.log("evaluation", self._step, {"heldout_loss": loss.model, "zero_loss": loss.zero})
                compared = f"{loss.model:.4f}, predicting zero {loss.zero:.4f}"
                self._observer.note(f"step {self._step}: loss on {validator.count} held-out clips {compared}")
        if self._logger:
            self._logger.save_curves()

    def _save(self) -> None:
        self._objective.flush()
        if self._saved == self._step:
            return
        self._check_owner()
        self._checkpoints.save(self._state.tensors(), self._state.checkpoint_info(self._step, self._data))
        self._saved = self._step

    def _finish(self) -> StageSummary:
        self._save()
        state, folder = self._state, self._job.folder
        existing = StageSummary.read(folder) if self._step == state.step else None
        self._checkpoints.wait()
        if self._step < state.steps:
            return self._summary()
        if existing and existing.finished:
            return existing
        self._evaluate()
        with state.ema_weights():
            seen = state.seen.text_ablation(state.model) if state.seen else UNKNOWN
            heldout = state.heldout.text_ablation(state.model) if state.heldout else UNKNOWN
        weights = state.export_weights()
        summary = replace(self._summary(), seen=seen, heldout=heldout)
        self._check_owner()
        if self._world.is_leader:
            about = {**asdict(state.checkpoint_info(self._step, self._data)), "summary": asdict(summary)}
            export(self._job.run / "export", bridge_config(state.model), weights, self._job.pretrained, about)
            summary.write(folder)
        self._world.barrier()
        return summary

    def _summary(self) -> StageSummary:
        """Return the summary so far. On the leading rank it has the losses and rewards that were logged."""
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
