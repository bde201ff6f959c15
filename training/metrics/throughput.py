"""Throughput of the training steps, and the share of time spent waiting for data.

Tested in tests/training/metrics/test_flops.py.
"""

from __future__ import annotations

import resource
import time

import torch

from nextscene.training.config import PolicyConfig
from nextscene.training.data.batches import BatchPreparer, TrainingBatch
from nextscene.training.distributed.process_group import World
from nextscene.training.metrics.costs import model_sizes, vae_of_grid
from nextscene.training.metrics.flops import StepFlops, VaeFlops, flow_matching_flops, grpo_flops, peak_flops
from nextscene.training.model.grid import Grid
from nextscene.training.model.language import TokenBatch
from nextscene.training.model.unified import UnifiedModel


class Throughput:
    """A counter of micro-batches and groups that returns these numbers for each step:

    `samples_per_second` and `tokens_per_second` of all ranks together, and `texts_cut`, the number of their texts that
    were too long; `tflops_…` of all ranks, separately for transformer, language model, connector and VAE; `mfu`, the
    share of the peak FLOPs of all GPUs, for those whose peak is known; `straggling`, the FLOPs of the slowest rank of
    each turn over the mean of the ranks, by which a step takes longer than if the ranks never waited for one another;
    `seconds`; `data_wait`, the share of time spent waiting for a batch, and `peak_memory_gb`, both of this rank.
    """

    def __init__(self, model: UnifiedModel, batches: BatchPreparer, world: World) -> None:
        self._model, self._batches, self._world = model, batches, world
        name = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else ""
        self._peak = peak_flops(name, model.dtype)
        self._trained = model.trains_transformer

    def start_step(self) -> None:
        """Start the time and the counts of a step."""
        self._begun, self._waited = time.perf_counter(), self._batches.wait_seconds
        self._samples = self._tokens = self._cut = 0
        self._work = StepFlops(0, 0, 0, 0)
        self._turns: list[int] = []

    def count_micro_batch(self, batch: TrainingBatch) -> None:
        """Count a micro-batch of flow matching. One that counts nothing is work only for `straggling`."""
        clips, grid = len(batch.keys), batch.grid
        prefix = batch.text_tokens.ids.shape[1]
        encode = self._vae(grid).encode if batch.vae_encoded else 0
        work = flow_matching_flops(model_sizes(self._model, grid, prefix), clips, self._trained, encode)
        self._turns.append(work.total)
        if batch.weight:
            self._cut += batch.text_tokens.cut
            self._add(clips, grid, work)

    def count_group(self, grid: Grid, text_tokens: TokenBatch, policy: PolicyConfig, learned_steps: int) -> None:
        """Count the candidates of one scene. `learned_steps` steps of each selected candidate are learned from."""
        sizes = model_sizes(self._model, grid, text_tokens.ids.shape[1])
        work = grpo_flops(sizes, policy, learned_steps, self._trained, self._vae(grid).decode)
        self._cut += text_tokens.cut
        self._turns.append(work.total)
        self._add(policy.group_size, grid, work)

    def _add(self, clips: int, grid: Grid, work: StepFlops) -> None:
        self._samples += clips
        self._tokens += clips * grid.tokens
        self._work += work

    def _vae(self, grid: Grid) -> VaeFlops:
        return vae_of_grid(self._model, self._batches.vae_config, grid)

    def end_step(self) -> dict[str, float]:
        """Return the numbers of a step.

        Call this when the loss of the step is known on the CPU: then the device has finished its work, and the time
        includes all of it.
        """
        seconds = time.perf_counter() - self._begun
        work = self._work
        mine = [self._samples, self._tokens, self._cut, work.transformer, work.language, work.connector, work.vae]
        samples, tokens, cut, *flops = self._world.all_reduce_sum(torch.tensor(mine, dtype=torch.float64)).tolist()
        slowest = float(self._world.all_reduce_maxima(torch.tensor(self._turns, dtype=torch.float64)).sum())
        names = ("transformer", "language", "connector", "vae")
        numbers = {
            "seconds": seconds,
            "samples_per_second": samples / seconds,
            "tokens_per_second": tokens / seconds,
            "straggling": slowest / (sum(flops) / self._world.size),
            "texts_cut": cut,
            "data_wait": (self._batches.wait_seconds - self._waited) / seconds,
            "peak_memory_gb": self._peak_memory() / 1e9,
        }
        numbers |= {f"tflops_{name}": total / 1e12 for name, total in zip(names, flops, strict=True)}
        if self._peak:
            numbers["mfu"] = sum(flops) / seconds / self._peak / self._world.size
        return numbers

    def _peak_memory(self) -> int:
        if self._world.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._world.device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
