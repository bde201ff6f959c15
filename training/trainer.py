"""The training loop of one stage, from its first step to its export, on one CPU or on any number of GPUs."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from statistics import fmean

import torch

from nextscene.common.errors import UsageError
from nextscene.training.build_stage import build_stage
from nextscene.training.checkpoint import Checkpoints
from nextscene.training.checkpoint_info import latest
from nextscene.training.data.batches import TrainingBatch
from nextscene.training.distributed.process_group import World
from nextscene.training.errors import Diverged, StopRequested, TrainingPaused, TrainingStopped
from nextscene.training.export_record import export_record
from nextscene.training.job import TrainingJob, TrainingObserver
from nextscene.training.machine_faults import machine_faults
from nextscene.training.metrics.log_file import read_metrics
from nextscene.training.metrics.logger import MetricsLogger
from nextscene.training.metrics.throughput import Throughput
from nextscene.training.metrics.wandb_log import WandbLog
from nextscene.training.model.export import check_replaceable, export
from nextscene.training.model.quiet_libraries import silence_libraries
from nextscene.training.objectives import OBJECTIVES
from nextscene.training.objectives.base import StepOutput
from nextscene.training.objectives.flow_matching import sample_losses
from nextscene.training.optimizer.gradient_clipping import clip_gradients
from nextscene.training.optimizer.lr_schedule import learning_rate, set_learning_rate
from nextscene.training.optimizer.prodigy import Prodigy
from nextscene.training.recipe import STAGES
from nextscene.training.report.page_thread import PageThread
from nextscene.training.sample_layout import SAMPLES
from nextscene.training.sample_videos import PromptSamples, VideoSampler
from nextscene.training.stage import StageState, bridge_config
from nextscene.training.summary import UNKNOWN, StageSummary


def train(job: TrainingJob, world: World, observer: TrainingObserver) -> StageSummary:
    """Train a stage to its end, or until the observer asks to stop. All ranks call this alike.

    Raise UsageError if recipe, data, models and checkpoint do not fit together, TrainingStopped if the run cannot
    continue, TrainingPaused, after a checkpoint, if it can continue later, TooManyBadClips, and the errors of
    `machine_faults`.
    """
    silence_libraries()
    with machine_faults(job):
        return _Trainer(job, world, observer).run()


class _Trainer:
    _last_batch: TrainingBatch

    def __init__(self, job: TrainingJob, world: World, observer: TrainingObserver) -> None:
        self._job, self._recipe, self._world, self._observer = job, job.recipe, world, observer
        check_replaceable(job.run / "export")
        self._state: StageState = build_stage(job, world, observer)
        self._step = self._state.step
        self._checkpoints = Checkpoints(job.checkpoints, world, job.recipe.logging.keep_last)
        self._logger = self._build_logger() if world.is_leader else None
        self._page = PageThread(job.write_page) if world.is_leader else None
        self._sampler, self._prompts = self._build_samplers()
        self._throughput = Throughput(self._state.model, self._state.batches, world)
        self._objective = OBJECTIVES[STAGES[job.recipe.stage]](self._state, self._throughput)
        self._saved = self._step
        self._data = self._state.batches.state_dict()

    def run(self) -> StageSummary:
        state = self._state
        if self._world.is_leader:
            self._observer.begin(state.steps, self._step)
        try:
            stopping = self._asked_to_stop()
            if self._step == 0 and not stopping:
                self._evaluate()
            with closing(self._batches()) as batches:
                while self._step < state.steps and not stopping:
                    self._take_step(batches)
                    stopping = self._asked_to_stop()
                    if self._is_due(self._recipe.logging.checkpoint_every) or stopping:
                        self._save()
                    if self._is_due(self._recipe.logging.evaluate_every) and self._step < state.steps and not stopping:
                        self._evaluate()
                        stopping = self._asked_to_stop()
                self._save()
            return self._finish()
        except StopRequested:  # in the middle of a step, which a later run takes again
            self._save()
            self._objective.close()
            return self._finish()
        except (UsageError, TrainingPaused):
            if self._saved != self._step:  # the error may come of the leader's export, and is then its alone
                self._save()
                self._checkpoints.wait()
            raise
        finally:
            self._objective.close()
            self._checkpoints.close()
            if self._logger:
                self._logger.close()
            if self._page and (failure := self._page.finish()):
                self._observer.note(f"the page of the run was not written: {failure}")

    def _build_logger(self) -> MetricsLogger:
        project, recipe, folder = self._recipe.logging.wandb, self._recipe, self._job.folder
        wandb = WandbLog(project, folder, recipe.name, recipe.all_settings()) if project else None
        return MetricsLogger(folder, self._step, wandb)

    def _build_samplers(self) -> tuple[VideoSampler, PromptSamples | None]:
        state, config, prompts = self._state, self._recipe.logging, self._job.prompts
        sampler = VideoSampler(state.encoder, state.scheduler, config.sample_steps, config.guidance)
        return sampler, PromptSamples(prompts, self._recipe, sampler, self._world) if prompts else None

    def _is_due(self, every: int) -> bool:
        return every > 0 and self._step % every == 0

    def _asked_to_stop(self) -> bool:
        """Return, on all ranks alike, whether one of them was asked to stop."""
        return self._world.any_rank(self._observer.stopping)

    def _take_step(self, batches: Iterator[TrainingBatch]) -> None:
        """Take one optimizer step."""
        state, config = self._state, self._recipe.optimizer
        self._throughput.start_step()
        output = self._objective.compute_gradient(batches, self._step)
        norm = 0.0
        if output.has_gradient:
            norm = clip_gradients(list(state.trained_parameters.values()), config.max_grad_norm)
        self._check_owner()
        if not math.isfinite(output.loss + norm):
            raise self._not_finite(output, norm, batches)
        if output.has_gradient:
            set_learning_rate(state.optimizer, learning_rate(config, self._step))
            state.optimizer.step()
            state.optimizer.zero_grad()
            if state.ema:
                state.ema.update()
        self._step += 1
        self._data = state.batches.state_dict()
        if output.note and self._world.is_leader:
            self._observer.note(f"step {self._step}: {output.note}")
        self._log_step(output, norm)

    def _not_finite(self, output: StepOutput, norm: float, batches: Iterator[TrainingBatch]) -> TrainingStopped:
        """Return the error for a step with a loss or gradient that is not finite. Find out whose fault it is."""
        what = f"step {self._step + 1} has a loss of {output.loss} and a gradient of norm {norm}, and was not applied."
        if self._is_loss_finite(next(batches)):
            return TrainingStopped(
                f"{what} With the same weights other clips have a finite loss. Its clips here were"
                f" {', '.join(output.keys[:8])}: look at those, or lower optimizer.lr or optimizer.max_grad_norm, and"
                " continue from the last checkpoint"
            )
        return self._diverged(what)

    def _diverged(self, what: str) -> Diverged:
        self._checkpoints.wait()
        newest = latest(self._job.checkpoints)
        return Diverged(
            f"{what} The weights give no finite loss: the training has diverged. Lower optimizer.lr or"
            f" optimizer.max_grad_norm, and continue from {newest.name if newest else 'the beginning'}"
        )

    def _batches(self) -> Generator[TrainingBatch]:
        """Yield the batches, and remember the last one, for the loss of the weights that are to be saved."""
        with closing(iter(self._state.batches)) as batches:
            for batch in batches:
                self._last_batch = batch
                yield batch

    def _is_loss_finite(self, batch: TrainingBatch) -> bool:
        """Return True if the weights are finite, and their loss on a micro-batch of each rank is, too."""
        state = self._state
        with torch.no_grad():
            total = sample_losses(state.model, batch).sum()
        return not self._world.any_rank(not (math.isfinite(total.item()) and state.has_finite_weights()))

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
        """Log the validation loss on held-out clips, if there are any, and make samples for them and for the prompts.

        The loss is that of the averaged weights, which are exported, and of the weights as they are, if there is an
        average.
        """
        self._check_owner()
        state, validator = self._state, self._state.heldout
        folder = self._job.folder / SAMPLES / f"step-{self._step}"
        if self._prompts:
            with state.ema_weights():
                self._prompts.save(state.model, folder)
        if validator:
            own = validator.loss(state.model)
            with state.ema_weights():
                loss = validator.loss(state.model) if state.ema else own
                validator.save_samples(state.model, folder, self._recipe.logging.sample_clips, self._sampler)
            if self._logger:
                self._logger.log("evaluation", self._step, loss.metrics | {"heldout_loss_unaveraged": own.model})
                compared = f"{loss.model:.4f}, unaveraged {own.model:.4f}, predicting zero {loss.zero:.4f}"
                self._observer.note(f"step {self._step}: loss on {validator.count} held-out clips {compared}")
        if self._logger and self._page:
            self._logger.save_curves()
            self._page.submit()

    def _save(self) -> None:
        """Save a checkpoint, unless the weights have diverged: it must not take the place of a good one."""
        self._objective.flush()
        if self._saved == self._step:
            return
        self._check_owner()
        if not self._is_loss_finite(self._last_batch):
            raise self._diverged(f"step {self._step} gave weights that are not saved.")
        self._checkpoints.save(self._state.tensors(), self._state.checkpoint_info(self._step, self._data))
        self._saved = self._step

    def _finish(self) -> StageSummary:
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
            if state.ema:
                self._observer.note(
                    "the export has the moving average of the weights, of which"
                    f" {state.ema.start_share:.2%} are still those that the stage began with"
                )
            about = export_record(self._job, state.checkpoint_info(self._step, self._data), summary)
            half = self._recipe.logging.export_precision == "bf16"
            dtype = torch.bfloat16 if half else torch.float32
            export(self._job.run / "export", bridge_config(state.model), weights, self._job.pretrained, about, dtype)
            summary.write(folder)
            if cut := sum(line.get("texts_cut", 0) for line in read_metrics(folder)):
                self._observer.note(f"{cut:,.0f} texts did not fit, and lost their ends; raise `model.max_tokens`")
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
                "unaveraged": losses[-1].get("heldout_loss_unaveraged", -1.0),
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
