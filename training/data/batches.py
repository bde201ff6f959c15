"""Preparation of micro-batches, one ahead of training: from samples of the shards to text tokens, latents and noise.

Tested in tests/training/data/test_batches.py and tests/training/test_trainer.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from nextscene.shards.loading.loader import Batch, Loader
from nextscene.shards.loading.shuffle import SampleRef
from nextscene.training.config import MixConfig, ObjectiveConfig
from nextscene.training.data.sample_noise import sample_noise
from nextscene.training.flow.schedule import mu, training_sigma
from nextscene.training.machine_faults import memory_for
from nextscene.training.model.grid import Grid, Ratios
from nextscene.training.model.language import TokenBatch
from nextscene.training.model.latents import Latents, LatentScale, encode, pack
from nextscene.training.model.model_folders import architecture_config
from nextscene.training.model.prompter import Prompter
from nextscene.training.model.unified import coordinates

T = TypeVar("T")

_ENCODE_BEFORE = "lower `data.max_frames`, or compute the latents before (nextscene encode)"
_ENCODED_FRAMES = 65  # frames encoded at once: a clip of the paper's length, or as many images


class TrainingBatch(NamedTuple):
    """A micro-batch of B samples with S latent tokens each.

    `texts` are the texts of the samples. `text_tokens` are the tokens that the model is given; a text that is dropped
    (dropout) is replaced by the empty text.
    `clean`, `noise` [B, S, C] and `sigma` [B] define the noisy latents. `fps` is [B], `coords` [B, 3, S] the
    coordinates of the tokens. `refs` name the samples, `keys` their clips. `vae_encoded` is the number of clips that
    went through the VAE. `weight` is that of each sample in the mean over the global batch, 0 if the batch only fills
    the place of a rank that has none in this turn; `last` is True for the last one of an optimizer step.
    """

    text_tokens: TokenBatch
    texts: list[str]
    sources: list[int]
    refs: list[SampleRef]
    clean: Tensor
    noise: Tensor
    sigma: Tensor
    fps: Tensor
    coords: Tensor
    grid: Grid
    keys: list[str]
    vae_encoded: int
    weight: float = 1.0
    last: bool = True

    def describe(self, ratios: Ratios) -> str:
        """Return the micro-batch in words, with its shape."""
        return f"a micro-batch of {_shape(len(self.keys), *ratios.clip(self.grid))}, {self.grid.tokens:,} tokens each"


def one_step(batches: Iterator[TrainingBatch]) -> Iterator[TrainingBatch]:
    """Yield the micro-batches of one optimizer step, as many as it has on every rank."""
    while True:
        batch = next(batches)
        yield batch
        if batch.last:
            return


@dataclass(frozen=True)
class BatchEncoder:
    """An encoder of samples of the shards into latents and text tokens on `device`."""

    vae: AutoencoderKLLTXVideo
    prompter: Prompter
    mix: tuple[MixConfig, ...]
    device: torch.device

    def latents(self, video: Tensor) -> Latents:
        """Return the posterior of clips: encoded from uint8 pixels, or as stored, [B, C + 1, F', H', W']."""
        if video.dtype == torch.uint8:
            pieces = torch.split(video, max(1, _ENCODED_FRAMES // video.shape[1]))
            with memory_for(lambda: f"the autoencoder with {_shape(*pieces[0].shape[:4])}", _ENCODE_BEFORE):
                encoded = [encode(self.vae, self.moved(piece)) for piece in pieces]
                return Latents(*map(torch.cat, zip(*encoded, strict=True)))
        stored = self.moved(video).float()
        return Latents(stored[:, :-1], stored[:, -1:])

    def moved(self, values: Tensor) -> Tensor:
        """Return a tensor of the CPU on the device. A copy to a GPU goes by pinned memory, and is not waited for."""
        return values.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else values

    def normalized_tokens(self, latents: Tensor) -> Tensor:
        """Return normalized tokens [B, S, C] of latents [B, C, F', H', W']."""
        return pack(LatentScale.of(self.vae).normalize(latents))

    def select_text(self, source: int, scene: str, caption: str) -> str:
        """Return the text of a sample to train on: scene or caption, as the mix says for dataset number `source`."""
        return scene if self.mix[source].text == "scene" else caption

    def tokenize(self, texts: Sequence[str], sources: Sequence[int]) -> TokenBatch:
        """Return the tokens of texts, each in the prompt of its dataset in the mix."""
        tokens = self.prompter.tokenize(texts, [self.mix[source].prompt for source in sources])
        return TokenBatch(self.moved(tokens.ids), self.moved(tokens.mask), tokens.cut)


class BatchPreparer:
    """An endless iterable of this rank's micro-batches.

    The next one is prepared in a thread while the present one is used, on a GPU in a stream of its own; errors are
    raised when the batch is due. `wait_seconds` is the total time that was spent waiting for a batch. Only one
    iteration may be under way; close it to end the thread.
    """

    def __init__(
        self,
        loader: Loader,
        encoder: BatchEncoder,
        objective: ObjectiveConfig,
        scheduler: FlowMatchEulerDiscreteScheduler,
        seed: int,
    ) -> None:
        self._loader, self._encoder, self._objective = loader, encoder, objective
        self._scheduler, self._seed = scheduler, seed
        self._ratios = Ratios.of(encoder.vae)
        self._consumed: dict[str, int] | None = None
        self.wait_seconds = 0.0

    @property
    def vae_config(self) -> dict[str, Any]:
        """The architecture of the VAE."""
        return architecture_config(self._encoder.vae.config)

    def state_dict(self) -> dict[str, int]:
        """Return the state of the loader after the batches that were yielded, not after those prepared ahead."""
        return self._consumed or self._loader.state_dict()

    def __iter__(self) -> Generator[TrainingBatch]:
        """Iterate from the state of the loader on, or from behind the last batch that was yielded."""
        if self._consumed:
            self._loader.load_state_dict(self._consumed)
        samples = iter(self._loader)
        # The first samples are read by this thread: the loader's workers are its children, and their death its signal.
        first, stream = self._timed(lambda: next(samples)), _side_stream(self._encoder.device)
        with ThreadPoolExecutor(1, "prepare-batch") as thread:
            coming = thread.submit(self._ready, [first], stream)
            while True:
                ready = self._timed(coming.result)
                coming = thread.submit(self._ready, samples, stream)
                self._consumed = ready.state
                yield ready.received()

    def _timed(self, wait: Callable[[], T]) -> T:
        begun = time.perf_counter()
        try:
            return wait()
        finally:
            self.wait_seconds += time.perf_counter() - begun

    def _ready(self, samples: Iterable[Batch], stream: torch.cuda.Stream | None) -> _ReadyBatch:
        """Return the next batch, prepared, and the state of the loader after it."""
        with torch.cuda.stream(stream) if stream else nullcontext():
            batch = self._prepare(next(iter(samples)))
            return _ReadyBatch(batch, self._loader.state_dict(), stream.record_event() if stream else None)

    def _prepare(self, batch: Batch) -> TrainingBatch:
        encoder = self._encoder
        posterior = encoder.latents(batch.video)
        random = sample_noise(self._seed, batch.refs, posterior.mean.shape[1:])
        texts = [encoder.select_text(*one) for one in zip(batch.source, batch.text, batch.caption, strict=True)]
        dropped = (random.drop < self._objective.dropout).tolist()
        given = ["" if drop else text for drop, text in zip(dropped, texts, strict=True)]
        grid = Grid(*posterior.mean.shape[2:])
        shift = mu(self._scheduler, grid.tokens)
        sigma = training_sigma(self._objective.density, shift, random.normal, random.uniform)
        fps = encoder.moved(torch.tensor(batch.fps))
        return TrainingBatch(
            encoder.tokenize(given, batch.source),
            texts,
            batch.source,
            batch.refs,
            encoder.normalized_tokens(posterior.sample(encoder.moved(random.posterior))),
            pack(encoder.moved(random.noise)),
            encoder.moved(sigma),
            fps,
            coordinates(grid, self._ratios, fps),
            grid,
            batch.keys,
            len(batch.keys) if batch.video.dtype == torch.uint8 else 0,
            batch.weight,
            batch.last,
        )


class _ReadyBatch(NamedTuple):
    """A prepared batch, the state of the loader after it, and the end of its preparation on a GPU."""

    batch: TrainingBatch
    state: dict[str, int]
    prepared: torch.cuda.Event | None

    def received(self) -> TrainingBatch:
        """Return the batch for use in the present stream, which waits for its preparation."""
        if self.prepared:
            stream = torch.cuda.current_stream()
            stream.wait_event(self.prepared)
            for value in (*self.batch.text_tokens, *self.batch):
                if isinstance(value, Tensor):
                    value.record_stream(stream)  # its memory is the side stream's, which may not reuse it too soon
        return self.batch


def _side_stream(device: torch.device) -> torch.cuda.Stream | None:
    """Return a stream that begins after what the present one has been given, for example the weights of the VAE."""
    if device.type != "cuda":
        return None
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    return stream


def _shape(samples: int, frames: int, height: int, width: int) -> str:
    return f"{samples} × {frames} frames of {width}×{height}"


def check_fits(shapes: Sequence[Sequence[int]], ratios: Ratios, name: str) -> None:
    """Raise ValueError if the dataset `name` has a shape [frames, width, height] that the VAE does not accept."""
    for frames, width, height in shapes:
        try:
            ratios.grid(frames, height, width)
        except ValueError as error:
            raise ValueError(f"the dataset {name!r} holds clips that the VAE does not take: {error}") from error
