"""The published checkpoints that training begins with, opened from folders: Qwen2.5-VL and LTX-Video 0.9.0."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXVideoTransformer3DModel
from safetensors import SafetensorError
from transformers import AutoTokenizer, Qwen2_5_VLTextModel

from training.errors import TrainingMistake
from training.model.bridge import Bridge
from training.model.latents import Ratios

_WORDS = "What happens next?"
_LTX_FOLDERS = ("transformer", "vae", "scheduler")


@dataclass(frozen=True)
class Originals:
    """`qwen` is laid out as Qwen/Qwen2.5-VL-7B-Instruct, `ltx` as Lightricks/LTX-Video, in the layout of diffusers."""

    qwen: Path
    ltx: Path

    def __post_init__(self) -> None:
        wanted = [self.qwen / "config.json", *(self.ltx / folder for folder in _LTX_FOLDERS)]
        for path in wanted:
            if not path.exists():
                flag = "--qwen" if path.parent == self.qwen else "--ltx"
                raise TrainingMistake(
                    f"{flag} {path.parent} holds no {path.name}; name a folder in the layout that the models were"
                    " published in, or make small ones with pipelines/make_tiny.py"
                )

    def tokenizer(self) -> Any:
        """Of a folder that lacks its files, transformers makes one that knows no word."""
        tokenizer = open_pretrained(AutoTokenizer, self.qwen)
        if tokenizer.decode(tokenizer(_WORDS, add_special_tokens=False)["input_ids"]) != _WORDS:
            raise TrainingMistake(f"{self.qwen} holds no tokenizer that knows a text; take tokenizer.json along")
        if not tokenizer.chat_template:
            raise TrainingMistake(f"{self.qwen} holds no chat template; take chat_template.jinja along")
        return tokenizer

    def language(self, dtype: torch.dtype) -> Qwen2_5_VLTextModel:
        """Without vision tower and head, which a prompt of text does not need: 2.4 GB less."""
        model, found = open_pretrained(Qwen2_5_VLTextModel, self.qwen, dtype=dtype, output_loading_info=True)
        if missing := sorted(found["missing_keys"]):
            raise TrainingMistake(f"{self.qwen} lacks {len(missing)} weights of Qwen2.5-VL, {missing[0]} for one")
        return model

    def transformer(self, dtype: torch.dtype) -> LTXVideoTransformer3DModel:
        return open_pretrained(
            LTXVideoTransformer3DModel, self.ltx, subfolder="transformer", torch_dtype=dtype, low_cpu_mem_usage=False
        )

    def vae(self, dtype: torch.dtype) -> AutoencoderKLLTXVideo:
        return open_vae(self.ltx, dtype).requires_grad_(requires_grad=False)

    def scheduler(self) -> FlowMatchEulerDiscreteScheduler:
        return open_pretrained(FlowMatchEulerDiscreteScheduler, self.ltx, subfolder="scheduler")

    @property
    def fingerprint(self) -> str:
        """Of both models' configurations: a checkpoint of one shape fits no other. Raises TrainingMistake."""
        digest = hashlib.sha256()
        for path in (self.qwen / "config.json", self.ltx / "transformer" / "config.json"):
            try:
                config = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise TrainingMistake(f"{path} is no model's configuration: {error}") from error
            digest.update(json.dumps(lasting(config), sort_keys=True).encode())
        return digest.hexdigest()


def open_vae(ltx: Path, dtype: torch.dtype) -> AutoencoderKLLTXVideo:
    """Raises TrainingMistake as `open_pretrained`, and for one of LTX-Video 0.9.1 or later."""
    check_vae(ltx)
    vae = open_pretrained(AutoencoderKLLTXVideo, ltx, subfolder="vae", torch_dtype=dtype, low_cpu_mem_usage=False)
    return vae.eval()


def check_vae(ltx: Path) -> Ratios:
    """Of its configuration alone, no weights are read. Raises as `open_vae`."""
    try:
        config = AutoencoderKLLTXVideo.load_config(ltx / "vae")
        with torch.device("meta"):
            vae: AutoencoderKLLTXVideo = AutoencoderKLLTXVideo.from_config(config)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise TrainingMistake(f"{ltx / 'vae'} is no VAE of LTX-Video: {error}") from error
    if vae.config.timestep_conditioning:
        raise TrainingMistake(
            f"{ltx / 'vae'} decodes with a timestep, as LTX-Video 0.9.1 and later do; name LTX-Video 0.9.0"
        )
    return Ratios.of(vae)


def open_pretrained(kind: Any, folder: Path, **how: Any) -> Any:
    """What `from_pretrained` gives. Raises TrainingMistake for a folder that it cannot open, with its reason."""
    try:
        return kind.from_pretrained(folder, **how)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        place = folder / how.get("subfolder", "")
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingMistake(f"{place} cannot be opened as a {kind.__name__}: {reason}") from error


def lasting(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a model's configuration says how it is built, not by which version or from where it was loaded."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


def new_bridge(
    language: Qwen2_5_VLTextModel, transformer: LTXVideoTransformer3DModel, queries: int, hidden: int, seed: int
) -> Bridge:
    """As training begins with it: the same one on every rank. `hidden` 0 is Qwen's width."""
    width = language.config.hidden_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bridge: Bridge = Bridge(
            width=width, out=transformer.config.caption_channels, num_queries=queries, hidden=hidden or width
        )
    bridge.start_at(language.embed_tokens.weight)
    return bridge
