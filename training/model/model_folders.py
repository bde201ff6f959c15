"""Checks of the folders of models: their files, configurations and sizes, without torch and without reading weights.

Tested in tests/training/model/test_pretrained.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.shards.format.dataset_hints import describe_folder, suggest_folders
from nextscene.shards.format.layout import MARK
from nextscene.training.model.grid import Ratios

_QWEN = ("config.json", "tokenizer_config.json")
_LTX = ("transformer", "vae", "scheduler")
_PUBLISHED = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")
TRAINED_PARTS = ("bridge", "transformer")
"""Folders of an export that have the trained weights."""
_TOKENIZERS = ("tokenizer.json", "vocab.json")
_INDEX = "*.safetensors.index.json"
_LENGTH = 8
_LONGEST_HEADER = 100_000_000  # the limit of safetensors


def check_pretrained(qwen: Path, ltx: Path) -> None:
    """Raise UsageError if one of the two folders lacks a published file or folder, or if they are swapped."""
    if (qwen / "transformer").is_dir() and (ltx / "config.json").is_file():
        raise UsageError(f"`qwen` {qwen} and `ltx` {ltx} are each the other's; swap them")
    for path in (qwen / "config.json", *(ltx / folder for folder in _LTX)):
        if not path.exists():
            name, parts = ("`qwen`", _QWEN) if path.parent == qwen else ("`ltx`", _LTX)
            raise UsageError(
                f"{name} {path.parent} holds no {path.name}; name a folder in the layout that the models were"
                f" published in, or make small ones with `make_toy_models`{_suggestion(path.parent, parts)}"
            )


def check_originals(qwen: Path, ltx: Path, replaced: Collection[str]) -> None:
    """Raise UsageError for an export in the place of an original model, whose trained bridge nobody would open.

    `replaced` are the parameters that are loaded after the originals. If they are all that the export was trained on,
    the rest of its transformer is the original's.
    """
    for name, folder in {"qwen": qwen, "ltx": ltx}.items():
        if not is_export(folder):
            continue
        remedy = (
            f"to train on from it, give `init` {folder}, and with it `qwen` {folder / 'language_model'} and `ltx`"
            f" {folder}, or the originals that it was trained from"
        )
        if name == "qwen":
            raise UsageError(f"`qwen` {folder} is an export of training, not Qwen2.5-VL; {remedy}")
        if not set(read_export_info(folder).get("parameters", ["bridge"])) <= set(replaced):
            raise UsageError(f"`ltx` {folder} is an export of training, whose bridge would be left out; {remedy}")


def check_openable(qwen: Path, ltx: Path) -> None:
    """Check the folders like `check_pretrained`, and check the tokenizer and the weights.

    Raise UsageError if there is no tokenizer, or if a file of weights is missing or truncated.
    """
    check_pretrained(qwen, ltx)
    if not any((qwen / name).is_file() for name in _TOKENIZERS):
        raise UsageError(f"{qwen} holds no tokenizer; take tokenizer.json along")
    for folder in (qwen, ltx / "transformer", ltx / "vae"):
        check_weights(folder)


def check_published(ltx: Path) -> None:
    """Raise UsageError for a folder that is not laid out as Lightricks/LTX-Video, with its text encoder.

    Raise it also for missing or truncated weights, and if the package that reads the tokenizer is not installed.
    """
    for part in _PUBLISHED:
        if not (ltx / part).is_dir():
            raise UsageError(
                f"`ltx` {ltx} holds no {part}; the original LTX-Video has {', '.join(_PUBLISHED)}"
                f"{_suggestion(ltx, _PUBLISHED)}"
            )
    if not (ltx / "tokenizer" / "tokenizer.json").exists() and find_spec("sentencepiece") is None:
        raise UsageError(f"{ltx / 'tokenizer'} is of SentencePiece's; pip install sentencepiece, which reads it")
    for part in ("text_encoder", "transformer", "vae"):
        check_weights(ltx / part)


def check_weights(folder: Path) -> None:
    """Raise UsageError for weights that are missing or truncated. Only the headers of files are read."""
    for index in folder.glob(_INDEX):
        for name in sorted(set(_read_json_object(index).get("weight_map", {}).values())):
            if not (folder / name).is_file():
                raise UsageError(f"{folder} lacks {name}, which {index.name} names; copy or download it again")
    for path in folder.glob("*.safetensors"):
        size, whole = path.stat().st_size, _whole_size(path)
        if size != whole:
            raise UsageError(f"{path} is damaged: it has {size:,} bytes of {whole:,}; copy or download it again")


def _whole_size(path: Path) -> int:
    """Return the size in bytes that a file of weights must have, by the offsets of the tensors in its header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        header = file.read(min(length, _LONGEST_HEADER))
    try:
        tensors = [value for name, value in json.loads(header).items() if name != "__metadata__"]
        return _LENGTH + length + max((tensor["data_offsets"][1] for tensor in tensors), default=0)
    except (ValueError, AttributeError, TypeError, KeyError, IndexError):
        return _LENGTH + length


