"""Exports: a trained model as folders that `from_pretrained` opens, in the layout of diffusers.

Tested in tests/training/model/test_pretrained.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nextscene.common.atomic import UNFINISHED
from nextscene.common.errors import UsageError
from nextscene.shards.format.layout import MARK
from nextscene.training.model.bridge import Bridge
from nextscene.training.model.pretrained import PretrainedModels, open_pretrained

_INDEX = "model_index.json"
_ABOUT = MARK


def export(
    folder: Path,
    bridge: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    pretrained: PretrainedModels,
    about: Mapping[str, Any],
) -> None:
    """Write an export to `folder`, which is complete if it exists.

    `bridge` is the configuration of the bridge. `weights` are the full tensors of everything that was trained, by their
    names in `UnifiedModel`; the rest is copied from the pretrained models. `about` is written to `nextscene.json`.
    """
    draft = folder.with_name(f".{folder.name}{UNFINISHED}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    _save(Bridge.from_config(bridge), _below(weights, "bridge."), draft / "bridge")
    _save(pretrained.transformer(torch.float32), _below(weights, "transformer."), draft / "transformer")
    for name in ("vae", "scheduler"):
        shutil.copytree(pretrained.ltx / name, draft / name)
    shutil.copytree(pretrained.qwen, draft / "language_model")
    index = {
        "_class_name": "NextScene",
        "bridge": ["nextscene.training.model.bridge", "Bridge"],
        "language_model": ["transformers", "Qwen2_5_VLTextModel"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "transformer": ["diffusers", "LTXVideoTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLLTXVideo"],
    }
    (draft / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    (draft / _ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    _replace(folder, draft)


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
    draft.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
