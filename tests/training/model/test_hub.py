"""Models by their ids on the hub: from its cache, from the hub, or refused with the command that downloads them."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from click.testing import CliRunner
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from nextscene.common.errors import UsageError
from nextscene.pipelines import encode_latents, evaluate, generate, train
from nextscene.training.data.latent_cache import LatentEncoding
from nextscene.training.model.hub import LTX, LTX_WITH_TEXT_ENCODER, QWEN, VAE, download_command, hub_id, model_folder
from nextscene.training.model.model_folders import fingerprint
from tests.pipelines.wrong_inputs import lay_ltx, lay_places, lay_qwen
from tests.support import REPOSITORY

QWEN_ID, LTX_ID = Path("Qwen/Qwen2.5-VL-7B-Instruct"), Path("Lightricks/LTX-Video")
OLD, NEW = "a" * 40, "b" * 40


def lay_cached(model: Path, cache: Path, name: Path, revision: str) -> Path:
    """Put the files of a model into a cache as the hub's client does: blobs, and links to them in a snapshot."""
    folder = cache / f"models--{name.parent}--{name.name}"
    for file in filter(Path.is_file, sorted(model.rglob("*"))):
        blob = folder / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        link = folder / "snapshots" / revision / file.relative_to(model)
        for place in (blob, link):
            place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(revision)
    return folder / "snapshots" / revision


@pytest.fixture
def models(tmp_path: Path) -> Path:
    lay_qwen(tmp_path / "models" / "qwen")
    lay_ltx(tmp_path / "models" / "ltx")
    return tmp_path / "models"


