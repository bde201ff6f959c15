"""The published checkpoints that training starts from, opened from folders: Qwen2.5-VL and LTX-Video 0.9.0.

The slow imports of torch, transformers and diffusers happen only when a model is opened, not when folders are named.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextscene.common.errors import UsageError
from nextscene.common.text import first_line
from nextscene.training.model.model_folders import check_pretrained, check_vae, fingerprint

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXVideoTransformer3DModel
    from transformers import Qwen2_5_VLTextModel

    from nextscene.training.model.bridge import Bridge

_WORDS = "What happens next?"


@dataclass(frozen=True)
class PretrainedModels:
    """The folders of the pretrained models. Both are checked, and UsageError is raised for an incomplete one.

    `qwen` is laid out as Qwen/Qwen2.5-VL-7B-Instruct, `ltx` as Lightricks/LTX-Video, in the layout of diffusers.
    """

    qwen: Path
    ltx: Path

    def __post_init__(self) -> None:
        check_pretrained(self.qwen, self.ltx)

    def tokenizer(self) -> Any:
        """Return Qwen's tokenizer. Raise UsageError if it cannot encode text, or has no chat template.

        From a folder without its files, transformers creates a tokenizer with an empty vocabulary instead of failing.
        """
        from transformers import AutoTokenizer

        tokenizer = open_pretrained(AutoTokenizer, self.qwen)
        if tokenizer.decode(tokenizer(_WORDS, add_special_tokens=False)["input_ids"]) != _WORDS:
            raise UsageError(f"{self.qwen} holds no tokenizer that knows a text; take tokenizer.json along")
        if not tokenizer.chat_template:
            raise UsageError(f"{self.qwen} holds no chat template; take chat_template.jinja along")
        return tokenizer

    def language(self, dtype: torch.dtype) -> Qwen2_5_VLTextModel:
        """Return the language model without vision tower and head, which a text prompt does not need: 2.4 GB less.

        Raise UsageError if weights are missing.
        """
        from transformers import Qwen2_5_VLTextModel

        model, found = open_pretrained(Qwen2_5_VLTextModel, self.qwen, dtype=dtype, output_loading_info=True)
        if missing := sorted(found["missing_keys"]):
            raise UsageError(f"{self.qwen} lacks {len(missing)} weights of Qwen2.5-VL, {missing[0]} for one")
        return model

    def transformer(self, dtype: torch.dtype) -> LTXVideoTransformer3DModel:
        """Return LTX's transformer. Raise UsageError as `open_pretrained`."""
        from diffusers import LTXVideoTransformer3DModel

        return open_pretrained(
            LTXVideoTransformer3DModel, self.ltx, subfolder="transformer", torch_dtype=dtype, low_cpu_mem_usage=False
        )

    def vae(self, dtype: torch.dtype) -> AutoencoderKLLTXVideo:
        """Return LTX's frozen VAE. Raise UsageError as `open_vae`."""
        return open_vae(self.ltx, dtype)

    def scheduler(self) -> FlowMatchEulerDiscreteScheduler:
        """Return LTX's scheduler. Raise UsageError as `open_pretrained`."""
        from diffusers import FlowMatchEulerDiscreteScheduler

        return open_pretrained(FlowMatchEulerDiscreteScheduler, self.ltx, subfolder="scheduler")

    @property
    def fingerprint(self) -> str:
        """The hash of both models' configurations, as `model_folders.fingerprint` returns it.

        Raise UsageError if a configuration cannot be read.
        """
        return fingerprint(self.qwen, self.ltx)


def open_vae(ltx: Path, dtype: torch.dtype) -> AutoencoderKLLTXVideo:
    """Return the frozen VAE of an LTX-Video folder.

    Raise UsageError as `open_pretrained`, and for LTX-Video 0.9.1 or later, whose decoder takes a timestep.
    """
    from diffusers import AutoencoderKLLTXVideo

    check_vae(ltx)
    vae = open_pretrained(AutoencoderKLLTXVideo, ltx, subfolder="vae", torch_dtype=dtype, low_cpu_mem_usage=False)
    return vae.requires_grad_(requires_grad=False).eval()


def open_pretrained(kind: Any, folder: Path, **how: Any) -> Any:
    """Return the result of `from_pretrained`. Raise UsageError, with the reason, for a folder that cannot be opened."""
    from safetensors import SafetensorError

    from nextscene.training.machine_faults import is_out_of_memory

    try:
        return kind.from_pretrained(folder, **how)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        place = folder / how.get("subfolder", "")
        raise UsageError(f"{place} cannot be opened as a {kind.__name__}: {first_line(error)}") from error


def new_bridge(
    language: Qwen2_5_VLTextModel, transformer: LTXVideoTransformer3DModel, queries: int, hidden: int, seed: int
) -> Bridge:
    """Return the initial bridge of training, the same on every rank. `hidden` 0 is Qwen's width."""
    import torch

    from nextscene.training.model.bridge import Bridge

    width = language.config.hidden_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bridge: Bridge = Bridge(
            width=width, out=transformer.config.caption_channels, num_queries=queries, hidden=hidden or width
        )
    bridge.match_embedding_scale(language.embed_tokens.weight)
    return bridge
