"""The models at full size, built without memory: their parameters, their tokens, and what a pass costs."""

from __future__ import annotations

from math import prod

import pytest
import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from torch import Tensor, nn
from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

from benchmarks.gpu.models import PUBLISHED
from nextscene.training.metrics.flops import connector_flops, language_flops, transformer_flops, vae_flops
from nextscene.training.model.grid import Ratios
from tests.training.counting import counted

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def transformer() -> LTXVideoTransformer3DModel:
    with torch.device("meta"):
        return LTXVideoTransformer3DModel(**PUBLISHED.transformer)


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLLTXVideo:
    with torch.device("meta"):
        return AutoencoderKLLTXVideo(**PUBLISHED.vae)


@pytest.fixture(scope="module")
def language() -> Qwen2_5_VLTextModel:
    with torch.device("meta"):
        return Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(**PUBLISHED.language))


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def test_the_transformer_is_the_published_one_which_diffusers_builds_by_default(
    transformer: LTXVideoTransformer3DModel,
) -> None:
    assert parameters(transformer) == 1_923_385_472
    with torch.device("meta"):
        assert shapes(transformer) == shapes(LTXVideoTransformer3DModel())


def test_the_autoencoder_is_the_published_one_which_diffusers_builds_by_default(vae: AutoencoderKLLTXVideo) -> None:
    assert parameters(vae) == 419_193_649
    with torch.device("meta"):
        assert shapes(vae) == shapes(AutoencoderKLLTXVideo())


def test_the_language_model_is_the_published_one_without_eyes_and_head(language: Qwen2_5_VLTextModel) -> None:
    assert parameters(language) == 7_070_619_136


@pytest.mark.parametrize(
    ("frames", "height", "width", "tokens"), [(65, 480, 832, 3510), (81, 480, 832, 4290), (1, 512, 512, 256)]
)
def test_a_clip_becomes_so_many_tokens(
    vae: AutoencoderKLLTXVideo, frames: int, height: int, width: int, tokens: int
) -> None:
    with torch.no_grad():
        latents = vae.encode(torch.empty(1, 3, frames, height, width, device="meta")).latent_dist.mean
    assert latents[0, 0].numel() == tokens
    assert Ratios.of(vae).grid(frames, height, width).tokens == tokens


@pytest.mark.parametrize(
    ("grid", "teraflops"), [((9, 15, 26), 14.705), ((1, 16, 16), 0.999), ((11, 15, 26), 18.71)], ids=str
)
def test_a_pass_of_the_transformer(
    transformer: LTXVideoTransformer3DModel, grid: tuple[int, int, int], teraflops: float
) -> None:
    frames, height, width = grid

    @torch.no_grad()
    def draw() -> Tensor:
        with torch.device("meta"):
            tokens, text, timestep = torch.empty(1, prod(grid), 128), torch.empty(1, 256, 4096), torch.empty(1)
        shape = {"num_frames": frames, "height": height, "width": width}
        velocity: Tensor = transformer(tokens, text, timestep, None, **shape).sample
        return velocity

    forward = transformer_flops(transformer.config, prod(grid), 256).forward
    assert forward == counted(draw)
    assert forward == pytest.approx(teraflops * 1e12, rel=5e-4)


@pytest.mark.parametrize(("tokens", "teraflops"), [(320, 4.217), (384, 5.071), (1024, 13.785)])
def test_a_pass_of_the_language_model(language: Qwen2_5_VLTextModel, tokens: int, teraflops: float) -> None:
    @torch.no_grad()
    def read() -> Tensor:
        states: Tensor = language(torch.empty(1, tokens, dtype=torch.long, device="meta")).last_hidden_state
        return states

    forward = language_flops(language.config, tokens).forward
    assert forward == counted(read)
    assert forward == pytest.approx(teraflops * 1e12, rel=2e-4)


def test_a_pass_of_the_autoencoder_each_way() -> None:
    assert vae_flops(PUBLISHED.vae, 65, 480, 832) == pytest.approx((21.36e12, 22.81e12), rel=5e-4)


def test_the_connector_is_two_products_of_its_weights() -> None:
    hidden, outputs, queries = 3584, 4096, 256
    weights = hidden * hidden + hidden * outputs
    assert weights + hidden + outputs == pytest.approx(27.5e6, rel=2e-3)
    assert connector_flops(hidden, hidden, outputs, queries).forward == 2 * queries * weights
