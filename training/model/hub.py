"""Models by their ids on the Hugging Face hub, OWNER/NAME or OWNER/NAME@REVISION, in place of the path of a folder.

A folder of that name comes first, then the hub's cache, so that a run continues with the files that it began with, then
the hub.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from nextscene.common.errors import UsageError
from nextscene.common.text import first_line
from nextscene.training.model.model_folders import check_weights

_WORD = r"[A-Za-z0-9][\w.-]*"
_ID = re.compile(rf"({_WORD}/{_WORD})(?:@([\w./-]+))?", re.ASCII)
_SNAPSHOT = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]{40})")
_LICENSES = ("*[Ll]icense*", "LICENSE*")


@dataclass(frozen=True)
class HubParts:
    """The parts of a model that a command needs.

    `argument` is the name of the argument that names the model. `patterns` are the files to download. Of a complete
    copy, all `needed` exist, and the folders `weights` hold all their weights.
    """

    argument: str
    patterns: tuple[str, ...]
    needed: tuple[str, ...]
    weights: tuple[str, ...]

    def lack(self, folder: Path) -> str:
        """Return what a copy lacks; "" if it is complete."""
        for part in self.needed:
            if not (folder / part).exists():
                return f"its copy in the cache lacks {part}"
        for part in self.weights:
            if not any((folder / part).glob("*.safetensors")):
                return f"its copy in the cache has no weights in {part}"
            try:
                check_weights(folder / part)
            except UsageError as error:
                return str(error)
        return ""


QWEN = HubParts("qwen", ("*.json", "*.jinja", "merges.txt", "*.safetensors", *_LICENSES), ("config.json",), (".",))
VAE = HubParts("ltx", ("vae/*", *_LICENSES), ("vae/config.json",), ("vae",))
LTX = HubParts(
    "ltx",
    ("scheduler/*", "transformer/*", "vae/*", *_LICENSES),
    ("scheduler", "transformer", "vae/config.json"),
    ("transformer", "vae"),
)
LTX_WITH_TEXT_ENCODER = HubParts(
    "ltx", (*LTX.patterns, "text_encoder/*", "tokenizer/*"), (*LTX.needed, "tokenizer"), (*LTX.weights, "text_encoder")
)


def model_folder(name: Path, parts: HubParts) -> Path:
    """Return the folder of a model: the path as it is, or the copy of a hub id in the cache, downloaded if need be.

    Raise UsageError, with the command that downloads it, if there is neither a copy nor access to the hub.
    """
    found = None if name.exists() else _ID.fullmatch(str(name))
    if found is None:
        return name
    from huggingface_hub import snapshot_download

    repository, revision = found[1], found[2]
    patterns, reason = list(parts.patterns), ""
    for cached in (True, False):
        try:
            folder = Path(
                snapshot_download(repository, revision=revision, allow_patterns=patterns, local_files_only=cached)
            )
        except Exception as error:  # noqa: BLE001 – the hub's client raises the errors of several libraries
            reason = first_line(error)
            continue
        reason = parts.lack(folder)
        if not reason:
            return folder
    raise UsageError(
        f"`{parts.argument}` {name} is not a folder here, and cannot be had from the Hugging Face hub: {reason}; where"
        f" there is access to it: {download_command(repository, revision, parts)}"
    )


def download_command(repository: str, revision: str | None, parts: HubParts) -> str:
    """Return the command of huggingface_hub that puts these parts of a model into the cache."""
    words = ["hf", "download", repository, *(["--revision", revision] if revision else [])]
    return shlex.join([*words, *(word for pattern in parts.patterns for word in ("--include", pattern))])


def hub_id(folder: Path) -> str:
    """Return the id, with its revision, of a folder in the hub's cache; "" for any other folder."""
    found = _SNAPSHOT.fullmatch("/".join(folder.absolute().parts[-3:]))
    return f"{found[1]}/{found[2]}@{found[3]}" if found else ""
