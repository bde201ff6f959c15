"""Which generators there are, each known by name and form before it takes its time and memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from training.checkpoint import About
from training.generation import next_scene, original
from training.generation.base import Generator, Sampling
from training.generation.shared import grid_of
from training.model.export import about_export
from training.model.originals import Originals, check_vae
from training.recipe import Form

_SAMPLES = 16
_SAMPLE_BYTES = 1 << 16
_TRAINED_AT = {"frames": "data.max_frames", "width": "data.width", "height": "data.height"}


@dataclass(frozen=True)
class Opening:
    """A generator that can be opened on a device. `name` and `sampling` are those that it will have.

    What gives one raises TrainingMistake for a folder that does not hold it, and for a length or a size that it does
    not make; nothing large is read for that.
    """

    name: str
    sampling: Sampling
    open: Callable[[torch.device], Generator]


def export_of(run: Path) -> Path:
    """The export of a run, or of one that is named itself."""
    return run if (run / "nextscene.json").is_file() else run / "export"


def of_export(folder: Path, form: Form = "nsp", **asked: Any) -> Opening:
    """RUN/export. `asked` are fields of `Sampling`; frames and size are otherwise those that it was trained at."""
    about = about_export(folder)
    weights = [path for part in ("bridge", "transformer") for path in (folder / part).glob("*.safetensors")]
    name = _name(about["recipe"], about["step"], form, weights)
    sampling = _sampling(about["determining"], asked)
    grid_of(check_vae(folder), sampling)
    return Opening(name, sampling, partial(next_scene.from_export, folder, name, sampling, form))


def of_checkpoint(folder: Path, originals: Originals, form: Form = "nsp", **asked: Any) -> Opening:
    """RUN/<recipe>/checkpoints/step-N."""
    about = About.read(folder)
    name = _name(about.recipe, about.step, form, folder.glob("*.distcp"))
    sampling = _sampling(about.determining, asked)
    grid_of(check_vae(originals.ltx), sampling)
    return Opening(name, sampling, partial(next_scene.from_checkpoint, folder, originals, name, sampling, form))


def of_original(ltx: Path, **asked: Any) -> Opening:
    """The original LTX-Video."""
    original.check_whole(ltx)
    name = f"ltx-video-{_digest((ltx / 'transformer').glob('*.safetensors'))}"
    sampling = replace(Sampling(fps=original.FPS), **asked)
    grid_of(check_vae(ltx), sampling)
    return Opening(name, sampling, partial(original.from_folder, ltx, name, sampling))


def _name(recipe: str, step: int, form: Form, weights: Iterable[Path]) -> str:
    return f"{recipe}-{step}-{form}-{_digest(weights)}"


def _sampling(determining: Mapping[str, Any], asked: Mapping[str, Any]) -> Sampling:
    trained = {field: determining[name] for field, name in _TRAINED_AT.items() if name in determining}
    return replace(Sampling(), **{**trained, **asked})


def _digest(files: Iterable[Path]) -> str:
    """Of weights: of samples of their bytes, since to read all of them takes as long as to open them."""
    digest = hashlib.sha256()
    for path in sorted(files):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            for sample in range(_SAMPLES):
                file.seek(max(0, size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:8]
