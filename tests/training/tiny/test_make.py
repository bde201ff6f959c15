"""The toy checkpoints: laid out as the published ones are, made whole or not at all, and good enough to learn from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXPipeline, LTXVideoTransformer3DModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLTextModel, T5EncoderModel

from nextscene.common.errors import UsageError
from nextscene.pipelines.make_tiny import main
from nextscene.samples.shapes.drawing import draw_clip
from nextscene.samples.shapes.verifier import observe
from nextscene.samples.shapes.world import Combination, combinations
from nextscene.shards.format.folder_mark import NotOurs
from nextscene.training.flow.objective import loss_per_sample, noised
from nextscene.training.flow.schedule import sampling_sigmas
from nextscene.training.model.bridge import Bridge
from nextscene.training.model.grid import Grid, Ratios
from nextscene.training.model.language import encode_queries, encode_text
from nextscene.training.model.latents import LatentScale, decode, encode, pack
from nextscene.training.model.pretrained import PretrainedModels
from nextscene.training.model.prompter import Prompter
from nextscene.training.model.unified import coordinates
from nextscene.training.tiny.autoencoder import fit
from nextscene.training.tiny.base import CONDITION_SIZE, pretrain
from nextscene.training.tiny.language import save_qwen, text_encoder
from nextscene.training.tiny.make import is_made, make_toy_models
from nextscene.training.tiny.spec import FILM, SHAPES, ToySpec
from tests.shards.clips import clip_dataset

pytestmark = pytest.mark.slow

SPEC = replace(FILM, steps=2)


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two videos of 17 frames, one that is too short for the toy model, and an image."""
    return clip_dataset(tmp_path_factory.mktemp("data"), [17, 17, 9, 1]).uri