@pytest.fixture
def cache(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a cache that holds both models, without access to the hub. The folder of the process holds neither."""
    made = tmp_path / "home" / "hub"
    lay_cached(models / "qwen", made, QWEN_ID, OLD)
    lay_cached(models / "ltx", made, LTX_ID, OLD)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(made))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return made


def test_an_id_resolves_to_its_newest_snapshot_and_with_a_revision_to_that(models: Path, cache: Path) -> None:
    old = model_folder(LTX_ID, LTX)
    assert old == cache / "models--Lightricks--LTX-Video" / "snapshots" / OLD
    new = lay_cached(models / "ltx", cache, LTX_ID, NEW)
    assert model_folder(LTX_ID, LTX) == new
    assert model_folder(Path(f"{LTX_ID}@{OLD}"), LTX) == old
    assert model_folder(Path(f"{LTX_ID}@main"), LTX) == new


def test_a_folder_of_that_name_comes_first(models: Path, cache: Path) -> None:
    shutil.copytree(models / "qwen", QWEN_ID)
    assert model_folder(QWEN_ID, QWEN) == QWEN_ID
    assert model_folder(models / "qwen", QWEN) == models / "qwen"


@pytest.mark.parametrize("name", ["models", "a/b/c", "/nowhere/at-all", "../x", "./x"])
def test_a_path_that_is_no_id_stays_as_it_is(cache: Path, name: str) -> None:
    assert model_folder(Path(name), LTX) == Path(name)


def test_an_id_its_snapshot_and_a_copy_are_the_same_models(models: Path, cache: Path) -> None:
    qwen, ltx = model_folder(QWEN_ID, QWEN), model_folder(LTX_ID, LTX)
    copies = Path(shutil.copytree(qwen, "copy/qwen")), Path(shutil.copytree(ltx, "copy/ltx"))
    assert fingerprint(qwen, ltx) == fingerprint(*copies) == fingerprint(models / "qwen", models / "ltx")
    encodings = {
        LatentEncoding.for_vae(one / "vae", 9, (32, 24)).fingerprint for one in (ltx, copies[1], models / "ltx")
    }
    assert len(encodings) == 1
    assert hub_id(qwen) == f"{QWEN_ID}@{OLD}" and hub_id(ltx) == f"{LTX_ID}@{OLD}"
    assert hub_id(copies[0]) == ""


def only(folder: Path, *parts: str) -> None:
    for part in folder.iterdir():
        if part.name not in parts:
            shutil.rmtree(part)


def test_a_copy_that_lacks_a_part_is_enough_for_what_does_not_need_it(cache: Path) -> None:
    only(cache / "models--Lightricks--LTX-Video" / "snapshots" / OLD, "vae")
    assert model_folder(LTX_ID, VAE).is_dir()
    with pytest.raises(UsageError, match="its copy in the cache lacks scheduler"):
        model_folder(LTX_ID, LTX)


def test_a_copy_without_all_its_weights_is_not_complete(cache: Path) -> None:
    weights = cache / "models--Qwen--Qwen2.5-VL-7B-Instruct" / "snapshots" / OLD / "model.safetensors"
    weights.unlink()
    with pytest.raises(UsageError, match="has no weights"):
        model_folder(QWEN_ID, QWEN)


def downloading(models: Path, cache: Path, asked: list[dict[str, Any]]) -> Callable[..., str]:
    """Return a `snapshot_download` that finds nothing in the cache and notes what it is asked to download."""

    def download(repository: str, **how: Any) -> str:
        if how["local_files_only"]:
            raise LocalEntryNotFoundError("not in the cache")
        asked.append({"repository": repository, **how})
        return str(lay_cached(models / "ltx", cache, Path(repository), NEW))

    return download


def test_what_the_cache_lacks_is_downloaded_and_no_more_than_is_needed(
    models: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", downloading(models, cache, asked))
    folder = model_folder(Path("somebody/ltx@v1.0"), LTX)
    assert (folder / "vae" / "config.json").is_file()
    (one,) = asked
    assert (one["repository"], one["revision"]) == ("somebody/ltx", "v1.0")
    assert {pattern for pattern in one["allow_patterns"] if "/" in pattern} == {"scheduler/*", "transformer/*", "vae/*"}


def test_without_the_hub_the_command_that_downloads_it_is_named(cache: Path) -> None:
    with pytest.raises(UsageError) as error:
        model_folder(Path("somebody/ltx@v1.0"), LTX_WITH_TEXT_ENCODER)
    line = str(error.value)
    assert line.startswith(
        "`ltx` somebody/ltx@v1.0 is not a folder here, and cannot be had from the Hugging Face hub: "
    )
    command = shlex.split(line.rpartition(": ")[2])
    assert command[:5] == ["hf", "download", "somebody/ltx", "--revision", "v1.0"]
    assert command[5::2] == ["--include"] * len(command[5::2])
    assert {"vae/*", "text_encoder/*", "tokenizer/*"} <= set(command[6::2])


def test_a_model_that_the_hub_does_not_have_is_refused_with_its_reason(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> str:
        raise OSError("404 Client Error\nRepository Not Found")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", missing)
    with pytest.raises(UsageError, match="from the Hugging Face hub: 404 Client Error; where"):
        model_folder(Path("somebody/nothing"), QWEN)


def test_the_documented_downloads_bring_what_training_needs() -> None:
    text = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8").replace("\\\n", " ")
    documented = [shlex.split(line) for line in text.splitlines() if line.startswith("hf download ")]
    for words, parts in zip(documented, (QWEN, LTX), strict=True):
        assert words == shlex.split(download_command(words[2], words[4], parts))
        assert re.fullmatch("[0-9a-f]{40}", words[4])


# ---- the commands --------------------------------------------------------------------------------------------------


def error(command: Any, *arguments: object) -> str:
    result = CliRunner().invoke(command, [str(word) for word in arguments])
    assert (result.exit_code, result.stdout) == (2, ""), result.stderr
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.usefixtures("cache")
def test_every_command_takes_ids_and_names_the_download_of_what_it_lacks(tmp_path: Path) -> None:
    """The ids that are there are read: of these toys the weights mean nothing, and the tokenizer has no words."""
    places = lay_places(tmp_path / "places")
    shutil.rmtree("models")
    step, out = places / "run" / "sft" / "checkpoints" / "step-7", tmp_path / "out"
    sft = ("--stage", "sft", "--recipe", "sft", "--init", step, "--data", f"nsp={places / 'data'}", "--out", out)
    line = error(train.main, *sft, "--qwen", QWEN_ID, "--ltx", f"{LTX_ID}@{NEW}")
    assert f"--ltx {LTX_ID}@{NEW} is not a folder here" in line.replace("`ltx`", "--ltx") and "hf download" in line
    made = ("--scene", "One.", "--out", out)
    line = error(generate.main, *made, "--checkpoint", step, "--qwen", QWEN_ID, "--ltx", "somebody/ltx")
    assert "hf download somebody/ltx" in line
    line = error(generate.main, *made, "--original", "--ltx", LTX_ID)
    assert "lacks tokenizer" in line and "text_encoder/*" in line
    judged = ("--vbench", places / "scenes.txt", "--out", out)
    line = error(evaluate.main, *judged, "--original", f"ltx={LTX_ID}")
    assert "lacks tokenizer" in line
    line = error(evaluate.main, *judged, "--model", f"a={step}", "--qwen", "somebody/qwen", "--ltx", LTX_ID)
    assert "hf download somebody/qwen" in line
    line = error(encode_latents.main, "--data", places / "data", "--ltx", f"{LTX_ID}@{NEW}", "--out", out)
    assert "hf download Lightricks/LTX-Video" in line and "scheduler" not in line
    assert not out.exists()


def test_the_cache_is_that_of_the_environment(models: Path, tmp_path: Path) -> None:
    """In a process of its own, because the hub's client reads the environment once."""
    place = lay_cached(models / "qwen", tmp_path / "home" / "hub", QWEN_ID, OLD)
    code = (
        "import sys; from pathlib import Path; from nextscene.training.model.hub import QWEN, model_folder\n"
        "print(model_folder(Path(sys.argv[1]), QWEN)); assert 'torch' not in sys.modules"
    )
    env = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)}
    env = {name: value for name, value in env.items() if name != "HF_HUB_CACHE"}
    child = subprocess.run(
        [sys.executable, "-c", code, str(QWEN_ID)], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert child.stdout.strip() == str(place)
