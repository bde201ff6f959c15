"""The toy checkpoints of a dataset: an autoencoder fitted to it, a base transformer trained on it, a random Qwen."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import LTXPipeline
from torch import Tensor
from torch.utils.data import DataLoader

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.shards.format.folder_mark import TOYS, claimed
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.loading.dataset import ClipDataset
from nextscene.training.tiny.autoencoder import fit
from nextscene.training.tiny.base import CONDITION_SIZE, ltx_scheduler, pretrain
from nextscene.training.tiny.language import save_qwen, text_encoder

MAX_FRAMES = 17
WIDTH, HEIGHT = 160, 96
_SEED = 0
_VERSION = 2
_STAMP = "made.json"
_FOLDERS = ("ltx", "qwen")
_DRAFT = ".unfinished"


def is_made(data: str, out: Path, steps: int) -> bool:
    """Whether `out` holds what would be made of this dataset now. Raises FileNotFoundError where there is none."""
    try:
        return bool(json.loads((out / _STAMP).read_text(encoding="utf-8")) == _stamp(data, steps))
    except FileNotFoundError:
        return False


def _stamp(data: str, steps: int) -> dict[str, Any]:
    shards = [shard.sha256 for shard in Manifest.read(Storage.at(data)).shards]
    return {"version": _VERSION, "steps": steps, "shards": hashlib.sha256("".join(shards).encode()).hexdigest()}


def make_toy_models(data: str, out: Path, steps: int, workers: int, tick: Callable[[str], None]) -> None:
    """Writes `out`/ltx and `out`/qwen, and then the stamp by which they stand; the base takes `steps` steps.

    `tick` is told what is being done, once for each clip and step. Raises UsageError for a dataset without a
    video of enough frames, NotOurs where `out` holds what was not made here.
    """
    with claimed(Storage.at(out), TOYS):
        draft = out / _DRAFT
        try:
            _make(data, draft, steps, workers, tick)
            _put(draft, out, _stamp(data, steps))
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _put(draft: Path, out: Path, stamp: Mapping[str, Any]) -> None:
    """Replaces what was made before; without a stamp nothing stands, and it is made again."""
    (out / _STAMP).unlink(missing_ok=True)
    for name in _FOLDERS:
        if (out / name).exists():
            shutil.rmtree(out / name)
        (draft / name).rename(out / name)
    Storage.at(out).write(_STAMP, (json.dumps(stamp) + "\n").encode())


def _make(data: str, draft: Path, steps: int, workers: int, tick: Callable[[str], None]) -> None:
    torch.manual_seed(_SEED)
    torch.set_num_threads(1)  # so small are the tensors that threads cost more than they bring
    videos, captions, texts, fps = _read(data, workers, tick)
    shutil.rmtree(draft, ignore_errors=True)
    save_qwen(draft / "qwen", texts)
    tick("fitting the autoencoder")
    vae = fit(videos)
    tokenizer, encoder = text_encoder(texts, CONDITION_SIZE)
    transformer = pretrain(
        vae, tokenizer, encoder, videos, captions, fps, steps, lambda: tick("training the base transformer")
    )
    LTXPipeline(
        scheduler=ltx_scheduler(), vae=vae, text_encoder=encoder, tokenizer=tokenizer, transformer=transformer
    ).save_pretrained(draft / "ltx")


def clips_of(data: str) -> ClipDataset:
    return ClipDataset(data, max_frames=MAX_FRAMES, size=(WIDTH, HEIGHT))


def _read(data: str, workers: int, tick: Callable[[str], None]) -> tuple[Tensor, list[str], list[str], float]:
    """The videos that are long enough, their captions, all texts, and the frame rate."""
    videos, captions, texts, fps = [], [], [], 16.0
    for clip in DataLoader(clips_of(data), batch_size=None, num_workers=workers):  # type: ignore[arg-type]
        tick("reading the clips")
        texts += [clip["caption"], clip["text"]]
        if len(clip["video"]) == MAX_FRAMES:
            videos.append(clip["video"])
            captions.append(clip["caption"])
            fps = clip["fps"]
    if not videos:
        raise UsageError(f"{data} has no video of {MAX_FRAMES} frames, of which the toy model is made")
    return torch.stack(videos), captions, texts, fps
