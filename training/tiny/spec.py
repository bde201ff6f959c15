"""Kinds of toy models: for any dataset, as the sample film, and for the world of moving shapes, which they learn.

Tested in tests/training/tiny/test_make.py.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ToySpec:
    """The sizes of toy models and the lengths of their trainings.

    Clips are brought to `frames` frames of `width`×`height` pixels. The autoencoder cuts patches of `patch` pixels of a
    side, folds `levels` times, has `vae_channels` channels within and `latents` outside, and scales the latents by the
    deviation of each channel to the power `whitening`: at 1 all have the same deviation. The transformer has `layers`
    layers of `hidden` channels with `heads` heads each, and is trained for `steps` steps with batches of `batch`. The
    language model is trained for `language_steps` steps to say what happens next; at 0 its weights stay random.
    """

    frames: int = 17
    width: int = 160
    height: int = 96
    patch: int = 4
    levels: int = 3
    vae_channels: int = 48
    latents: int = 32
    whitening: float = 1.0
    hidden: int = 128
    heads: int = 4
    layers: int = 4
    batch: int = 16
    steps: int = 400
    language_steps: int = 0


FILM = ToySpec()
SHAPES = ToySpec(
    frames=9,
    width=64,
    height=64,
    patch=16,
    levels=2,
    vae_channels=128,
    latents=64,
    whitening=0.5,
    hidden=192,
    batch=32,
    steps=1500,
    language_steps=600,
)
"""A latent stands for all of a frame: LTX-Video's transformer knows only how tokens lie to one another, and would take
long to learn where each of several lies."""

SPECS = {"film": FILM, "shapes": SHAPES}
"""Name → kind of toy models."""
