"""Folders in the layouts that the models were published in are opened, and what training wrote is opened again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXVideoTransformer3DModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLTextModel

from nextscene.common.errors import UsageError
from nextscene.training.config import LoggingConfig
from nextscene.training.distributed.process_group import current_world
from nextscene.training.model.bridge import Bridge
from nextscene.training.model.export import check_replaceable, export, open_export
from nextscene.training.model.model_folders import architecture_config, read_export_info
from nextscene.training.model.pretrained import PretrainedModels, new_bridge, open_vae
from nextscene.training.summary import StageSummary
from nextscene.training.trainer import train
from tests.training import pretrained as toy
from tests.training.models import ltx_config, qwen_config
from tests.training.stages import SMALL, Quiet, make_data, make_job

pytestmark = pytest.mark.slow

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> PretrainedModels:
    """Read only."""
    return toy.make_originals(tmp_path_factory.mktemp("originals"))


def assert_equal(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_a_folder_without_what_reads_text_is_refused(pretrained: PretrainedModels, tmp_path: Path) -> None:
    """Qwen's own tokenizer, other than the toy's, is made even without its words."""
    shutil.copytree(pretrained.qwen, tmp_path / "qwen")
    lacking = replace(pretrained, qwen=tmp_path / "qwen")
    (tmp_path / "qwen" / "chat_template.jinja").unlink()
    with pytest.raises(UsageError, match=f"{tmp_path}/qwen holds no chat template"):
        lacking.tokenizer()
    (tmp_path / "qwen" / "tokenizer.json").unlink()
    settings = tmp_path / "qwen" / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"tokenizer_class": "Qwen2Tokenizer"}))
    with pytest.raises(UsageError, match=f"{tmp_path}/qwen holds no tokenizer that knows a text"):
        lacking.tokenizer()


def test_a_configuration_that_is_none_is_named(pretrained: PretrainedModels, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match=f"{tmp_path}/config.json is not the configuration of a model"):
        _ = replace(pretrained, qwen=tmp_path).fingerprint


@pytest.mark.parametrize("about", ["{}", "[]", "{"])
def test_an_export_whose_record_is_none_is_refused(tmp_path: Path, about: str) -> None:
    (tmp_path / "nextscene.json").write_text(about)
    with pytest.raises(UsageError, match=f"{tmp_path} holds no trained model"):
        read_export_info(tmp_path)


@pytest.mark.parametrize("content", ["{}", "[1]", "{"])
def test_a_summary_that_is_none_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(UsageError, match=r"summary\.json is not the summary of a stage; delete it"):
        StageSummary.read(tmp_path)


def test_a_vae_that_decodes_with_a_timestep_is_refused(pretrained: PretrainedModels, tmp_path: Path) -> None:
    shutil.copytree(pretrained.ltx / "vae", tmp_path / "vae")
    config = tmp_path / "vae" / "config.json"
    later = json.loads(config.read_text()) | {"timestep_conditioning": True}
    config.write_text(json.dumps(later))
    with pytest.raises(UsageError, match=f"{tmp_path}/vae decodes with a timestep.*name LTX-Video 0.9.0"):
        open_vae(tmp_path, torch.float32)


# ---- as published --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole() -> Qwen2_5_VLForConditionalGeneration:
    """With its vision tower and head."""
    torch.manual_seed(3)
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 32}
    text = {name: value for name, value in qwen_config().items() if name != "tie_word_embeddings"}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    return Qwen2_5_VLForConditionalGeneration(config).bfloat16().eval()


def published_name(name: str) -> str:
    for now, then in (("model.language_model.", "model."), ("model.visual.", "visual.")):
        if name.startswith(now):
            return then + name.removeprefix(now)
    return name


@pytest.fixture(scope="module")
def published(whole: Qwen2_5_VLForConditionalGeneration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Qwen/Qwen2.5-VL-7B-Instruct lies on the hub: one flat configuration, the names of its first release."""
    folder = tmp_path_factory.mktemp("published")
    state = {published_name(name): value.contiguous() for name, value in whole.state_dict().items()}
    assert {name.split(".")[0] for name in state} == {"model", "visual", "lm_head"}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    toys = {name: value for name, value in qwen_config().items() if name != "rope_parameters"}
    config = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        **toys,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "image_token_id": 297,
        "video_token_id": 298,
        "vision_start_token_id": 299,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]},
        "sliding_window": 32768,
        "use_sliding_window": False,
        "max_window_layers": 28,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.41.2",
        "use_cache": True,
        "vision_config": {
            "depth": 1,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 32,
            "out_hidden_size": 32,
        },
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_language_model_is_opened_from_the_published_layout(
    published: Path, pretrained: PretrainedModels, whole: Qwen2_5_VLForConditionalGeneration, dtype: torch.dtype
) -> None:
    language = PretrainedModels(published, pretrained.ltx).language(dtype)
    inner = whole.model.language_model
    assert_equal(language.state_dict(), {name: value.to(dtype) for name, value in inner.state_dict().items()})
    assert {parameter.dtype for parameter in language.parameters()} == {dtype}
    assert not any("visual" in name or "lm_head" in name for name, _ in language.named_parameters())


