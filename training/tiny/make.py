"""Construction of toy checkpoints from a dataset: a fitted autoencoder, a trained base transformer, a small Qwen."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from diffusers import LTXPipeline
from torch import Tensor
from torch.utils.data import DataLoader

from nextscene.common.atomic import UNFINISHED
from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.samples.shapes.world import what_follows
from nextscene.shards.format.folder_mark import TOYS, claimed
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.loading.dataset import ClipDataset
from nextscene.training.model.export_pipeline import TEXT
from nextscene.training.model.prompter import prompt_templates
from nextscene.training.model.quiet_libraries import silence_libraries
from nextscene.training.tiny.autoencoder import fit
from nextscene.training.tiny.base import CONDITION_SIZE, ltx_scheduler, pretrain
from nextscene.training.tiny.language import save_qwen, text_encoder
from nextscene.training.tiny.language_training import ScenePair, train_language
from nextscene.training.tiny.spec import FILM, ToySpec

_SEED = 0
_VERSION = 2
_STAMP = "made.json"
_FOLDERS = ("ltx", "qwen")


def is_made(data: str, out: Path, spec: ToySpec) -> bool:
    """Return True if `out` contains the models that would be made from this dataset now.

    Raise FileNotFoundError if models are there but the dataset is not, and UsageError if they are of another kind: runs
    that were trained from them could not continue without them.
    """
    try:
        made = json.loads((out / _STAMP).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    wanted = _stamp(data, spec)
    if {**made, **_of_data(wanted)} != wanted:
        raise UsageError(f"{out} holds toy models of another kind; choose another `out`, or the `kind` of these")
    return bool(made == wanted)


def _of_data(stamp: Mapping[str, Any]) -> dict[str, Any]:
    """Return what differs between models of one kind."""
    return {name: stamp[name] for name in ("version", "steps", "shards")}


def _stamp(data: str, spec: ToySpec) -> dict[str, Any]:
    shards = [shard.sha256 for shard in Manifest.read(Storage.at(data)).shards]
    # Only what differs from the models that every version made, so that those are not made again.
    further = {name: value for name, value in asdict(spec).items() if value != getattr(FILM, name)}
    shared = {"version": _VERSION, "steps": spec.steps}
    return {**further, **shared, "shards": hashlib.sha256("".join(shards).encode()).hexdigest()}


def make_toy_models(data: str, out: Path, spec: ToySpec, workers: int, tick: Callable[[str], None]) -> None:
    """Write `out`/ltx and `out`/qwen, and then the stamp that marks them complete.

    `tick` is called with a description of the work, once for each clip and step. Raise UsageError for a dataset without
    a video of enough frames, or with other scenes than `spec` needs, and NotOurs if `out` contains something that was
    not made here.
    """
    silence_libraries()
    with claimed(Storage.at(out), TOYS):
        draft = out / UNFINISHED
        try:
            _make(data, draft, spec, workers, tick)
            _put(draft, out, _stamp(data, spec))
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _put(draft: Path, out: Path, stamp: Mapping[str, Any]) -> None:
    """Replace the earlier models. The stamp is deleted first and written last: models without it are made again.

    No rename replaces both folders at once, so the stamp, a file, is what appears atomically.
    """
    (out / _STAMP).unlink(missing_ok=True)
    for name in _FOLDERS:
        if (out / name).exists():
            shutil.rmtree(out / name)
        (draft / name).rename(out / name)
    Storage.at(out).write(_STAMP, (json.dumps(stamp) + "\n").encode())


def _make(data: str, draft: Path, spec: ToySpec, workers: int, tick: Callable[[str], None]) -> None:
    torch.manual_seed(_SEED)
    torch.set_num_threads(1)  # the tensors are so small that threads cost more than they save
    videos, captions, texts, fps = _read(data, spec, workers, tick)
    shutil.rmtree(draft, ignore_errors=True)
    _make_language(draft / "qwen", texts, spec, lambda: tick("training the language model"))
    tick("fitting the autoencoder")
    vae = fit(videos, spec)
    tokenizer, encoder = text_encoder(texts, CONDITION_SIZE)
    transformer = pretrain(
        vae, tokenizer, encoder, videos, captions, fps, spec, lambda: tick("training the base transformer")
    )
    LTXPipeline(
        scheduler=ltx_scheduler(), vae=vae, text_encoder=encoder, tokenizer=tokenizer, transformer=transformer
    ).save_pretrained(draft / "ltx")


def _make_language(folder: Path, texts: Sequence[str], spec: ToySpec, tick: Callable[[], None]) -> None:
    """Write the language model, given the caption and the scene of each clip in turn."""
    if not spec.language_steps:
        save_qwen(folder, texts)
        return
    _check_scenes(texts[1::2])
    pairs = [ScenePair(scene, caption) for caption, scene in zip(texts[::2], texts[1::2], strict=True)]
    # The prompts are among the tokenizer's texts, so that they become short.
    prompts = [prompt.replace(TEXT, "") for prompt in prompt_templates().values()] * len(pairs)
    save_qwen(
        folder,
        [*texts, *prompts],
        lambda whole, tokenizer: train_language(whole, tokenizer, pairs, spec.language_steps, tick),
    )


def _check_scenes(scenes: Sequence[str]) -> None:
    """Raise UsageError unless all are scenes of the world of shapes."""
    for scene in scenes:
        try:
            what_follows(scene)
        except ValueError as error:
            raise UsageError(f"{error}; its models are made of that world's clips; choose another `kind`") from error


def clips_of(data: str, spec: ToySpec) -> ClipDataset:
    """Return the clips of a dataset in the length and size that the toy models use."""
    return ClipDataset(data, max_frames=spec.frames, size=(spec.width, spec.height))


def _read(
    data: str, spec: ToySpec, workers: int, tick: Callable[[str], None]
) -> tuple[Tensor, list[str], list[str], float]:
    """Return the videos with enough frames, their captions, all texts, and the frame rate.

    Raise UsageError if no video has enough frames.
    """
    videos, captions, texts, fps = [], [], [], 16.0
    for clip in DataLoader(clips_of(data, spec), batch_size=None, num_workers=workers):  # type: ignore[arg-type]
        tick("reading the clips")
        texts += [clip["caption"], clip["text"]]
        if len(clip["video"]) == spec.frames:
            videos.append(clip["video"])
            captions.append(clip["caption"])
            fps = clip["fps"]
    if not videos:
        raise UsageError(f"{data} has no video of {spec.frames} frames, of which the toy model is made")
    return torch.stack(videos), captions, texts, fps
