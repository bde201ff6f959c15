"""The pipeline of an export: what `nextscene generate` makes, by diffusers alone."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from transformers import AutoTokenizer

from nextscene.pipelines import generate
from nextscene.training.generation.next_scene import NextScene
from nextscene.training.generation.open_generator import of_export
from nextscene.training.model.export import open_export
from nextscene.training.model.export_pipeline import NextScenePipeline
from tests.training.generators import make_export
from tests.training.stages import make_originals

pytestmark = pytest.mark.slow

SCENES = ["A glass wobbles.", "Dark clouds gather. " * 30]
"""The second is longer than a prompt may be."""

SHAPE = {"num_frames": 5, "width": 32, "height": 32, "num_inference_steps": 3}
SEED = 11


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    return make_export(folder / "run" / "export", make_originals(folder / "originals"))


@pytest.fixture(scope="module")
def pipeline(exported: Path) -> NextScenePipeline:
    """Of the parts and the settings that the index names, put together by hand."""
    bridge, parts = open_export(exported)
    index = json.loads((exported / "model_index.json").read_text())
    made = NextScenePipeline(
        parts.scheduler(),
        parts.vae(torch.float32),
        parts.transformer(torch.float32),
        parts.language(torch.float32),
        AutoTokenizer.from_pretrained(exported / "tokenizer"),
        bridge,
        index["templates"],
        index["max_prompt_tokens"],
        index["sampling"],
    )
    made.set_progress_bar_config(disable=True)
    return made


def latents(exported: Path, scenes: Sequence[str], seeds: Sequence[int], form: Any = "nsp", **asked: Any) -> Tensor:
    asked = {"frames": 5, "width": 32, "height": 32, "steps": 3, **asked}
    made = of_export(exported, form, **asked).open(torch.device("cpu"))
    assert isinstance(made, NextScene)
    return made.latents(scenes, seeds)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({}, {}),
        ({"guidance_scale": 1.0}, {"guidance": 1.0}),
        ({"form": "t2v", "frame_rate": 8}, {"form": "t2v", "fps": 8.0}),
    ],
    ids=str,
)
def test_its_latents_are_those_of_the_generator(
    exported: Path, pipeline: NextScenePipeline, theirs: dict[str, Any], ours: dict[str, Any]
) -> None:
    found = pipeline(SCENES, seed=SEED, output_type="latent", **SHAPE, **theirs).frames
    expected = latents(exported, SCENES, [SEED, SEED + 1], **ours)
    assert (expected[0] - expected[1]).abs().mean() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_generator_takes_the_place_of_a_seed(exported: Path, pipeline: NextScenePipeline) -> None:
    found = pipeline(SCENES[0], generator=torch.Generator().manual_seed(SEED), output_type="latent", **SHAPE).frames
    torch.testing.assert_close(found, latents(exported, SCENES[:1], [SEED]), atol=1e-5, rtol=0)


def test_length_size_and_steps_are_those_of_the_export(pipeline: NextScenePipeline) -> None:
    assert pipeline.config.sampling == {
        "num_frames": 9,
        "width": 32,
        "height": 24,
        "num_inference_steps": 50,
        "guidance_scale": 3.0,
        "frame_rate": 16.0,
    }
    assert pipeline(SCENES[0], height=32, num_inference_steps=2, output_type="pt").frames.shape == (1, 9, 3, 32, 32)


def test_its_code_needs_no_package_but_torch_diffusers_and_transformers(exported: Path) -> None:
    for file in ("pipeline.py", "bridge/bridge.py"):
        tree = ast.parse((exported / file).read_text())
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {
            name.partition(".")[0]
            for node in imports
            for name in ([node.module] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
        }
        assert "torch" in names
        assert names - {"torch", "diffusers", "transformers"} <= sys.stdlib_module_names, file


CHILD = """
import sys

class Without:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "nextscene":
            raise ImportError(f"{name} is not to be found here")

sys.meta_path.insert(0, Without())
import torch
from diffusers import DiffusionPipeline

export, scene, out = sys.argv[1:]
shape = dict(num_frames=5, width=32, height=32, num_inference_steps=3)
pipeline = DiffusionPipeline.from_pretrained(export, trust_remote_code=True)
made = {kind: pipeline(scene, seed=11, output_type=kind, **shape).frames for kind in ("latent", "pt")}
half = DiffusionPipeline.from_pretrained(
    export, custom_pipeline=export, trust_remote_code=True, torch_dtype=torch.bfloat16
)
made["half"] = half(scene, seed=11, output_type="latent", **shape).frames
made["precisions"] = {name: str(getattr(half, name).dtype) for name in ("transformer", "vae", "bridge")}
assert not [name for name in sys.modules if name.partition(".")[0] == "nextscene"]
torch.save(made, out)
"""


def test_diffusers_alone_opens_an_export_and_makes_what_generate_makes(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one call, in a process of its own, which cannot import our package."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    child = subprocess.run(
        [sys.executable, "-I", "-c", CHILD, str(exported), SCENES[0], str(tmp_path / "made.pt")],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert "Expected types" not in child.stderr and "are not expected" not in child.stderr
    made = torch.load(tmp_path / "made.pt")

    written: list[Any] = []
    monkeypatch.setattr(generate, "encode_video", lambda video, *_: written.append(video))
    flags = ["--frames", "5", "--width", "32", "--height", "32", "--steps", "3", "--seed", str(SEED)]
    command = ["--run", str(exported.parent), "--scene", SCENES[0], "--out", str(tmp_path / "clip.mp4"), *flags]
    assert CliRunner().invoke(generate.main, command).exit_code == 0
    (video,) = written
    levels = 255 * made["pt"][0].movedim(1, -1)
    assert levels.std() > 2
    assert (torch.from_numpy(video) - levels).abs().max() < 0.5 + 255e-5  # rounded to whole levels

    expected = latents(exported, SCENES[:1], [SEED])
    torch.testing.assert_close(made["latent"], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(made["half"].float(), expected, atol=0.1, rtol=0)
    assert made["precisions"] == {"transformer": "torch.bfloat16", "vae": "torch.bfloat16", "bridge": "torch.float32"}