@torch.no_grad()
def test_its_positions_turn_as_the_published_configuration_says(published: Path, pretrained: PretrainedModels) -> None:
    """θ and the sections of M-RoPE, which stand elsewhere in newer configurations."""
    language = PretrainedModels(published, pretrained.ltx).language(torch.float32)
    assert language.config.rope_parameters["mrope_section"] == [2, 1, 1]
    expected = 1 / 10000.0 ** (torch.arange(0, 8, 2) / 8)
    torch.testing.assert_close(language.rotary_emb.inv_freq, expected)
    config = language.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_key_value_heads) == (32, 2, 2)


@torch.no_grad()
def test_it_reads_a_text_as_the_whole_model_does(
    published: Path, pretrained: PretrainedModels, whole: Qwen2_5_VLForConditionalGeneration
) -> None:
    ids = torch.randint(290, (2, 9), generator=torch.Generator().manual_seed(4))
    loaded = Qwen2_5_VLForConditionalGeneration.from_pretrained(published, dtype=torch.float32).eval()
    expected = loaded(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    found = PretrainedModels(published, pretrained.ltx).language(torch.float32)(input_ids=ids).last_hidden_state
    assert found.abs().mean() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_ltx_is_opened_part_by_part_in_the_precision_that_is_asked_for(pretrained: PretrainedModels) -> None:
    torch.manual_seed(0)  # as the toys were made
    fresh = LTXVideoTransformer3DModel(**ltx_config()).state_dict()
    assert_equal(pretrained.transformer(torch.float32).state_dict(), fresh)
    assert {p.dtype for p in pretrained.transformer(torch.bfloat16).parameters()} == {torch.bfloat16}
    vae = pretrained.vae(torch.float32)
    assert not vae.training and not any(parameter.requires_grad for parameter in vae.parameters())
    assert torch.equal(vae.latents_mean, torch.linspace(-0.5, 0.5, 8))
    assert pretrained.scheduler().config.shift_terminal == 0.1


@pytest.mark.parametrize(
    ("missing", "model"),
    [
        ("qwen", "qwen"),
        ("qwen/config.json", "qwen"),
        ("ltx", "ltx"),
        ("ltx/transformer", "ltx"),
        ("ltx/vae", "ltx"),
        ("ltx/scheduler", "ltx"),
    ],
)
def test_what_is_missing_is_told_with_the_argument_that_names_it(
    pretrained: PretrainedModels, tmp_path: Path, missing: str, model: str
) -> None:
    shutil.copytree(pretrained.qwen, tmp_path / "qwen")
    shutil.copytree(pretrained.ltx, tmp_path / "ltx")
    gone = tmp_path / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(UsageError, match=f"^`{model}` {tmp_path / model} holds no ") as error:
        PretrainedModels(tmp_path / "qwen", tmp_path / "ltx")
    assert missing.count("/") == 0 or gone.name in str(error.value)


def test_the_fingerprint_is_of_the_shape_and_not_of_the_place_or_the_versions(
    pretrained: PretrainedModels, tmp_path: Path
) -> None:
    qwen, ltx = shutil.copytree(pretrained.qwen, tmp_path / "q"), shutil.copytree(pretrained.ltx, tmp_path / "l")
    config = ltx / "transformer" / "config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({**settings, "_diffusers_version": "0.0", "_name_or_path": "elsewhere"}))
    assert PretrainedModels(qwen, ltx).fingerprint == pretrained.fingerprint
    config.write_text(json.dumps({**settings, "num_layers": 3}))
    assert PretrainedModels(qwen, ltx).fingerprint != pretrained.fingerprint


# ---- written and opened again --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bridge(pretrained: PretrainedModels) -> Bridge:
    language, transformer = pretrained.language(torch.float32), pretrained.transformer(torch.float32)
    made = new_bridge(language, transformer, queries=4, hidden=20, seed=5)
    return _changed(made)


def _changed(module: Any) -> Any:
    """As after training: no parameter is what it began as."""
    draw = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw))
    return module


