"""Videos out of texts: as diffusers' LTXPipeline makes them, each by its own text and seed, from any kind of folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXPipeline, LTXVideoTransformer3DModel
from torch import Tensor
from transformers import T5EncoderModel, T5Tokenizer

from nextscene.common.errors import UsageError
from nextscene.training.checkpoint_info import latest
from nextscene.training.distributed.process_group import process_group
from nextscene.training.errors import TrainingStopped
from nextscene.training.generation.base import Sampling
from nextscene.training.generation.ltx_video import LtxVideo
from nextscene.training.generation.next_scene import NextScene
from nextscene.training.generation.open_generator import of_checkpoint, of_export, of_original
from nextscene.training.model.export import open_export
from nextscene.training.model.grid import Ratios
from nextscene.training.model.pretrained import PretrainedModels
from nextscene.training.model.prompter import Prompter
from nextscene.training.model.unified import UnifiedModel
from nextscene.training.trainer import train
from tests.training.generators import DETERMINING, QUERIES, make_export, save_text_encoder
from tests.training.stages import SMALL, Quiet, make_data, make_job, make_originals

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
TEXTS = ["A glass wobbles.", "Dark clouds begin to gather over the forest, and the wind rises."]
SEEDS = [11, 2**40]
ASKED = {"frames": 5, "width": 32, "height": 32, "steps": 3}
"""LTXPipeline takes multiples of 32 only, whatever the VAE is."""

THEIRS = {"num_frames": 5, "width": 32, "height": 32, "num_inference_steps": 3}
"""The same, in its words."""


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> PretrainedModels:
    """Read only."""
    made = make_originals(tmp_path_factory.mktemp("originals"))
    save_text_encoder(made.ltx)
    return made


@pytest.fixture(scope="module")
def exported(pretrained: PretrainedModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_export(tmp_path_factory.mktemp("run") / "export", pretrained)


def ours(folder: Path, **asked: Any) -> NextScene:
    made = of_export(folder, **{**ASKED, **asked}).open(CPU)
    assert isinstance(made, NextScene)
    return made


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def levels(pictures: Tensor) -> Tensor:
    """Pictures in 0…1, as uint8 has them, but not cut to it."""
    return 255 * pictures


# ---- the model trained here ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipeline(exported: Path) -> LTXPipeline:
    folders = open_export(exported)[1]
    made = LTXPipeline(folders.scheduler(), folders.vae(torch.float32), None, None, folders.transformer(torch.float32))
    made.set_progress_bar_config(disable=True)
    return made


@torch.no_grad()
def embeddings(exported: Path, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Of the texts and of none for each, all read together."""
    bridge, folders = open_export(exported)
    transformer, vae = folders.transformer(torch.float32), folders.vae(torch.float32)
    model = UnifiedModel(folders.language(torch.float32), bridge, transformer, Ratios.of(vae))
    words = Prompter(folders.tokenizer(), 256 - QUERIES).tokenize(
        [*texts, *[""] * len(texts)], ["nsp"] * 2 * len(texts)
    )
    given, without = model.condition(words).chunk(2)
    return given, without


@pytest.fixture(scope="module")
def theirs(exported: Path, pipeline: LTXPipeline) -> dict[str, Any]:
    """The call of LTXPipeline that says the same; it draws its noise itself."""
    given, without = embeddings(exported, TEXTS)
    ones = torch.ones(len(TEXTS), QUERIES)
    return {
        "prompt_embeds": given,
        "prompt_attention_mask": ones,
        "negative_prompt_embeds": without,
        "negative_prompt_attention_mask": ones,
        "frame_rate": 16,
        **THEIRS,
    }


