"""The available generators. Name and sampling settings are known before the slow opening of the model.

Tested in tests/training/generation/test_generation.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextscene.common.errors import UsageError
from nextscene.training.checkpoint_info import CheckpointInfo
from nextscene.training.config import PromptForm
from nextscene.training.generation.base import ORIGINAL_FPS, Generator, Sampling
from nextscene.training.model.grid import Ratios
from nextscene.training.model.model_folders import (
    TRAINED_PARTS,
    check_openable,
    check_originals,
    check_published,
    check_vae,
    check_weights,
    fingerprint,
    read_export_info,
)

if TYPE_CHECKING:
    import torch

_SAMPLES = 16
_SAMPLE_BYTES = 1 << 16


@dataclass(frozen=True)
class GeneratorSpec:
    """A generator that can be opened on a device. `name` and `sampling` are those of the opened generator.

    The functions that return a spec raise UsageError for an incomplete folder, and for a length or a size that the
    generator cannot produce. They read nothing large, and do not import torch.
    """

    name: str
    sampling: Sampling
    open: Callable[[torch.device], Generator]


def of_export(folder: Path, form: PromptForm = "nsp", **asked: Any) -> GeneratorSpec:
    """Return the generator of RUN/export.

    `asked` are fields of `Sampling`. Frames and size default to those that the model was trained with.
    """
    about = read_export_info(folder)
    check_openable(folder / "language_model", folder)
    check_weights(folder / "bridge")
    weights = [path for part in TRAINED_PARTS for path in (folder / part).glob("*.safetensors")]
    name = _name(about["recipe"], about["step"], form, weights)
    sampling = replace(Sampling.trained_at(about["determining"]), **asked)
    _check_shape(check_vae(folder), sampling)

    def opened(device: torch.device) -> Generator:
        from nextscene.training.generation.next_scene import from_export

        return from_export(folder, name, sampling, form, device)

    return GeneratorSpec(name, sampling, opened)


def of_checkpoint(folder: Path, qwen: Path, ltx: Path, form: PromptForm = "nsp", **asked: Any) -> GeneratorSpec:
    """Return the generator of RUN/<recipe>/checkpoints/step-N, with the pretrained models that it was trained from.

    `asked` is as in `of_export`.
    """
    about = CheckpointInfo.read(folder)
    check_originals(qwen, ltx, about.parameters)
    check_openable(qwen, ltx)
    if about.model != fingerprint(qwen, ltx):
        raise UsageError(f"{folder} was trained from other models than `qwen` and `ltx` name; name those")
    name = _name(about.recipe, about.step, form, folder.glob("*.distcp"))
    sampling = replace(Sampling.trained_at(about.determining), **asked)
    _check_shape(check_vae(ltx), sampling)

    def opened(device: torch.device) -> Generator:
        from nextscene.training.generation.next_scene import from_checkpoint
        from nextscene.training.model.pretrained import PretrainedModels

        return from_checkpoint(folder, PretrainedModels(qwen, ltx), name, sampling, form, device)

    return GeneratorSpec(name, sampling, opened)


def of_original(ltx: Path, **asked: Any) -> GeneratorSpec:
    """Return the original LTX-Video. `asked` are fields of `Sampling`."""
    check_published(ltx)
    name = f"ltx-video-{_digest((ltx / 'transformer').glob('*.safetensors'))}"
    sampling = replace(Sampling(fps=ORIGINAL_FPS), **asked)
    _check_shape(check_vae(ltx), sampling)

    def opened(device: torch.device) -> Generator:
        from nextscene.training.generation.ltx_video import from_folder

        return from_folder(ltx, name, sampling, device)

    return GeneratorSpec(name, sampling, opened)


def _check_shape(ratios: Ratios, sampling: Sampling) -> None:
    try:
        ratios.grid(sampling.frames, sampling.height, sampling.width)
    except ValueError as error:
        raise UsageError(f"such a video cannot be made: {error}") from error


def _name(recipe: str, step: int, form: PromptForm, weights: Iterable[Path]) -> str:
    return f"{recipe}-{step}-{form}-{_digest(weights)}"


def _digest(files: Iterable[Path]) -> str:
    """Return a short digest of weights, from samples of their bytes: reading all takes as long as opening the model."""
    digest = hashlib.sha256()
    for path in sorted(files):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            for sample in range(_SAMPLES):
                file.seek(max(0, size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:8]
