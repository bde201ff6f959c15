"""Folders to be mixed up, models with weights that mean nothing among them, and what every mistake must keep to."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from nextscene.common.storage import Storage
from nextscene.shards.format.folder_mark import VIDEOS, claim
from nextscene.shards.format.layout import ShardName
from tests.foreign import marked, tree
from tests.shards.samples import sample, seal_dataset
from tests.training.models import ltx_config, qwen_config, vae_config

_SCALARS: dict[str, Any] = {"recipe": "sft", "stage": "sft", "step": 7, "samples": 8, "world": 1}
_TRAINED_AT = {"data.max_frames": 9, "data.width": 32, "data.height": 24}


@dataclass(frozen=True)
class Wrong:
    """A command line with one mistake: `{place}` is a file or folder of `lay_places`, `words` must be in the line."""

    line: str
    words: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join([*(f"{name}={value!r}" for name, value in self.env.items()), self.line])


def wrong(line: str, *words: str, **env: str) -> Wrong:
    return Wrong(line, words, env)


def run(line: str, places: Path, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, in this process; it must end by itself, not by an exception."""
    command, *arguments = (_filled(word, places) for word in shlex.split(line))
    main = importlib.import_module(f"nextscene.pipelines.{command}").main
    result = CliRunner(env={**_WITHOUT, **(env or {})}).invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.stdout, result.stderr


def assert_refused(case: Wrong, places: Path) -> None:
    """In one line, with the exit code of a mistake, and with every file as it was."""
    before = tree(places)
    code, stdout, stderr = run(case.line, places, case.env)
    assert (code, stdout) == (2, ""), stderr
    (line,) = stderr.splitlines()
    assert line.startswith("error: "), line
    assert [word for word in case.words if _filled(word, places) not in line] == [], line
    assert tree(places) == before
    assert not (places.parent / "out").exists()


def _filled(word: str, places: Path) -> str:
    """OUT is beside the places: where a folder was made and is gone again, the one around it is another."""
    return re.sub(
        r"(?<!\$)\{([^}]*)\}", lambda name: str((places.parent if name[1] == "out" else places) / name[1]), word
    )


_OF_PROCESSES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_OF_THE_JUDGE = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL")
_WITHOUT: dict[str, str | None] = dict.fromkeys((*_OF_PROCESSES, *_OF_THE_JUDGE))


def lay_places(folder: Path) -> Path:
    """A dataset, latents, models, a run with a checkpoint and an export, videos, and texts in several encodings."""
    seal_dataset(folder / "data", {ShardName("train", 0): [sample(1), sample(2)]})
    (folder / "data" / "config.toml").write_text('plan_sha256 = "0"\n')
    for kind in ("latents", "evaluation", "toys"):
        marked(folder / kind, kind)
    qwen, ltx = lay_qwen(folder / "qwen"), lay_ltx(folder / "ltx")
    lay_export(folder / "run" / "export")
    lay_checkpoint(folder / "run" / "sft" / "checkpoints" / "step-7", qwen, ltx)
    lay_videos(folder / "videos", folder / "run" / "export")
    lay_damaged(folder)
    texts: dict[str, str | bytes] = {
        "scenes.txt": "One.\nTwo.\n",
        "blank.txt": "\n \n",
        "utf16.txt": "One.\nTwo.\n".encode("utf-16"),
        "zero.txt": "One.\0\n",
        "long.txt": "word " * 10_000,
    }
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def lay_qwen(folder: Path) -> Path:
    _config(folder, {"model_type": "qwen2_5_vl_text", **qwen_config()})
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    _weights(folder / "model.safetensors")
    return folder


def lay_ltx(folder: Path) -> Path:
    _config(folder / "scheduler", {})
    for part, config in {"transformer": ltx_config(), "vae": vae_config()}.items():
        _config(folder / part, config)
        _weights(folder / part / "diffusion_pytorch_model.safetensors")
    return folder


def lay_export(folder: Path) -> None:
    lay_ltx(folder)
    lay_qwen(folder / "language_model")
    _weights(folder / "bridge" / "diffusion_pytorch_model.safetensors")
    about = {"recipe": "sft", "step": 7, "determining": _TRAINED_AT}
    (folder / "nextscene.json").write_text(json.dumps(about))


def lay_checkpoint(folder: Path, qwen: Path, ltx: Path) -> None:
    from nextscene.training.model.model_folders import fingerprint

    folder.mkdir(parents=True)
    about = _SCALARS | {
        "model": fingerprint(qwen, ltx),
        "bridge": {},
        "parameters": [],
        "averaged": [],
        "determining": _TRAINED_AT,
        "loader": {},
    }
    (folder / "about.json").write_text(json.dumps(about))


def lay_videos(folder: Path, export: Path) -> None:
    """Two, made with 2 steps from the seeds 0 and 1."""
    from nextscene.training.generation.open_generator import of_export

    opening = of_export(export, steps=2)
    claim(Storage.at(folder), VIDEOS)
    size = {"frames": 9, "width": 32, "height": 24, "fps": 16.0, "steps": 2, "guidance": 3.0}
    for number, scene in enumerate(("One.", "Two.")):
        record = {"file": f"{number:04}.mp4", "scene": scene, "seed": number, "model": opening.name, **size}
        (folder / f"{number:04}.mp4").write_bytes(b"a video")
        with (folder / "videos.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")


def lay_damaged(folder: Path) -> None:
    """Models of which something is missing."""
    lay_qwen(folder / "wordless" / "qwen")
    (folder / "wordless" / "qwen" / "tokenizer.json").unlink()
    lay_qwen(folder / "cut" / "qwen")
    _weights(folder / "cut" / "qwen" / "model.safetensors", but=4)
    parted = lay_ltx(folder / "parted" / "ltx") / "transformer"
    index = {"weight_map": {"proj_in.weight": "part-00002-of-00002.safetensors"}}
    (parted / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    deeper = lay_ltx(folder / "deeper" / "ltx")
    _config(deeper / "transformer", ltx_config() | {"num_layers": 3})
    newer = lay_ltx(folder / "newer" / "ltx")
    _config(newer / "vae", vae_config() | {"timestep_conditioning": True})


def _config(folder: Path, config: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))


def _weights(path: Path, but: int = 0) -> None:
    """A file of one tensor in the format of safetensors, `but` the last bytes of it."""
    header = json.dumps({"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((len(header).to_bytes(8, "little") + header + bytes(8))[: -but or None])