def check_vae(ltx: Path) -> Ratios:
    """Return the ratios of the VAE in an LTX-Video folder, from its configuration.

    Raise UsageError if the folder has no VAE, or one of LTX-Video 0.9.1 or later.
    """
    folder = ltx / "vae"
    if not folder.is_dir():
        raise UsageError(
            f"`ltx` {ltx} holds no vae; name LTX-Video 0.9.0, in diffusers' layout{_suggestion(ltx, ['vae'])}"
        )
    config = _read_json_object(folder / "config.json")
    try:
        if config.get("_class_name", "AutoencoderKLLTXVideo") != "AutoencoderKLLTXVideo":
            raise ValueError(f"it is of a {config['_class_name']}")
        ratios = Ratios.from_config(config)
    except ValueError as error:
        raise UsageError(f"{folder} is not the VAE of LTX-Video: {error}; name LTX-Video 0.9.0") from error
    if config.get("timestep_conditioning"):
        raise UsageError(f"{folder} decodes with a timestep, as LTX-Video 0.9.1 and later do; name LTX-Video 0.9.0")
    return ratios


def fingerprint(qwen: Path, ltx: Path) -> str:
    """Return a hash of both models' configurations, because a checkpoint fits only models of its own shape.

    Raise UsageError if a configuration cannot be read, or if the two folders are swapped.
    """
    digest = hashlib.sha256()
    if (qwen / "transformer").is_dir() and (ltx / "config.json").is_file():
        raise UsageError(f"`qwen` {qwen} and `ltx` {ltx} are each the other's; swap them")
    for path in (qwen / "config.json", ltx / "transformer" / "config.json"):
        digest.update(json.dumps(architecture_config(_read_json_object(path)), sort_keys=True).encode())
    return digest.hexdigest()


def architecture_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the architecture settings of a model's configuration, without its version and its source."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


def _read_json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{path} is not the configuration of a model: {reason}; copy or download it again") from error
    return value


# ---- exports -------------------------------------------------------------------------------------------------------


def export_of(run: Path) -> Path:
    """Return the export of a run; `run` may also be the export itself. Raise UsageError if there is none."""
    for folder in (run, run / "export"):
        if is_export(folder):
            return folder
    held = describe_folder(Storage.at(run)) if run.is_dir() else ""
    near = suggest_folders(run.absolute(), lambda place: is_export(place) or is_export(place / "export"))
    raise UsageError(
        f"{run} holds no trained model{f', but {held}' if held else ''}; train a stage to its end, which writes one, or"
        f" name a checkpoint{f'; is {near[0]} meant?' if near else ''}"
    )


def read_export_info(folder: Path) -> dict[str, Any]:
    """Return the description that was written with an export. Raise UsageError if the folder is not an export."""
    if not is_export(folder):
        raise UsageError(
            f"{folder} holds no trained model; train a stage to its end, which writes one, or name a checkpoint"
        )
    return _read_json_object(folder / MARK)


def is_export(folder: Path) -> bool:
    """Return True for the folder of an export."""
    try:
        return {"recipe", "step", "determining"} <= _read_json_object(folder / MARK).keys()
    except UsageError:
        return False


def _suggestion(folder: Path, parts: Sequence[str]) -> str:
    near = suggest_folders(folder.absolute(), lambda place: all((place / part).exists() for part in parts))
    return f"; is {near[0]} meant?" if near else ""