@pytest.fixture(scope="module")
def made(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "tiny"
    ended = CliRunner().invoke(main, ["--data", data, "--out", str(out), "--steps", str(SPEC.steps)])
    assert ended.exit_code == 0, ended.stderr
    assert "--recipe tiny" in ended.stdout
    assert "Writing model shards" not in ended.stderr  # a bar of transformers'
    return out


# ---- Qwen ----------------------------------------------------------------------------------------------------------


def test_qwen_is_stored_with_the_names_and_precision_of_the_published_files(made: Path) -> None:
    weights = load_file(made / "qwen" / "model.safetensors")
    assert {name.split(".")[0] for name in weights} == {"model", "visual", "lm_head"}
    assert {name.split(".")[1] for name in weights if name.startswith("model.")} == {"embed_tokens", "layers", "norm"}
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    config = json.loads((made / "qwen" / "config.json").read_text())
    assert config["model_type"] == "qwen2_5_vl" and config["rope_scaling"]["type"] == "mrope"
    assert "text_config" not in config and config["vision_config"]["out_hidden_size"] == config["hidden_size"]


def test_the_whole_qwen_opens_with_nothing_missing_and_nothing_left_over(made: Path) -> None:
    _, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(made / "qwen", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_the_language_model_alone_opens_with_nothing_newly_initialised(made: Path) -> None:
    language, report = Qwen2_5_VLTextModel.from_pretrained(made / "qwen", output_loading_info=True)
    assert not report["missing_keys"] and not report["mismatched_keys"]
    assert all(name.startswith(("visual.", "lm_head.")) for name in report["unexpected_keys"])
    stored = load_file(made / "qwen" / "model.safetensors")
    opened = {f"model.{name}": value for name, value in language.state_dict().items()}
    assert opened.keys() == {name for name in stored if name.startswith("model.")}
    assert all(value.equal(stored[name].to(value.dtype)) for name, value in opened.items())


def test_a_chat_is_written_as_the_published_template_writes_it(made: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(made / "qwen")
    turns = [{"role": "user", "content": "A log swings."}]
    chat = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert chat == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nA log swings.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    told = [{"role": "system", "content": "Be brief."}, *turns, {"role": "assistant", "content": "It hits."}]
    assert tokenizer.apply_chat_template(told, tokenize=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nA log swings.<|im_end|>\n"
        "<|im_start|>assistant\nIt hits.<|im_end|>\n"
    )


def test_qwens_special_tokens_are_one_token_each_and_any_text_comes_back(made: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(made / "qwen")
    for special in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"):
        assert len(tokenizer(special)["input_ids"]) == 1
    for text in ("scene 1", "Ünwritten: 兔子, 3½ × 🐇\n\tand  so on"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert max(ids) < len(tokenizer)


def test_the_queries_read_the_text_without_any_training(tmp_path: Path) -> None:
    texts = [
        "A bunny wakes in his burrow.",
        "Three rodents laugh on a root.",
        "An arrow flies.",
        "Leaves fall at dusk.",
    ]
    torch.manual_seed(0)
    save_qwen(tmp_path, texts)
    language = Qwen2_5_VLTextModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    bridge = Bridge(language.config.hidden_size, 64, num_queries=8)
    bridge.match_embedding_scale(language.embed_tokens.weight)
    words = Prompter(AutoTokenizer.from_pretrained(tmp_path), most=256).tokenize(texts, ["nsp"] * len(texts))
    with torch.no_grad():
        states = encode_queries(language, encode_text(language, words), bridge.queries(len(texts)))
    by_text = (states - states.mean(0)).square().mean()
    assert by_text / (states - states.mean((0, 1))).square().mean() > 0.2


# ---- LTX-Video -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "kind"), [("transformer", LTXVideoTransformer3DModel), ("vae", AutoencoderKLLTXVideo)]
)
def test_the_parts_of_ltx_open_with_nothing_missing_and_nothing_left_over(made: Path, folder: str, kind: Any) -> None:
    _, report = kind.from_pretrained(made / "ltx", subfolder=folder, output_loading_info=True, low_cpu_mem_usage=False)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_the_text_encoder_opens_and_speaks_as_loud_as_the_connector_at_first(made: Path) -> None:
    encoder, report = T5EncoderModel.from_pretrained(made / "ltx" / "text_encoder", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokenizer = AutoTokenizer.from_pretrained(made / "ltx" / "tokenizer")
    with torch.no_grad():
        states = encoder(tokenizer("scene 1 caption 2", return_tensors="pt").input_ids)[0]
        connected = Bridge(64, encoder.config.d_model, 2, 64).connector(torch.randn(1, 2, 64))
    assert states.square().mean().sqrt().item() == pytest.approx(connected.square().mean().sqrt().item(), rel=0.01)


def test_the_schedule_is_that_of_ltx_video_0_9_0(made: Path) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(made / "ltx", subfolder="scheduler")
    wanted = {"use_dynamic_shifting": True, "base_shift": 0.95, "max_shift": 2.05, "shift_terminal": 0.1}
    assert wanted.items() <= scheduler.config.items()
    assert (scheduler.config.base_image_seq_len, scheduler.config.max_image_seq_len) == (1024, 4096)
    sigmas = sampling_sigmas(scheduler, 20, 3510).numpy()
    np.testing.assert_allclose(sigmas[[0, 1, 2, 3, 16, 17, 18, 19, 20]], PUBLISHED, atol=6e-4)


PUBLISHED = [1, 0.990, 0.979, 0.967, 0.535, 0.432, 0.295, 0.1, 0]
"""σ at both ends of 20 steps for 65 frames of 832×480."""


def test_ltxs_own_pipeline_opens_the_folder_and_makes_a_video(made: Path) -> None:
    pipeline = LTXPipeline.from_pretrained(made / "ltx", low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    video = pipeline(
        "scene 1", width=160, height=96, num_frames=17, frame_rate=16, num_inference_steps=2, output_type="np"
    ).frames
    assert video.shape == (1, 17, 96, 160, 3) and np.isfinite(video).all()


def test_the_trainer_finds_all_that_it_wants_in_the_two_folders(made: Path) -> None:
    pretrained = PretrainedModels(made / "qwen", made / "ltx")
    language, transformer = pretrained.language(torch.float32), pretrained.transformer(torch.float32)
    assert language.config.vocab_size == len(pretrained.tokenizer())
    assert transformer.config.in_channels == pretrained.vae(torch.float32).config.latent_channels
    assert Ratios.of(pretrained.vae(torch.float32)) == Ratios(8, 32)


# ---- what is learned ------------------------------------------------------------------------------------------------


def slopes(videos: int) -> Tensor:
    """Videos [N, 17, 64, 96, RGB] whose colors rise and fall evenly in time, down and across."""
    numbers = torch.rand(videos, 4, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    numbers[:, 0] *= 2
    axes = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in (17, 64, 96)), indexing="ij")
    video = torch.einsum("afhw,nac->nfhwc", torch.stack([torch.ones_like(axes[0]), *axes]), numbers)
    return ((video / 5 + 1) * 127.5).round().to(torch.uint8)


@pytest.fixture(scope="module")
def fitted() -> tuple[AutoencoderKLLTXVideo, Tensor]:
    return fit(slopes(24)), slopes(24)


def test_the_autoencoder_reconstructs_videos_of_fewer_dimensions_than_latents(
    fitted: tuple[AutoencoderKLLTXVideo, Tensor],
) -> None:
    """A cell of such a video has twelve."""
    vae, videos = fitted
    wrong = (decode(vae, encode(vae, videos).mean).float() - videos).square().mean()
    assert wrong < 0.01 * videos.float().var()


def test_latents_are_normal_by_the_mean_and_deviation_that_are_stored(
    fitted: tuple[AutoencoderKLLTXVideo, Tensor],
) -> None:
    """Over the posterior too: what a channel without content is divided by is no rounding error."""
    vae, videos = fitted
    latents = encode(vae, videos)
    noise = torch.randn(latents.mean.shape, generator=torch.Generator().manual_seed(0))
    normal = LatentScale.of(vae).normalize(latents.sample(noise))
    torch.testing.assert_close(normal.mean((0, 2, 3, 4)), torch.zeros(32), atol=0.2, rtol=0)
    torch.testing.assert_close(normal.std((0, 2, 3, 4)), torch.ones(32), atol=0.15, rtol=0)


def test_the_base_learns_to_tell_noise_from_videos_by_their_captions(
    fitted: tuple[AutoencoderKLLTXVideo, Tensor],
) -> None:
    vae, _ = fitted
    torch.manual_seed(0)
    videos, captions = slopes(2)[:, :9, :32, :64], ["red dusk over hills", "a blue pond at noon"]
    tokenizer, encoder = text_encoder(captions * 20, CONDITION_SIZE)
    told: list[None] = []
    transformer = pretrain(
        vae, tokenizer, encoder, videos, captions, 16.0, replace(FILM, steps=60), lambda: told.append(None)
    )
    assert len(told) == 60
    words = tokenizer(captions, padding="max_length", max_length=48, return_tensors="pt")
    clean = pack(LatentScale.of(vae).normalize(encode(vae, videos).mean))
    noise, sigma = torch.randn(64, *clean.shape[1:]), torch.linspace(0.7, 0.98, 64)
    losses = []
    with torch.no_grad():
        states = encoder(words.input_ids, attention_mask=words.attention_mask)[0]
        for text in (0, 1):
            predicted = transformer(
                noised(clean[:1].expand(64, -1, -1), noise, sigma),
                states[[text] * 64],
                1000 * sigma,
                words.attention_mask[[text] * 64],
                video_coords=coordinates(Grid(2, 1, 2), Ratios.of(vae), torch.full((64,), 16.0)),
                return_dict=False,
            )[0]
            losses.append(float(loss_per_sample(predicted, clean[:1].expand(64, -1, -1), noise).mean()))
    assert losses[0] < 0.5 * losses[1]
    assert losses[0] < 0.5 * float((noise - clean[:1]).square().mean())


def test_the_verifier_reads_clips_from_the_autoencoder_of_shapes() -> None:
    """Clips that it was not fitted to, one of each combination held out."""
    seen = [one for one in combinations() if not one.is_held_out]
    vae = fit(clips(seen, 0), SHAPES)
    held_out = [one for one in combinations() if one.is_held_out]
    decoded = decode(vae, encode(vae, clips(held_out, 1000)).mean)
    right = [all(observe(video).matches(one).values()) for video, one in zip(decoded.numpy(), held_out, strict=True)]
    assert sum(right) / len(right) >= 0.97


def clips(drawn: Sequence[Combination], seed: int) -> Tensor:
    size = (SHAPES.frames, SHAPES.width, SHAPES.height)
    return torch.from_numpy(np.stack([draw_clip(one, seed + number, *size) for number, one in enumerate(drawn)]))


# ---- made whole or not at all --------------------------------------------------------------------------------------


def sums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_data_gives_the_same_bytes_whoever_reads_it(data: str, made: Path, tmp_path: Path) -> None:
    torch.randn(3)
    make_toy_models(data, tmp_path / "again", SPEC, 1, quiet)
    assert sums(tmp_path / "again") == sums(made)


def test_they_stand_for_one_dataset_and_number_of_steps(data: str, made: Path, tmp_path: Path) -> None:
    assert is_made(data, made, SPEC)
    assert not is_made(data, made, replace(SPEC, steps=3))
    assert not is_made(clip_dataset(tmp_path, [17, 17, 17]).uri, made, SPEC)
    assert not is_made(data, tmp_path / "nowhere", SPEC)


def test_models_of_another_kind_are_never_replaced(data: str, made: Path) -> None:
    """A run may have been trained from them."""
    with pytest.raises(UsageError, match="holds toy models of another kind"):
        is_made(data, made, SHAPES)


def test_models_of_shapes_are_made_of_its_scenes_alone(data: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names 0 of the colors of this world"):
        make_toy_models(data, tmp_path / "tiny", SHAPES, 0, quiet)
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize("moment", ["reading the clips", "training the base transformer"])
def test_what_was_interrupted_leaves_nothing_behind_that_stands(data: str, tmp_path: Path, moment: str) -> None:
    def interrupt(what: str) -> None:
        if what == moment:
            raise KeyboardInterrupt

    out = tmp_path / "tiny"
    with pytest.raises(KeyboardInterrupt):
        make_toy_models(data, out, SPEC, 0, interrupt)
    assert not out.exists()
    make_toy_models(data, out, SPEC, 0, quiet)
    assert is_made(data, out, SPEC) and [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_folder_of_something_else_is_never_replaced(data: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "weights").write_text("a week's work")
    with pytest.raises(NotOurs, match="run holds 'weights'"):
        make_toy_models(data, tmp_path / "run", SPEC, 0, quiet)
    assert (tmp_path / "run" / "weights").read_text() == "a week's work"


def test_without_a_video_of_enough_frames_that_is_told(tmp_path: Path) -> None:
    short = clip_dataset(tmp_path / "data", [9, 9, 1]).uri
    with pytest.raises(UsageError, match="no video of 17 frames"):
        make_toy_models(short, tmp_path / "tiny", SPEC, 0, quiet)
    assert not (tmp_path / "tiny").exists()


def test_what_others_laid_beside_them_stays_when_they_are_made_anew(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lay(_data: str, draft: Path, spec: ToySpec, *_: object) -> None:
        for name in ("ltx", "qwen"):
            (draft / name).mkdir(parents=True)
            (draft / name / f"of {spec.steps}").touch()

    monkeypatch.setattr("nextscene.training.tiny.make._make", lay)
    out = tmp_path / "tiny"
    for steps in (1, 2):
        make_toy_models(data, out, replace(FILM, steps=steps), 0, quiet)
        (out / "notes.txt").write_text("mine")
        assert is_made(data, out, replace(FILM, steps=steps))
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert names == {"ltx/of 2", "qwen/of 2", "made.json", "nextscene.json", "notes.txt"}


# ---- the command ---------------------------------------------------------------------------------------------------


def test_the_command_finds_nothing_to_do_where_they_stand(data: str, made: Path) -> None:
    before = sums(made)
    ended = CliRunner().invoke(main, ["--data", data, "--out", str(made), "--steps", str(SPEC.steps)])
    assert ended.exit_code == 0 and "Nothing to do" in ended.output
    assert sums(made) == before


def test_the_command_says_in_a_line_that_there_is_no_dataset(tmp_path: Path) -> None:
    ended = CliRunner().invoke(main, ["--data", str(tmp_path / "none"), "--out", str(tmp_path / "tiny")])
    assert ended.exit_code == 2
    assert ended.output.count("\n") == 1 and "holds no dataset" in ended.output
