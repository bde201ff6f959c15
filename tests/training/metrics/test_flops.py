"""The closed forms of the FLOPs equal, to the unit, what torch counts while the real classes run."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from math import prod

import pytest
import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import DynamicCache, Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

from nextscene.training.metrics.flops import (
    Flops,
    ModelSizes,
    connector_flops,
    flow_matching_flops,
    language_flops,
    peak_flops,
    transformer_flops,
    vae_flops,
)
from tests.training.counting import counted
from tests.training.models import ltx_config, qwen_config, vae_config

pytestmark = pytest.mark.slow


def counted_thrice(model: nn.Module, run: Callable[[bool], Tensor]) -> Flops:
    """`run` is told whether what goes into the model shall get a gradient."""
    model.requires_grad_(False)
    forward = counted(lambda: run(False))
    frozen = counted(lambda: run(True), backward=True)
    model.requires_grad_(True)
    return Flops(forward, frozen, counted(lambda: run(True), backward=True))


def draw(model: LTXVideoTransformer3DModel, grid: tuple[int, int, int], text: Tensor) -> Tensor:
    frames, height, width = grid
    velocity: Tensor = model(
        torch.randn(len(text), prod(grid), model.config.in_channels),
        text,
        1000 * torch.rand(len(text)),
        None,
        num_frames=frames,
        height=height,
        width=width,
        rope_interpolation_scale=(1.0, 1.0, 1.0),
        return_dict=False,
    )[0]
    return velocity


def read(model: Qwen2_5_VLTextModel, embeddings: Tensor, past: DynamicCache) -> Tensor:
    """Adds to `past`."""
    states: Tensor = model(inputs_embeds=embeddings, past_key_values=past, use_cache=True).last_hidden_state
    return states


def past_of(model: Qwen2_5_VLTextModel, clips: int, tokens: int) -> DynamicCache:
    past = DynamicCache(config=model.config)
    if tokens:
        with torch.no_grad():
            read(model, torch.randn(clips, tokens, model.config.hidden_size), past)
    return past


grids = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
few = st.integers(1, 3)


@settings(max_examples=12, deadline=None)
@given(grids, st.integers(1, 6), few, few, st.sampled_from([(6, 10, 20), (8, 8, 32), (16, 4, 48)]))
def test_the_transformer_costs_what_torch_counts(
    grid: tuple[int, int, int], text_tokens: int, clips: int, layers: int, channels: tuple[int, int, int]
) -> None:
    names = ("in_channels", "out_channels", "caption_channels")
    config = ltx_config() | dict(zip(names, channels, strict=True)) | {"num_layers": layers}
    model = LTXVideoTransformer3DModel(**config)
    found = counted_thrice(
        model, lambda gradient: draw(model, grid, torch.randn(clips, text_tokens, channels[2], requires_grad=gradient))
    )
    assert transformer_flops(model.config, prod(grid), text_tokens, clips) == found


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 9), st.integers(0, 9), few, few, st.sampled_from([1, 2, 4]))
def test_the_language_model_costs_what_torch_counts(
    new_tokens: int, past_tokens: int, clips: int, layers: int, key_heads: int
) -> None:
    some = {"num_hidden_layers": layers, "num_key_value_heads": key_heads}
    model = Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(**qwen_config() | some))
    past = past_of(model, clips, past_tokens)
    found = counted_thrice(
        model, lambda gradient: read(model, torch.randn(clips, new_tokens, 32, requires_grad=gradient), deepcopy(past))
    )
    assert language_flops(model.config, new_tokens, past_tokens, clips) == found


@given(st.integers(1, 1024), st.integers(1, 256), few)
def test_the_prefix_read_first_saves_its_attention_to_the_queries_alone(prefix: int, queries: int, clips: int) -> None:
    config = Qwen2_5_VLTextConfig(**qwen_config())
    apart = language_flops(config, prefix, 0, clips) + language_flops(config, queries, prefix, clips)
    saved = language_flops(config, prefix + queries, 0, clips).forward - apart.forward
    products, multiply_add = 2, 2
    assert saved == clips * 2 * products * multiply_add * prefix * queries * 32


@pytest.mark.parametrize(("hidden", "width", "outputs", "queries", "clips"), [(32, 48, 20, 7, 1), (6, 5, 4, 3, 2)])
def test_the_connector_costs_what_torch_counts(hidden: int, width: int, outputs: int, queries: int, clips: int) -> None:
    model = nn.Sequential(nn.Linear(hidden, width), nn.SiLU(), nn.Linear(width, outputs))
    found = counted_thrice(model, lambda gradient: model(torch.randn(clips, queries, hidden, requires_grad=gradient)))
    assert connector_flops(hidden, width, outputs, queries, clips) == found


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 8, 8), (5, 8, 12), (9, 16, 4)])
def test_the_autoencoder_costs_what_its_convolutions_do(frames: int, height: int, width: int) -> None:
    vae = AutoencoderKLLTXVideo(**vae_config())
    found = []

    def note(convolution: nn.Module, _: object, result: Tensor) -> None:
        assert isinstance(convolution, nn.Conv3d)
        found.append(2 * result.numel() * convolution.in_channels * prod(convolution.kernel_size))

    for module in vae.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(note)
    with torch.no_grad():
        latents = vae.encode(torch.randn(1, 3, frames, height, width)).latent_dist.mean
        encode = sum(found)
        vae.decode(latents, None)
    assert vae_flops(vae.config, frames, height, width) == (encode, sum(found) - encode)


@pytest.mark.parametrize("trained", [True, False])
def test_the_flops_of_a_micro_batch_are_what_torch_counts_in_a_training_step(trained: bool) -> None:
    clips, prefix, queries, grid = 2, 5, 3, (2, 3, 4)
    language = Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(**qwen_config())).requires_grad_(False)
    transformer = LTXVideoTransformer3DModel(**ltx_config()).requires_grad_(trained)
    vae = AutoencoderKLLTXVideo(**vae_config()).requires_grad_(False)
    connector = nn.Sequential(nn.Linear(32, 24), nn.SiLU(), nn.Linear(24, 32))
    asked = nn.Parameter(torch.randn(1, queries, 32))

    def loss() -> Tensor:
        vae.encode(torch.randn(clips, 3, 5, 12, 16))
        states = read(language, asked.expand(clips, -1, -1), past_of(language, clips, prefix))
        return draw(transformer, grid, connector(states))

    sizes = ModelSizes(transformer.config, language.config, prod(grid), prefix, queries, connector_width=24)
    work = flow_matching_flops(sizes, clips, trained, encode=vae_flops(vae.config, 5, 12, 16).encode)
    assert work.total == counted(loss, backward=True)


def test_latents_that_are_stored_cost_nothing() -> None:
    language = Qwen2_5_VLTextConfig(**qwen_config())
    sizes = ModelSizes(ltx_config(), language, tokens=24, prefix=5, queries=3, connector_width=24)
    assert flow_matching_flops(sizes, clips=1, transformer_trained=True).vae == 0


@pytest.mark.parametrize(
    ("device", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA GeForce RTX 4090", None),
        ("cpu", None),
    ],
)
def test_the_peak_is_known_of_whole_cards_of_the_data_sheets(device: str, peak: float | None) -> None:
    assert peak_flops(device, torch.bfloat16) == peak


def test_no_peak_is_given_for_another_precision() -> None:
    assert peak_flops("NVIDIA H200", torch.float32) is None
