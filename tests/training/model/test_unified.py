"""The model whole against diffusers' own LTXPipeline, call by call and over the whole way from noise to latents."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from diffusers import LTXPipeline, LTXVideoTransformer3DModel
from torch import Tensor

from nextscene.training.flow.sampler import guided, integrate
from nextscene.training.flow.schedule import sampling_sigmas
from nextscene.training.model.bridge import Bridge, Connector, Queries
from nextscene.training.model.grid import Grid, Ratios
from nextscene.training.model.language import encode_queries, encode_text
from nextscene.training.model.pretrained import new_bridge
from nextscene.training.model.prompter import Prompter
from nextscene.training.model.unified import UnifiedModel, coordinates
from tests.training import pretrained
from tests.training.models import ltx_config

FRAMES, HEIGHT, WIDTH = 9, 32, 64
GRID = Grid(3, 8, 16)
QUERIES = 6


@pytest.fixture(scope="module")
def pipeline() -> LTXPipeline:
    """Of which the transformer, and how it is called, is what the model is compared with."""
    torch.manual_seed(0)
    transformer = LTXVideoTransformer3DModel(**ltx_config()).eval()
    made = LTXPipeline(pretrained.scheduler(), pretrained.vae(), None, None, transformer)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def model(pipeline: LTXPipeline) -> UnifiedModel:
    torch.manual_seed(1)
    language = pretrained.language()
    bridge = new_bridge(language, pipeline.transformer, QUERIES, 0, seed=2)
    with torch.no_grad():
        bridge.connector.scale.fill_(1.0)  # as after training: so large that the condition decides
    return UnifiedModel(language, bridge, pipeline.transformer, Ratios.of(pipeline.vae))


class Call(NamedTuple):
    tokens: Tensor
    sigma: Tensor
    condition: Tensor


@pytest.fixture(scope="module")
def call() -> Call:
    draw = torch.Generator().manual_seed(3)
    tokens = torch.randn(3, GRID.tokens, 8, generator=draw)
    return Call(tokens, torch.tensor([1.0, 0.4321, 0.1]), torch.randn(3, QUERIES, 32, generator=draw))


def coords(fps: Tensor, grid: Grid = GRID) -> Tensor:
    return coordinates(grid, Ratios(4, 4), fps)


def as_the_pipeline_calls(pipeline: LTXPipeline, call: Call, fps: float, mask: Tensor | None) -> Tensor:
    predicted: Tensor = pipeline.transformer(
        hidden_states=call.tokens,
        encoder_hidden_states=call.condition,
        timestep=1000 * call.sigma,
        encoder_attention_mask=mask,
        num_frames=GRID.frames,
        height=GRID.height,
        width=GRID.width,
        rope_interpolation_scale=(
            pipeline.vae_temporal_compression_ratio / fps,
            pipeline.vae_spatial_compression_ratio,
            pipeline.vae_spatial_compression_ratio,
        ),
        return_dict=False,
    )[0]
    return predicted


# ---- one call ------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("fps", [16.0, 25.0, 23.976])
@pytest.mark.parametrize("mask", [None, torch.ones(3, QUERIES)])
def test_the_velocity_is_that_of_the_transformer_as_the_pipeline_calls_it(
    pipeline: LTXPipeline, model: UnifiedModel, call: Call, fps: float, mask: Tensor | None
) -> None:
    found = model.velocity(*call, coords(torch.full((3,), fps)))
    assert found.abs().mean() > 0.1
    torch.testing.assert_close(found, as_the_pipeline_calls(pipeline, call, fps, mask), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_clips_of_different_frame_rates_go_together_as_each_alone(
    pipeline: LTXPipeline, model: UnifiedModel, call: Call
) -> None:
    rates = [8.0, 16.0, 30.0]
    found = model.velocity(*call, coords(torch.tensor(rates)))
    for row, fps in enumerate(rates):
        alone = Call(*(part[row : row + 1] for part in call))
        torch.testing.assert_close(
            found[row : row + 1], as_the_pipeline_calls(pipeline, alone, fps, None), atol=1e-5, rtol=1e-5
        )


@torch.no_grad()
def test_frame_rate_timestep_and_condition_each_make_a_difference(model: UnifiedModel, call: Call) -> None:
    fps = torch.full((3,), 16.0)
    found = model.velocity(*call, coords(fps))
    for other, rate in [
        (call, fps / 2),
        (call._replace(sigma=call.sigma / 2), fps),
        (call._replace(condition=call.condition.flip(0)), fps),
    ]:
        assert (model.velocity(*other, coords(rate))[::2] - found[::2]).abs().max() > 1e-3


@torch.no_grad()
def test_the_frame_rate_of_an_image_makes_none(model: UnifiedModel, call: Call) -> None:
    image = call._replace(tokens=call.tokens[:, :20])
    slow, fast = (model.velocity(*image, coords(torch.full((3,), fps), Grid(1, 4, 5))) for fps in (1.0, 30.0))
    assert torch.equal(slow, fast)


# ---- the condition -------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_condition_is_float32_with_a_row_of_caption_width_per_query(
    model: UnifiedModel, pipeline: LTXPipeline
) -> None:
    words = Prompter(pretrained.tokenizer(), 256).tokenize(["A glass wobbles.", ""], ["nsp", "t2v"])
    condition = model.condition(words)
    assert condition.shape == (2, QUERIES, pipeline.transformer.config.caption_channels)
    assert condition.dtype == torch.float32
    states = encode_queries(
        model.language, encode_text(model.language, words), model.bridge.queries.embeddings.expand(2, -1, -1)
    )
    assert torch.equal(condition, model.bridge.connector(states))
    assert (condition[0] - condition[1]).abs().max() > 1e-2


@torch.no_grad()
def test_training_sees_the_velocity_under_the_condition_of_the_words(model: UnifiedModel, call: Call) -> None:
    words = Prompter(pretrained.tokenizer(), 256).tokenize(["A glass wobbles.", "", "Rain."], ["nsp"] * 3)
    places = coords(torch.full((3,), 16.0))
    expected = model.velocity(call.tokens, call.sigma, model.condition(words), places)
    assert torch.equal(model(words, call.tokens, call.sigma, places), expected)


def test_qwen_is_frozen_and_the_rest_gets_gradients(model: UnifiedModel, call: Call) -> None:
    words = Prompter(pretrained.tokenizer(), 256).tokenize(["A dog."] * 3, ["nsp"] * 3)
    model(words, call.tokens, call.sigma, coords(torch.full((3,), 16.0))).square().mean().backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad(set_to_none=True)
    assert reached == {name for name, _ in model.named_parameters() if not name.startswith("language.")}


# ---- from noise to latents -----------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("guidance", [3.0, 7.5])
def test_the_way_from_noise_to_latents_is_the_pipelines(
    pipeline: LTXPipeline, model: UnifiedModel, guidance: float
) -> None:
    words = Prompter(pretrained.tokenizer(), 256).tokenize(["", "", "A glass wobbles.", "Rain."], ["nsp"] * 4)
    condition = model.condition(words)
    without, given = condition.chunk(2)
    noise = torch.randn(2, GRID.tokens, 8, generator=torch.Generator().manual_seed(4))
    ones = torch.ones(2, QUERIES)
    expected = pipeline(
        prompt_embeds=given,
        prompt_attention_mask=ones,
        negative_prompt_embeds=without,
        negative_prompt_attention_mask=ones,
        latents=noise,
        height=HEIGHT,
        width=WIDTH,
        num_frames=FRAMES,
        num_inference_steps=6,
        guidance_scale=guidance,
        frame_rate=16,
        output_type="latent",
    ).frames
    places = coords(torch.full((4,), 16.0))
    velocity = guided(lambda tokens, sigma: model.velocity(tokens, sigma, condition, places), guidance)
    found = integrate(velocity, noise, sampling_sigmas(pretrained.scheduler(), 6, GRID.tokens))
    assert (found - noise).abs().mean() > 0.1 and (found[0] - found[1]).abs().mean() > 0.1
    assert (found - expected).abs().max() < 1e-6


# ---- the bridge ----------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("size", [0.1, 1.0, 300.0])
def test_what_leaves_a_new_connector_has_the_papers_size_whatever_qwens_is(size: float) -> None:
    torch.manual_seed(5)
    states = size * torch.randn(4, 16, 64)
    connector = Connector(64, 64, 128, eps=1e-12)
    for row in connector(states).flatten(0, 1):
        assert row.square().mean().sqrt().item() == pytest.approx(0.01 * math.sqrt(5.5), rel=1e-4)


@torch.no_grad()
def test_the_connector_is_linear_silu_linear_norm_scale() -> None:
    torch.manual_seed(6)
    connector = Connector(8, 12, 16, eps=1e-5)
    connector.norm.weight.copy_(torch.rand(16))
    connector.scale.fill_(0.3)
    states = torch.randn(2, 3, 8)
    inner = states @ connector.into.weight.T + connector.into.bias
    outer = (inner / (1 + torch.exp(-inner))) @ connector.out.weight.T + connector.out.bias
    size = (outer.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(connector(states), 0.3 * connector.norm.weight * outer / size)


def test_the_connector_works_in_float32_on_states_of_half_precision() -> None:
    states = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(7)).bfloat16()
    connector = Connector(8, 8, 8, eps=1e-5)
    assert torch.equal(connector(states), connector(states.float())) and connector(states).dtype == torch.float32


def test_a_bfloat16_connector_is_near_float32_and_has_float32_gradients() -> None:
    torch.manual_seed(6)
    connector, states = Connector(64, 64, 128, eps=1e-5), torch.randn(2, 3, 64)
    exact = connector(states)
    connector.bf16_products = True
    near = connector(states)
    assert near.dtype == torch.float32
    assert 0 < (near - exact).abs().max() < 0.02 * exact.abs().max()
    near.sum().backward()
    assert {parameter.grad.dtype for parameter in connector.parameters() if parameter.grad is not None} == {
        torch.float32
    }
    assert all(parameter.grad is not None for parameter in connector.parameters())


def test_the_queries_are_the_same_for_every_text_and_all_texts_teach_them() -> None:
    queries = Queries(5, 8)
    given = queries(3)
    assert given.shape == (3, 5, 8) and all(torch.equal(row, queries.embeddings) for row in given)
    given.sum().backward()
    assert torch.equal(queries.embeddings.grad, torch.full((5, 8), 3.0))


def test_new_queries_have_the_size_of_the_token_embeddings(pipeline: LTXPipeline) -> None:
    language = pretrained.language()
    sizes = [
        weight.detach().square().mean().sqrt().item()
        for weight in (
            new_bridge(language, pipeline.transformer, QUERIES, 0, seed=2).queries.embeddings,
            language.embed_tokens.weight,
        )
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-5)


def test_a_new_bridge_depends_on_its_seed_alone_and_disturbs_no_other_chance(pipeline: LTXPipeline) -> None:
    language = pretrained.language()
    states = []
    for outer, seed in [(1, 2), (99, 2), (1, 3)]:
        torch.manual_seed(outer)
        states.append(new_bridge(language, pipeline.transformer, QUERIES, 20, seed).state_dict())
        after = torch.rand(3)
        torch.manual_seed(outer)
        assert torch.equal(after, torch.rand(3))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["queries.embeddings"], states[2]["queries.embeddings"])
    assert states[0]["connector.into.weight"].shape == (20, 32)


def test_a_bridge_comes_back_from_its_folder_bit_by_bit(tmp_path: Path) -> None:
    torch.manual_seed(8)
    bridge = Bridge(16, 24, 3, 20, 1e-4)
    for parameter in bridge.parameters():
        torch.nn.init.normal_(parameter)
    bridge.save_pretrained(tmp_path)
    again = Bridge.from_pretrained(tmp_path)
    assert {name: again.config[name] for name in ("width", "out", "num_queries", "hidden", "eps")} == {
        "width": 16,
        "out": 24,
        "num_queries": 3,
        "hidden": 20,
        "eps": 1e-4,
    }
    assert again.connector.norm.eps == 1e-4
    before, after = bridge.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
