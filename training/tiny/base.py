"""A small LTX-Video transformer, trained on captions with its own text encoder. The stages start from it.

Tested in tests/training/tiny/test_make.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXVideoTransformer3DModel
from torch import Tensor
from transformers import T5EncoderModel, T5Tokenizer

from nextscene.training.config import TimestepDensity
from nextscene.training.flow.objective import loss_per_sample, noised
from nextscene.training.flow.schedule import mu, training_sigma
from nextscene.training.model.grid import Grid, Ratios
from nextscene.training.model.latents import LatentScale, encode, pack
from nextscene.training.model.unified import coordinates
from nextscene.training.tiny.spec import ToySpec

CONDITION_SIZE = 0.01 * 5.5**0.5
"""The root mean square of the connector's initial output, and of the condition that this transformer is trained on."""

_RATE = 2e-3
_DROPOUT = 0.1
_TOKENS = 48


def ltx_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Return the scheduler with the settings of LTX-Video 0.9.0."""
    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        shift_terminal=0.1,
    )


def pretrain(
    vae: AutoencoderKLLTXVideo,
    tokenizer: T5Tokenizer,
    encoder: T5EncoderModel,
    videos: Tensor,
    captions: Sequence[str],
    fps: float,
    spec: ToySpec,
    tick: Callable[[], None],
) -> LTXVideoTransformer3DModel:
    """Return a transformer trained on uint8 videos [N, F, H, W, RGB] of one shape, with their captions.

    `tick` is called after each of its steps.
    """
    latents = torch.cat([encode(vae, some).mean for some in torch.split(videos, 16)])
    grid = Grid(*latents.shape[2:])
    clean = pack(LatentScale.of(vae).normalize(latents))
    states, mask = _encoded(tokenizer, encoder, [*captions, ""])
    transformer = LTXVideoTransformer3DModel(
        in_channels=spec.latents,
        out_channels=spec.latents,
        num_attention_heads=spec.heads,
        attention_head_dim=spec.hidden // spec.heads,
        cross_attention_dim=spec.hidden,
        caption_channels=states.shape[2],
        num_layers=spec.layers,
    )
    with torch.no_grad():
        transformer.caption_projection.linear_1.weight.div_(CONDITION_SIZE)
    optimizer = torch.optim.AdamW(transformer.parameters(), lr=_RATE, betas=(0.9, 0.99), fused=True)
    falling = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=max(spec.steps, 2), pct_start=0.1)
    places = coordinates(grid, Ratios.of(vae), torch.full((spec.batch,), fps))
    shift = mu(ltx_scheduler(), grid.tokens)
    for _ in range(spec.steps):
        chosen = torch.randint(len(clean), (spec.batch,))
        texts = torch.where(torch.rand(spec.batch) < _DROPOUT, len(captions), chosen)
        sigma = training_sigma(TimestepDensity(), shift, torch.randn(spec.batch), torch.rand(spec.batch, 2))
        noise = torch.randn(spec.batch, *clean.shape[1:])
        predicted = transformer(
            noised(clean[chosen], noise, sigma),
            states[texts],
            1000 * sigma,
            mask[texts],
            video_coords=places,
            return_dict=False,
        )[0]
        torch.autograd.backward(loss_per_sample(predicted, clean[chosen], noise).mean())
        torch.nn.utils.clip_grad_norm_(transformer.parameters(), 1.0)
        optimizer.step()
        falling.step()
        optimizer.zero_grad()
        tick()
    return transformer.eval()


@torch.no_grad()
def _encoded(tokenizer: T5Tokenizer, encoder: T5EncoderModel, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the states of texts, [texts, tokens, width], and a mask that is 0 for padding."""
    words = tokenizer(list(texts), padding="longest", max_length=_TOKENS, truncation=True, return_tensors="pt")
    return encoder(words.input_ids, attention_mask=words.attention_mask)[0], words.attention_mask