@pytest.mark.parametrize("guidance", [1.0, 3.0, 7.5])
def test_the_final_latents_equal_ltxpipeline_s_for_equal_embeddings_and_seeds(
    exported: Path, pipeline: LTXPipeline, theirs: dict[str, Any], guidance: float
) -> None:
    expected = pipeline(**theirs, guidance_scale=guidance, generator=generators(SEEDS), output_type="latent").frames
    found = ours(exported, guidance=guidance).latents(TEXTS, SEEDS)
    assert (found[0] - found[1]).abs().mean() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_videos_are_those_of_ltxpipeline(exported: Path, pipeline: LTXPipeline, theirs: dict[str, Any]) -> None:
    expected = pipeline(**theirs, generator=generators(SEEDS), output_type="pt").frames.movedim(2, -1)
    found = ours(exported).videos(TEXTS, SEEDS)
    assert found.shape == (2, 5, 32, 32, 3) and found.dtype == torch.uint8 and found.device == CPU
    assert found.float().std() > 2
    assert (found - levels(expected)).abs().max() < 0.51


def test_a_video_does_not_depend_on_what_it_is_made_beside_of(exported: Path) -> None:
    model = ours(exported)
    texts, seeds = [*TEXTS, "Rain. " * 20], [*SEEDS, 3]
    torch.manual_seed(1)
    together = model.latents(texts, seeds)
    for row in range(3):
        torch.manual_seed(2)
        alone = model.latents(texts[row : row + 1], seeds[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_text_seed_prompt_guidance_and_frame_rate_each_make_a_difference(exported: Path) -> None:
    model = ours(exported, steps=2)
    found = model.latents(TEXTS[:1], [1])
    assert torch.equal(model.latents(TEXTS[:1], [1]), found)
    others = [
        model.latents(TEXTS[1:], [1]),
        model.latents(TEXTS[:1], [2]),
        ours(exported, steps=2, form="t2v").latents(TEXTS[:1], [1]),
        ours(exported, steps=2, guidance=4.0).latents(TEXTS[:1], [1]),
        ours(exported, steps=2, fps=8.0).latents(TEXTS[:1], [1]),
    ]
    assert all((other - found).abs().max() > 1e-3 for other in others)


def test_the_unconditional_text_is_read_once_and_never_without_guidance(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    tokenize = Prompter.tokenize

    def noting(self: Prompter, texts: Sequence[str], forms: Sequence[Any]) -> Any:
        read.extend(texts)
        return tokenize(self, texts, forms)

    monkeypatch.setattr(Prompter, "tokenize", noting)
    model = ours(exported)
    for seed in (1, 2):
        model.latents(TEXTS, [seed, seed])
    assert sorted(read) == sorted(["", *2 * TEXTS])
    read.clear()
    ours(exported, guidance=1.0).latents(TEXTS, SEEDS)
    assert read == TEXTS


# ---- what it is opened from ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(pretrained: PretrainedModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage that was trained, with averaged weights that are far from the last ones."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = replace(
        SMALL,
        steps=2,
        trainable=("bridge.*", "transformer.*"),
        data=replace(SMALL.data, global_batch=1),
        optimizer=replace(SMALL.optimizer, kind="adamw", lr=0.05, ema=0.5),
        logging=replace(SMALL.logging, evaluate_clips=0),
    )
    with process_group() as world:
        train(make_job(make_data(folder / "data"), pretrained, folder / "run", recipe), world, Quiet())
    return folder / "run"


def test_the_checkpoint_and_the_export_of_a_run_give_the_same_video(pretrained: PretrainedModels, run: Path) -> None:
    checkpoint = latest(run / "generator" / "checkpoints")
    assert checkpoint
    openings = of_export(run / "export", **ASKED), of_checkpoint(checkpoint, pretrained.qwen, pretrained.ltx, **ASKED)
    one, other = (opening.open(CPU) for opening in openings)
    assert isinstance(one, NextScene) and isinstance(other, NextScene)
    assert one.sampling == other.sampling == Sampling(5, 32, 32, steps=3)
    assert all(name.startswith("generator-2-nsp-") for name in (one.name, other.name))
    assert torch.equal(one.latents(TEXTS, SEEDS), other.latents(TEXTS, SEEDS))


def test_the_models_of_another_checkpoint_are_refused(pretrained: PretrainedModels, run: Path, tmp_path: Path) -> None:
    checkpoint = latest(run / "generator" / "checkpoints")
    assert checkpoint
    shutil.copytree(pretrained.ltx, tmp_path / "ltx")
    config = tmp_path / "ltx" / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"num_layers": 2', '"num_layers": 1'))
    with pytest.raises(UsageError, match="other models than `qwen` and `ltx` name"):
        of_checkpoint(checkpoint, pretrained.qwen, tmp_path / "ltx").open(CPU)


def test_length_and_size_are_those_of_training_unless_others_are_asked_for(exported: Path) -> None:
    assert of_export(exported).sampling == Sampling(frames=9, width=32, height=24)
    assert of_export(exported, width=64, guidance=1.0).sampling == Sampling(9, 64, 24, guidance=1.0)


def test_a_name_tells_recipe_step_form_and_weights(
    pretrained: PretrainedModels, exported: Path, tmp_path: Path
) -> None:
    name = of_export(exported).name
    assert name.rpartition("-")[0] == "sft-7-nsp"
    assert of_export(exported, "t2v").name == name.replace("nsp", "t2v")
    assert of_export(make_export(tmp_path / "same", pretrained)).name == name
    assert of_export(make_export(tmp_path / "other", pretrained, seed=3)).name != name


@pytest.mark.parametrize(
    ("asked", "words"), [({"frames": 8}, "8 frames"), ({"width": 30}, "30×32"), ({"height": 2}, "32×2")]
)
def test_a_video_that_the_vae_does_not_make_is_refused(exported: Path, asked: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ours(exported, **asked)


def test_a_folder_that_is_no_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{tmp_path} holds no trained model"):
        of_export(tmp_path)


def test_too_many_videos_for_the_gpu_stop_with_the_remedy(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Tensor:
        raise torch.OutOfMemoryError

    model = ours(exported)
    monkeypatch.setattr(UnifiedModel, "velocity", full)
    with pytest.raises(TrainingStopped, match=r"2 at once: .* smaller `batch`"):
        model.videos(TEXTS, SEEDS)


# ---- the original --------------------------------------------------------------------------------------------------


def test_the_original_gives_what_ltxpipeline_gives_by_itself(pretrained: PretrainedModels) -> None:
    """At the pipeline's own frame rate, guidance and negative prompt."""
    direct = LTXPipeline(
        FlowMatchEulerDiscreteScheduler.from_pretrained(pretrained.ltx, subfolder="scheduler"),
        AutoencoderKLLTXVideo.from_pretrained(pretrained.ltx, subfolder="vae", low_cpu_mem_usage=False),
        T5EncoderModel.from_pretrained(pretrained.ltx, subfolder="text_encoder"),
        T5Tokenizer.from_pretrained(pretrained.ltx, subfolder="tokenizer"),
        LTXVideoTransformer3DModel.from_pretrained(pretrained.ltx, subfolder="transformer", low_cpu_mem_usage=False),
    )
    direct.set_progress_bar_config(disable=True)
    expected = direct(TEXTS, **THEIRS, generator=generators(SEEDS), output_type="pt").frames.movedim(2, -1)
    made = of_original(pretrained.ltx, **ASKED).open(CPU)
    assert isinstance(made, LtxVideo) and made.sampling == Sampling(5, 32, 32, fps=25.0, steps=3)
    found = made.videos(TEXTS, SEEDS)
    assert found.dtype == torch.uint8 and (found[0].float() - found[1]).abs().mean() > 2
    assert (found - levels(expected)).abs().max() < 0.51


def test_a_video_of_the_original_does_not_depend_on_what_it_is_made_beside_of(pretrained: PretrainedModels) -> None:
    made = of_original(pretrained.ltx, **ASKED).open(CPU)
    assert isinstance(made, LtxVideo)
    together = made.latents(TEXTS, SEEDS)
    assert (made.latents(TEXTS[:1], SEEDS[1:]) - together[:1]).abs().max() > 1e-3
    for row in range(2):
        alone = made.latents(TEXTS[row : row + 1], SEEDS[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_an_original_without_its_text_encoder_is_refused(exported: Path) -> None:
    with pytest.raises(UsageError, match="holds no text_encoder"):
        of_original(exported).open(CPU)


def test_the_sizes_of_a_run_are_known_by_the_names_of_its_recipe() -> None:
    determining = SMALL.identity_settings()
    assert DETERMINING.keys() <= determining.keys()
