"""What the folders of models hold, and whether that is whole: told without torch, and without reading weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nextscene.common.storage import Storage
from nextscene.shards.format.dataset_hints import describe_folder, suggest_folders
from nextscene.shards.format.layout import MARK
from nextscene.training.errors import TrainingUsageError
from nextscene.training.model.grid import Ratios

_QWEN = ("config.json", "tokenizer_config.json")
_LTX = ("transformer", "vae", "scheduler")
_PUBLISHED = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")
_TOKENIZERS = ("tokenizer.json", "vocab.json")
_INDEX = "*.safetensors.index.json"
_LENGTH = 8
_LONGEST_HEADER = 100_000_000  # as safetensors has it


def check_originals(qwen: Path, ltx: Path) -> None:
    """Raises TrainingUsageError where one of the two lacks what it was published with."""
    if (qwen / "transformer").is_dir() and (ltx / "config.json").is_file():
        raise TrainingUsageError(f"--qwen {qwen} and --ltx {ltx} are each the other's; swap them")
    for path in (qwen / "config.json", *(ltx / folder for folder in _LTX)):
        if not path.exists():
            flag, parts = ("--qwen", _QWEN) if path.parent == qwen else ("--ltx", _LTX)
            raise TrainingUsageError(
                f"{flag} {path.parent} holds no {path.name}; name a folder in the layout that the models were"
                f" published in, or make small ones with pipelines/make_tiny.py{_meant(path.parent, parts)}"
            )


def check_openable(qwen: Path, ltx: Path) -> None:
    """As `check_originals`, and that the tokenizer is there and no file of weights is missing or cut short."""
    check_originals(qwen, ltx)
    if not any((qwen / name).is_file() for name in _TOKENIZERS):
        raise TrainingUsageError(f"{qwen} holds no tokenizer; take tokenizer.json along")
    for folder in (qwen, ltx / "transformer", ltx / "vae"):
        check_weights(folder)


def check_published(ltx: Path) -> None:
    """Raises TrainingUsageError for a folder that is not laid out as Lightricks/LTX-Video, text encoder and all."""
    for part in _PUBLISHED:
        if not (ltx / part).is_dir():
            raise TrainingUsageError(
                f"--ltx {ltx} holds no {part}; the original LTX-Video has {', '.join(_PUBLISHED)}"
                f"{_meant(ltx, _PUBLISHED)}"
            )
    if not (ltx / "tokenizer" / "tokenizer.json").exists() and find_spec("sentencepiece") is None:
        raise TrainingUsageError(
            f"{ltx / 'tokenizer'} is of SentencePiece's; pip install sentencepiece, which reads it"
        )
    for part in ("text_encoder", "transformer", "vae"):
        check_weights(ltx / part)


def check_weights(folder: Path) -> None:
    """Raises TrainingUsageError for weights that are not all there. Only the heads of files are read."""
    for index in folder.glob(_INDEX):
        for name in sorted(set(_object(index).get("weight_map", {}).values())):
            if not (folder / name).is_file():
                raise TrainingUsageError(f"{folder} lacks {name}, which {index.name} names; copy or download it again")
    for path in folder.glob("*.safetensors"):
        size, whole = path.stat().st_size, _whole_size(path)
        if size != whole:
            raise TrainingUsageError(
                f"{path} is damaged: it has {size:,} bytes of {whole:,}; copy or download it again"
            )


def _whole_size(path: Path) -> int:
    """By its header, which says where each tensor lies."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        header = file.read(min(length, _LONGEST_HEADER))
    try:
        tensors = [value for name, value in json.loads(header).items() if name != "__metadata__"]
        return _LENGTH + length + max((tensor["data_offsets"][1] for tensor in tensors), default=0)
    except (ValueError, AttributeError, TypeError, KeyError, IndexError):
        return _LENGTH + length


def check_vae(ltx: Path) -> Ratios:
    """By its configuration. Raises TrainingUsageError for none, and for one of LTX-Video 0.9.1 or later."""
    folder = ltx / "vae"
    if not folder.is_dir():
        raise TrainingUsageError(
            f"--ltx {ltx} holds no vae; name LTX-Video 0.9.0, in diffusers' layout{_meant(ltx, ['vae'])}"
        )
    config = _object(folder / "config.json")
    try:
        if config.get("_class_name", "AutoencoderKLLTXVideo") != "AutoencoderKLLTXVideo":
            raise ValueError(f"it is of a {config['_class_name']}")
        ratios = Ratios.by(config)
    except ValueError as error:
        raise TrainingUsageError(f"{folder} is no VAE of LTX-Video: {error}; name LTX-Video 0.9.0") from error
    if config.get("timestep_conditioning"):
        raise TrainingUsageError(
            f"{folder} decodes with a timestep, as LTX-Video 0.9.1 and later do; name LTX-Video 0.9.0"
        )
    return ratios


def fingerprint(qwen: Path, ltx: Path) -> str:
    """Of both models' configurations: a checkpoint of one shape fits no other. Raises TrainingUsageError."""
    digest = hashlib.sha256()
    if (qwen / "transformer").is_dir() and (ltx / "config.json").is_file():
        raise TrainingUsageError(f"--qwen {qwen} and --ltx {ltx} are each the other's; swap them")
    for path in (qwen / "config.json", ltx / "transformer" / "config.json"):
        digest.update(json.dumps(lasting(_object(path)), sort_keys=True).encode())
    return digest.hexdigest()


def lasting(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a model's configuration says how it is built, not by which version or from where it was loaded."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TrainingUsageError(f"{path} is no model's configuration: {reason}; copy or download it again") from error
    return value


# ---- what was trained ----------------------------------------------------------------------------------------------


def export_of(run: Path) -> Path:
    """The export of a run, or of one that is named itself. Raises TrainingUsageError where there is none."""
    for folder in (run, run / "export"):
        if _is_export(folder):
            return folder
    held = describe_folder(Storage.at(run)) if run.is_dir() else ""
    near = suggest_folders(run.absolute(), lambda place: _is_export(place) or _is_export(place / "export"))
    raise TrainingUsageError(
        f"{run} holds no trained model{f', but {held}' if held else ''}; train a stage to its end, which writes one, or"
        f" name a checkpoint{f'; is {near[0]} meant?' if near else ''}"
    )


def about_export(folder: Path) -> dict[str, Any]:
    """What was told of it as it was made. Raises TrainingUsageError for a folder that is no export."""
    if not _is_export(folder):
        raise TrainingUsageError(
            f"{folder} holds no trained model; train a stage to its end, which writes one, or name a checkpoint"
        )
    return _object(folder / MARK)


def _is_export(folder: Path) -> bool:
    try:
        return {"recipe", "step", "determining"} <= _object(folder / MARK).keys()
    except TrainingUsageError:
        return False


def _meant(folder: Path, parts: Sequence[str]) -> str:
    near = suggest_folders(folder.absolute(), lambda place: all((place / part).exists() for part in parts))
    return f"; is {near[0]} meant?" if near else ""
