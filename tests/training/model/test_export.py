"""What an export says of itself and of the models that it was made from, and the precision of its weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from nextscene.training.model.export import export, open_export
from nextscene.training.model.model_folders import architecture_config
from nextscene.training.model.pretrained import PretrainedModels
from tests.training.generators import make_export
from tests.training.stages import make_originals

pytestmark = pytest.mark.slow

LTX_ID = f"Lightricks/LTX-Video@{'a' * 40}"
ABOUT: dict[str, Any] = {
    "recipe": "sft",
    "stage": "sft",
    "step": 1200,
    "samples": 307200,
    "determining": {"data.max_frames": 9, "data.width": 32, "data.height": 24, "model.max_tokens": 256},
    "summary": {"heldout_before": 1.5, "heldout_after": 1.25, "zero": 2.0},
    "data": {"nsp": {"name": "pairs", "sha256": "0123abcd", "samples": {"train": 12345, "test": 67}}},
    "originals": {"qwen": "", "ltx": LTX_ID},
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> PretrainedModels:
    made = make_originals(tmp_path_factory.mktemp("originals"))
    (made.ltx / "LTX-Video-License.txt").write_text("The license of LTX-Video.")
    (made.qwen / "LICENSE").write_text("The license of Qwen.")
    return made


@pytest.fixture(scope="module")
def exported(originals: PretrainedModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_export(tmp_path_factory.mktemp("run") / "export", originals, **ABOUT)


def card(exported: Path) -> tuple[dict[str, Any], str]:
    """The metadata and the text of the card."""
    _, front, text = (exported / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def test_the_card_says_what_the_model_is_made_from_and_how_far_it_is_trained(exported: Path) -> None:
    front, text = card(exported)
    assert front["library_name"] == "diffusers" and front["pipeline_tag"] == "text-to-video"
    assert front["base_model"] == ["Lightricks/LTX-Video"]
    facts = front["nextscene"]
    assert (facts["recipe"], facts["stage"], facts["steps"], facts["heldout_loss"]) == ("sft", "sft", 1200, 1.25)
    assert facts["base_models"] == {"ltx": LTX_ID}
    assert facts["data"] == ABOUT["data"]
    assert f"| video model | {LTX_ID} |" in text
    assert "| language model | a folder of unknown origin" in text
    assert "| dataset `nsp` | pairs: 12,345 in train, 67 in test; SHA-256 of its manifest 0123abcd |" in text
    assert "| held-out loss | 1.2500; predicting zero 2.0000 |" in text


def test_the_call_of_the_card_is_one_that_diffusers_takes(exported: Path) -> None:
    """The call itself is made in test_export_pipeline.py."""
    _, text = card(exported)
    code = text.partition("```python\n")[2].partition("```")[0]
    compile(code, "README.md", "exec")
    assert 'DiffusionPipeline.from_pretrained("EXPORT", trust_remote_code=True' in code


def test_the_licenses_are_those_of_the_originals(exported: Path) -> None:
    front, text = card(exported)
    assert (exported / "licenses" / "ltx" / "LTX-Video-License.txt").read_text() == "The license of LTX-Video."
    assert (exported / "licenses" / "qwen" / "LICENSE").read_text() == "The license of Qwen."
    assert (front["license"], front["license_link"]) == ("other", "licenses/ltx/LTX-Video-License.txt")
    for file in ("licenses/ltx/LTX-Video-License.txt", "licenses/qwen/LICENSE"):
        assert f"[{file}]({file})" in text


def test_originals_without_a_license_file_are_named_without_one(originals: PretrainedModels, tmp_path: Path) -> None:
    qwen, ltx = (Path(shutil.copytree(one, tmp_path / one.name)) for one in (originals.qwen, originals.ltx))
    (qwen / "LICENSE").unlink()
    (ltx / "LTX-Video-License.txt").unlink()
    folder = make_export(tmp_path / "export", PretrainedModels(qwen, ltx))
    front, text = card(folder)
    assert "license_link" not in front and "base_model" not in front
    assert text.count("its folder held no license file; see where it was published") == 2
    assert not (folder / "licenses").exists()


def test_a_model_without_held_out_clips_has_no_loss_in_its_card(originals: PretrainedModels, tmp_path: Path) -> None:
    folder = make_export(tmp_path / "export", originals, summary={"heldout_after": -1.0, "zero": -1.0})
    front, text = card(folder)
    assert "heldout_loss" not in front["nextscene"] and "held-out loss" not in text


def test_in_bfloat16_the_transformer_is_rounded_and_the_bridge_is_not(
    originals: PretrainedModels, exported: Path, tmp_path: Path
) -> None:
    bridge, parts = open_export(exported)
    transformer = parts.transformer(torch.float32)
    weights = {f"bridge.{name}": value for name, value in bridge.state_dict().items()}
    weights |= {f"transformer.{name}": value + 1e-4 for name, value in transformer.state_dict().items()}
    export(tmp_path / "export", architecture_config(bridge.config), weights, originals, ABOUT, torch.bfloat16)
    files = {
        part: load_file(tmp_path / "export" / part / "diffusion_pytorch_model.safetensors")
        for part in ("bridge", "transformer")
    }
    for name, found in files["transformer"].items():
        assert torch.equal(found, weights[f"transformer.{name}"].bfloat16()), name
    for name, found in files["bridge"].items():
        assert torch.equal(found, weights[f"bridge.{name}"]), name
    assert "stored in bfloat16" in card(tmp_path / "export")[1]
    again, _ = open_export(tmp_path / "export")
    assert {value.dtype for value in again.state_dict().values()} == {torch.float32}


def test_the_index_has_what_a_call_needs(exported: Path) -> None:
    """The paper's prompt, the longest text in tokens without the queries, and the shape of the training clips."""
    index = json.loads((exported / "model_index.json").read_text())
    assert index["templates"]["nsp"] == "Please generate a video showing what happens after this scene: {text}"
    assert index["max_prompt_tokens"] == 256 - 6
    assert index["sampling"]["num_frames"] == 9
