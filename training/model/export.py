"""Exports: a trained model as a folder that diffusers opens with one call, without this repository.

    EXPORT/model_index.json     the class of the pipeline, those of its parts, and the settings of a call
    EXPORT/pipeline.py          the pipeline, which is `export_pipeline.py` here
    EXPORT/bridge               queries and connector, with `bridge.py`, which is their class
    EXPORT/transformer          as it is after training
    EXPORT/language_model, vae, scheduler, tokenizer    as in the models that training began with
    EXPORT/licenses             the license files of those models
    EXPORT/README.md            the model card
    EXPORT/nextscene.json       the description by which training continues from it, and generation opens it

Tested in tests/training/model/test_pretrained.py.
"""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from nextscene.common import atomic
from nextscene.common.atomic import UNFINISHED
from nextscene.common.errors import UsageError
from nextscene.shards.format.layout import MARK
from nextscene.training.config import ModelConfig
from nextscene.training.generation.base import Sampling
from nextscene.training.model.bridge import Bridge
from nextscene.training.model.export_pipeline import NextScenePipeline
from nextscene.training.model.model_card import license_files, model_card
from nextscene.training.model.pretrained import PretrainedModels, open_pretrained
from nextscene.training.model.prompter import prompt_templates

_INDEX = "model_index.json"
_ABOUT = MARK
_CARD = "README.md"
_LICENSES = "licenses"


def export(
    folder: Path,
    bridge: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    pretrained: PretrainedModels,
    about: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write an export to `folder`, which is complete if it exists.

    `bridge` is the configuration of the bridge. `weights` are the full tensors of everything that was trained, by their
    names in `UnifiedModel`; the rest is copied from the pretrained models. `about` is written to `nextscene.json`.
    `dtype` is the precision of the transformer's weights. Those of the bridge are float32, in which it computes.
    """
    draft = folder.with_name(f".{folder.name}{UNFINISHED}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    _save(Bridge.from_config(bridge), _below(weights, "bridge."), draft / "bridge")
    _save(pretrained.transformer(dtype), _below(weights, "transformer."), draft / "transformer")
    for name in ("vae", "scheduler"):
        shutil.copytree(pretrained.ltx / name, draft / name)
    shutil.copytree(pretrained.qwen, draft / "language_model")
    tokenizer = pretrained.tokenizer()
    tokenizer.save_pretrained(draft / "tokenizer")
    shutil.copyfile(inspect.getfile(Bridge), draft / "bridge" / "bridge.py")
    shutil.copyfile(inspect.getfile(NextScenePipeline), draft / "pipeline.py")
    licenses = _copy_licenses(pretrained, draft)
    index = _pipeline_index(type(tokenizer).__name__, bridge, about)
    (draft / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    (draft / _CARD).write_text(model_card(about, str(dtype).removeprefix("torch."), licenses), encoding="utf-8")
    (draft / _ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    atomic.sync_tree(draft)  # before the summary, which says that the stage is finished
    _replace(folder, draft)


def _pipeline_index(tokenizer: str, bridge: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the index of the pipeline: its classes, and the arguments of `NextScenePipeline` that are not models."""
    trained_at = about.get("determining", {})
    sampling = Sampling.trained_at(trained_at)
    most = trained_at.get("model.max_tokens", ModelConfig().max_tokens)
    return {
        "_class_name": ["pipeline", NextScenePipeline.__name__],
        "_diffusers_version": diffusers.__version__,
        "bridge": ["bridge", Bridge.__name__],
        "language_model": ["transformers", "Qwen2_5_VLTextModel"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "tokenizer": ["transformers", tokenizer],
        "transformer": ["diffusers", "LTXVideoTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLLTXVideo"],
        "templates": prompt_templates(),
        "max_prompt_tokens": most - bridge["num_queries"],
        "sampling": {
            "num_frames": sampling.frames,
            "width": sampling.width,
            "height": sampling.height,
            "num_inference_steps": sampling.steps,
            "guidance_scale": sampling.guidance,
            "frame_rate": sampling.fps,
        },
    }


def _copy_licenses(pretrained: PretrainedModels, draft: Path) -> dict[str, list[str]]:
    """Copy the license files of the models, and return their paths in the export."""
    copied: dict[str, list[str]] = {}
    for name, model in {"ltx": pretrained.ltx, "qwen": pretrained.qwen}.items():
        earlier = pretrained.ltx / _LICENSES / name  # of an export that was trained on
        for file in license_files(earlier if earlier.is_dir() else model):
            place = Path(_LICENSES, name, file.name)
            (draft / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, draft / place)
            copied.setdefault(name, []).append(str(place))
    return copied


def check_replaceable(folder: Path) -> None:
    """Raise UsageError if an export would replace something else."""
    if folder.exists() and not (folder / _ABOUT).is_file() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not an export, and would be replaced by one; move it away")


def open_export(folder: Path) -> tuple[Bridge, PretrainedModels]:
    """Return the bridge of an export, and the other models in its folder.

    Raise UsageError for a folder that lacks one of them, or whose bridge cannot be opened.
    """
    exported = PretrainedModels(folder / "language_model", folder)
    return open_pretrained(Bridge, folder, subfolder="bridge", low_cpu_mem_usage=False), exported


def _save(module: Any, trained: Mapping[str, Tensor], folder: Path) -> None:
    """Save a module with its trained weights. All other weights keep the values that they were opened with."""
    module.load_state_dict({**module.state_dict(), **trained})
    module.save_pretrained(folder)


def _below(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _replace(folder: Path, draft: Path) -> None:
    """Give the draft the place of an earlier export.

    `common.atomic` cannot do this: a rename replaces a file, but not a folder with files. A run that is killed between
    these two leaves no export, and writes it again when it is resumed: a stage is finished once its summary is written,
    which comes after this.
    """
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    atomic.rename_synced(draft, folder)
    shutil.rmtree(old, ignore_errors=True)
