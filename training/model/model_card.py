"""The model card of an export, `README.md` there: what it was made from, how far it is trained, and how it is opened.

Tested in tests/training/model/test_export.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_ROLES = {"ltx": "video model", "qwen": "language model"}
_LICENSE = re.compile("licen[cs]e|notice", re.IGNORECASE)


def license_files(folder: Path) -> list[Path]:
    """Return the files in the folder of a model that state its license."""
    return sorted(path for path in folder.iterdir() if path.is_file() and _LICENSE.search(path.name))


def model_card(about: Mapping[str, Any], dtype: str, licenses: Mapping[str, Sequence[str]]) -> str:
    """Return the text of the card of an export.

    `about` is the description of the export; what it does not say is left out. `dtype` is the precision of the
    transformer's weights. `licenses` has the license files of `ltx` and `qwen`, by their paths in the export.
    """
    parts = [_front_matter(about, licenses), _title(about), _training(about), _opening(dtype), _license(licenses)]
    return "\n\n".join(parts) + "\n"


def _front_matter(about: Mapping[str, Any], licenses: Mapping[str, Sequence[str]]) -> str:
    """Return the metadata of the card. A JSON value is one of YAML too."""
    known = [name.partition("@")[0] for name in _originals(about).values() if name]
    files = [file for name in _ROLES for file in licenses.get(name, ())]
    fields: dict[str, Any] = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-video",
        "tags": ["next-scene-prediction"],
        "license": "other",
        "license_name": "licenses-of-the-base-models",
        **({"license_link": files[0]} if files else {}),
        **({"base_model": known} if known else {}),
        "nextscene": _facts(about),
    }
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in fields.items()), "---"])


def _facts(about: Mapping[str, Any]) -> dict[str, Any]:
    summary = about.get("summary", {})
    facts = {
        "recipe": about.get("recipe"),
        "stage": about.get("stage"),
        "steps": about.get("step"),
        "samples": about.get("samples"),
        "heldout_loss": _loss(summary, "heldout_after"),
        "heldout_loss_of_predicting_zero": _loss(summary, "zero"),
        "data": about.get("data"),
        "base_models": {name: base for name, base in _originals(about).items() if base},
    }
    return {name: value for name, value in facts.items() if value}


def _loss(summary: Mapping[str, Any], name: str) -> float | None:
    """Return a loss of the summary, which is negative where there were no held-out clips."""
    loss = summary.get(name, -1.0)
    return loss if loss >= 0 else None


def _originals(about: Mapping[str, Any]) -> dict[str, str]:
    return {name: about.get("originals", {}).get(name, "") for name in _ROLES}


def _title(about: Mapping[str, Any]) -> str:
    stage = f", trained to the end of the stage `{about['stage']}`" if "stage" in about else ""
    return (
        f"# A model of the next scene\n\nGiven the text of a scene, it makes a video of what happens next{stage}."
        " A frozen language model (Qwen2.5-VL) reads the text and a set of learned queries; a connector turns what the"
        " queries read into the condition of a video model (LTX-Video)."
    )


def _training(about: Mapping[str, Any]) -> str:
    facts = _facts(about)
    lines = ["## Training\n", "| | |", "|---|---|"]
    for name, role in _ROLES.items():
        original = _originals(about)[name] or "a folder of unknown origin; name it here before you publish"
        lines.append(f"| {role} | {original} |")
    for name in ("recipe", "steps", "samples"):
        if name in facts:
            lines.append(f"| {name} | {facts[name]} |")
    for name, data in (about.get("data") or {}).items():
        lines.append(f"| dataset `{name}` | {data['name']}{_size(data)} |")
    if "heldout_loss" in facts:
        zero = facts.get("heldout_loss_of_predicting_zero")
        compared = f"; predicting zero {zero:.4f}" if zero else ""
        lines.append(f"| held-out loss | {facts['heldout_loss']:.4f}{compared} |")
    lines.append("\n`nextscene.json` has all settings.")
    return "\n".join(lines)


def _size(data: Mapping[str, Any]) -> str:
    if "sha256" not in data:
        return ""
    counts = ", ".join(f"{count:,} in {split}" for split, count in data["samples"].items())
    return f": {counts}; SHA-256 of its manifest {data['sha256']}"


def _opening(dtype: str) -> str:
    return f"""\
## How to open it

`EXPORT` is this folder, or its id on the hub. The code that runs is `pipeline.py` and `bridge/bridge.py`.

```python
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import export_to_video

pipeline = DiffusionPipeline.from_pretrained("EXPORT", trust_remote_code=True, torch_dtype=torch.bfloat16).to("cuda")
video = pipeline("A glass at the edge of the table begins to wobble.", seed=0).frames[0]
export_to_video(video, "next.mp4", fps=16)
```

The weights of the transformer are stored in {dtype}. On a CPU, leave out `torch_dtype` and `.to`."""


def _license(licenses: Mapping[str, Sequence[str]]) -> str:
    lines = ["## License\n", "The weights are made from those of two models, whose licenses apply to them:\n"]
    for name, role in _ROLES.items():
        files = ", ".join(f"[{file}]({file})" for file in licenses.get(name, ()))
        lines.append(f"- {role}: {files or 'its folder held no license file; see where it was published'}")
    lines.append("\nThe code in `pipeline.py` and `bridge/bridge.py` is under Apache-2.0.")
    return "\n".join(lines)