def named(prefix: str, module: nn.Module) -> State:
    return {f"{prefix}.{name}": value.detach() for name, value in module.named_parameters()}


@pytest.fixture(scope="module")
def transformer(pretrained: PretrainedModels) -> LTXVideoTransformer3DModel:
    return _changed(pretrained.transformer(torch.float32))


@pytest.fixture(scope="module")
def exported(
    pretrained: PretrainedModels,
    bridge: Bridge,
    transformer: LTXVideoTransformer3DModel,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("run") / "export"
    weights = {**named("bridge", bridge), **named("transformer", transformer)}
    export(folder, architecture_config(bridge.config), weights, pretrained, {"recipe": "sft", "step": 7})
    return folder


OPENERS: dict[str, Callable[..., Any]] = {
    "bridge": Bridge.from_pretrained,
    "language_model": Qwen2_5_VLTextModel.from_pretrained,
    "scheduler": FlowMatchEulerDiscreteScheduler.from_pretrained,
    "transformer": LTXVideoTransformer3DModel.from_pretrained,
    "vae": AutoencoderKLLTXVideo.from_pretrained,
}


def test_every_part_of_an_export_is_opened_by_the_class_that_its_index_names(
    exported: Path, pretrained: PretrainedModels, bridge: Bridge, transformer: LTXVideoTransformer3DModel
) -> None:
    index = json.loads((exported / "model_index.json").read_text())
    classes = {name: index[name][1] for name in OPENERS}
    assert classes == {name: opener.__self__.__name__ for name, opener in OPENERS.items()}
    parts = {name: opener(exported / name) for name, opener in OPENERS.items()}
    assert_equal(parts["bridge"].state_dict(), bridge.state_dict())
    assert_equal(parts["transformer"].state_dict(), transformer.state_dict())
    assert_equal(parts["vae"].state_dict(), pretrained.vae(torch.float32).state_dict())
    assert_equal(parts["language_model"].state_dict(), pretrained.language(torch.float32).state_dict())
    assert dict(parts["scheduler"].config) == dict(pretrained.scheduler().config)
    said = [AutoTokenizer.from_pretrained(place)("A dog.") for place in (exported / "language_model", pretrained.qwen)]
    assert said[0]["input_ids"] == said[1]["input_ids"]
    assert json.loads((exported / "nextscene.json").read_text()) == {"recipe": "sft", "step": 7}


def test_an_export_is_opened_as_originals_of_the_same_shape_and_its_bridge(
    exported: Path, pretrained: PretrainedModels, bridge: Bridge, transformer: LTXVideoTransformer3DModel
) -> None:
    again, rest = open_export(exported)
    assert_equal(again.state_dict(), bridge.state_dict())
    assert_equal(rest.transformer(torch.float32).state_dict(), transformer.state_dict())
    assert_equal(rest.language(torch.float32).state_dict(), pretrained.language(torch.float32).state_dict())
    assert rest.fingerprint == pretrained.fingerprint


def test_what_was_not_trained_of_the_transformer_is_the_originals(
    pretrained: PretrainedModels, bridge: Bridge, transformer: LTXVideoTransformer3DModel, tmp_path: Path
) -> None:
    trained = {
        name: value for name, value in named("transformer", transformer).items() if "transformer_blocks.1.attn2" in name
    }
    export(
        tmp_path / "export", architecture_config(bridge.config), {**named("bridge", bridge), **trained}, pretrained, {}
    )
    found = LTXVideoTransformer3DModel.from_pretrained(tmp_path / "export" / "transformer").state_dict()
    expected = pretrained.transformer(torch.float32).state_dict()
    assert 0 < len(trained) < len(expected)
    assert_equal(found, {**expected, **{name.removeprefix("transformer."): value for name, value in trained.items()}})


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module")
def test_what_was_not_trained_of_the_bridge_is_what_the_stage_began_with(
    pretrained: PretrainedModels, tmp_path: Path
) -> None:
    recipe = replace(SMALL, steps=1, trainable=("bridge.connector.*",), logging=LoggingConfig(evaluate_clips=0))
    job = make_job(make_data(tmp_path / "data"), pretrained, tmp_path / "run", recipe)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        train(job, current_world(), Quiet())
    finally:
        dist.destroy_process_group()
    found, _ = open_export(job.run / "export")
    language, transformer = pretrained.language(torch.float32), pretrained.transformer(torch.float32)
    began = new_bridge(language, transformer, recipe.model.queries, recipe.model.hidden, recipe.seed)
    assert_equal(found.queries.state_dict(), began.queries.state_dict())
    assert not torch.equal(found.connector.into.weight, began.connector.into.weight)


def test_an_export_takes_the_place_of_the_one_before_and_leaves_nothing_else(
    pretrained: PretrainedModels, bridge: Bridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda handle: on_disk.add(os.fstat(handle).st_ino))
    for step in (1, 2):
        export(
            tmp_path / "export", architecture_config(bridge.config), named("bridge", bridge), pretrained, {"step": step}
        )
        assert on_disk.issuperset(path.stat().st_ino for path in (tmp_path, *tmp_path.rglob("*")))
        assert json.loads((tmp_path / "export" / "nextscene.json").read_text()) == {"step": step}
        (tmp_path / "export" / "of the first").touch()
        assert [path.name for path in tmp_path.iterdir()] == ["export"]
    export(tmp_path / "export", architecture_config(bridge.config), named("bridge", bridge), pretrained, {})
    assert not (tmp_path / "export" / "of the first").exists()


def test_only_an_export_is_replaced_by_one(tmp_path: Path) -> None:
    for name, files in {"none": [], "empty": [], "ours": ["nextscene.json", "model"], "theirs": ["model"]}.items():
        for file in files:
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / file).touch()
        if name != "theirs":
            check_replaceable(tmp_path / name)
    (tmp_path / "empty").mkdir()
    check_replaceable(tmp_path / "empty")
    with pytest.raises(UsageError, match="theirs is not an export"):
        check_replaceable(tmp_path / "theirs")


def test_an_export_that_fails_leaves_the_one_before_as_it_was(
    pretrained: PretrainedModels, bridge: Bridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(tmp_path / "export", architecture_config(bridge.config), named("bridge", bridge), pretrained, {"step": 1})
    with monkeypatch.context() as broken:
        broken.setattr("nextscene.training.model.export.shutil.copytree", _full)
        with pytest.raises(OSError, match="no space"):
            export(
                tmp_path / "export",
                architecture_config(bridge.config),
                named("bridge", bridge),
                pretrained,
                {"step": 2},
            )
    assert json.loads((tmp_path / "export" / "nextscene.json").read_text()) == {"step": 1}
    export(tmp_path / "export", architecture_config(bridge.config), named("bridge", bridge), pretrained, {"step": 3})
    assert json.loads((tmp_path / "export" / "nextscene.json").read_text()) == {"step": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def _full(*_: object) -> None:
    raise OSError("no space left")
