"""Latents of a dataset: the VAE's own posterior, made once, the same bytes however a run was killed or shared."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from diffusers import AutoencoderKLLTXVideo

from nextscene.common.storage import Storage
from nextscene.pipelines.encode_latents import main
from nextscene.shards.format.index import check_index
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.format.receipt import Receipt
from nextscene.shards.format.seal import check_sealed
from nextscene.shards.loading.dataset import ClipDataset
from nextscene.shards.loading.latent_dataset import LATENTS, LatentDataset
from nextscene.training.data.latent_cache import FoundLatents, LatentEncoding, find_latents
from tests.shards.clips import HEIGHT, WIDTH, clip
from tests.shards.samples import publish_dataset, seal_dataset, seal_samples
from tests.training import ranks
from tests.training.pretrained import vae

pytestmark = pytest.mark.slow

SIZE, MAX_FRAMES = (WIDTH, HEIGHT), 17
LENGTHS = {
    ShardName("test", 0): [9, 1],
    ShardName("train", 0): [9, 17, 25, 1, 9, 18, 9],
    ShardName("train", 1): [17, 9, 9],
    ShardName("train", 2): [1, 9],
}


def clips_of(name: ShardName) -> list[Any]:
    """An image is square."""
    first = 20 * [*LENGTHS].index(name)
    sizes = [(32, 32) if frames == 1 else SIZE for frames in LENGTHS[name]]
    return [clip(first + i, frames, *size) for i, (frames, size) in enumerate(zip(LENGTHS[name], sizes, strict=True))]


@pytest.fixture(scope="module")
def ltx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ltx")
    torch.manual_seed(0)
    vae().save_pretrained(folder / "vae")
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    seal_dataset(folder, {name: clips_of(name) for name in LENGTHS})
    return folder


@pytest.fixture
def data(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "data"))


def run(data: Path, ltx: Path, **options: object) -> Result:
    given = {"size": f"{WIDTH}x{HEIGHT}", "max_frames": MAX_FRAMES, "batch": 2, "device": "cpu", **options}
    flags = {name.replace("_", "-"): value for name, value in {"data": data, "ltx": ltx, **given}.items()}
    result = CliRunner().invoke(main, [f"--{name}={value}" for name, value in flags.items()])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def find(data: Path, ltx: Path, max_frames: int = MAX_FRAMES, size: tuple[int, int] = SIZE) -> str | None:
    return find_latents(str(data), ltx / "vae", max_frames, size).location


def reason(data: Path, ltx: Path, max_frames: int = MAX_FRAMES, size: tuple[int, int] = SIZE) -> str:
    return find_latents(str(data), ltx / "vae", max_frames, size).reason


def found(data: Path, ltx: Path) -> str:
    place = find(data, ltx)
    assert place
    return place


def all_files(place: str) -> dict[str, bytes]:
    """Also those that only a run at work, or a killed one, has."""
    return {str(path.relative_to(place)): path.read_bytes() for path in Path(place).rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(built: Path, ltx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset with its latents, made by a run that was left alone."""
    data = Path(shutil.copytree(built, tmp_path_factory.mktemp("whole") / "data"))
    assert run(data, ltx).exit_code == 0
    return data


@pytest.fixture(scope="module")
def undisturbed(whole: Path, ltx: Path) -> dict[str, bytes]:
    return all_files(found(whole, ltx))


# ---- what they are -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
def test_each_latent_is_the_posterior_that_the_vae_itself_gives_for_the_clip(
    whole: Path, ltx: Path, split: str
) -> None:
    clips = ClipDataset(str(whole), split, max_frames=MAX_FRAMES, size=SIZE)
    latents = LatentDataset(found(whole, ltx), split)
    model = AutoencoderKLLTXVideo.from_pretrained(ltx, subfolder="vae").eval()
    for number, given in enumerate(clips):
        pixels = torch.from_numpy(given.pop("video")).permute(3, 0, 1, 2)[None] / 127.5 - 1
        with torch.no_grad():
            posterior = model.encode(pixels).latent_dist
        item = latents[number]
        latent = item.pop("latent")
        assert item == given
        assert np.allclose(latent[:-1], posterior.mean[0], rtol=2**-10, atol=1e-5)
        for channel in posterior.logvar[0]:
            assert np.allclose(latent[-1], channel, rtol=2**-10, atol=1e-5)


def test_latent_shards_have_the_keys_of_the_dataset_in_the_same_order(whole: Path, ltx: Path) -> None:
    out, source = Storage.at(found(whole, ltx)), Storage.at(whole)
    manifest = Manifest.read(out)
    assert manifest.complete
    assert [shard.name for shard in manifest.shards] == [*LENGTHS]
    for name in LENGTHS:
        receipt = Receipt.read(out, name)
        assert receipt.clip_ids == Receipt.read(source, name).clip_ids
        check_sealed(out, receipt, LATENTS)
    for split in ("train", "test"):
        check_index(out, manifest, split)


def test_records_tell_what_the_encoder_got(whole: Path, ltx: Path) -> None:
    latents = LatentDataset(found(whole, ltx))
    clips = ClipDataset(str(whole), max_frames=MAX_FRAMES, size=SIZE)
    for number in range(len(clips)):
        record = latents._sample(number).record
        frames, width, height = clips.shapes[number].tolist()
        assert (record.frames, record.width, record.height) == (frames, width, height)
        assert (record.latent_frames, record.latent_width, record.latent_height) == (
            (frames - 1) // 4 + 1,
            width // 4,
            height // 4,
        )


# ---- killed, shared, made again ------------------------------------------------------------------------------------


def process(rank: int, world: int, data: Path, ltx: Path, deadly: int) -> int:
    """One process of a run, which kills itself before the `deadly`-th time that it makes something last."""
    syncs = 0

    def sync(file: int, real: Callable[[int], None] = os.fsync) -> None:
        nonlocal syncs
        syncs += 1
        if syncs == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        real(file)

    with patch.object(os, "fsync", sync), patch.dict(os.environ, RANK=str(rank), WORLD_SIZE=str(world)):
        return run(data, ltx).exit_code


def test_a_run_that_is_killed_again_and_again_makes_the_same_bytes_in_the_end(
    data: Path, ltx: Path, undisturbed: dict[str, bytes]
) -> None:
    deaths = 0
    while True:
        try:
            assert ranks.run(process, 1, data, ltx, 19) == [0]
            break
        except ranks.RankFailed as killed:
            assert "exit code -9" in str(killed)
            assert find(data, ltx) is None
            deaths += 1
    assert deaths >= 2
    assert all_files(found(data, ltx)) == undisturbed


def test_two_processes_at_once_make_the_same_bytes(data: Path, ltx: Path, undisturbed: dict[str, bytes]) -> None:
    assert ranks.run(process, 2, data, ltx, 0) == [0, 0]
    assert all_files(found(data, ltx)) == undisturbed


def test_of_processes_one_after_another_the_last_publishes(
    data: Path, ltx: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in (2, 0, 1):
        assert find(data, ltx) is None
        monkeypatch.setenv("RANK", str(rank))
        result = run(data, ltx)
        assert (result.exit_code, "next " in result.stdout) == (0, rank == 1)
    assert all_files(found(data, ltx)) == undisturbed


def test_what_is_made_is_not_made_again(data: Path, ltx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(data, ltx).exit_code == 0
    before = {entry.path: entry for entry in Storage.at(found(data, ltx)).files(recursive=True)}
    monkeypatch.setattr("nextscene.training.data.encode_latents.encode", None)
    assert run(data, ltx).exit_code == 0
    assert {entry.path: entry for entry in Storage.at(found(data, ltx)).files(recursive=True)} == before


def reseal(data: Path) -> ShardName:
    """A retry: the first training shard anew, with a clip less."""
    out, old = Storage.at(data), ShardName("train", 0)
    new = ShardName("train", 0, 1)
    seal_samples(data, clips_of(old)[1:], new)
    publish_dataset(out, [Receipt.read(out, new if name == old else name) for name in LENGTHS])
    return new


def test_a_shard_that_was_made_anew_has_its_latents_made_anew_and_no_other_has(
    whole: Path, ltx: Path, data: Path
) -> None:
    shutil.copytree(whole / "latents", data / "latents")
    new = reseal(data)
    assert find(data, ltx) is None
    assert reason(data, ltx).startswith("they are not those of all its present shards")
    place = Storage.at(LatentEncoding.for_vae(ltx / "vae", MAX_FRAMES, SIZE).location(str(data)))
    before = {entry.path: entry for entry in place.files("shards", recursive=True)}
    theirs = ["parts/mine.txt", "parts/train/mine", "shards/train/000/nsp-000000.notes.txt", ".notes.unfinished"]
    for path in theirs:
        place.write(path, b"mine")
    assert run(data, ltx).exit_code == 0
    assert found(data, ltx) == place.uri
    assert all((Path(place.uri) / path).exists() for path in theirs)
    place.delete(theirs[2])
    after = {entry.path: entry for entry in place.files("shards", recursive=True)}
    old = ShardName("train", 0)
    assert before.keys() - after.keys() == {old.tar, old.offsets, old.receipt}
    assert after.keys() - before.keys() == {new.tar, new.offsets, new.receipt}
    assert all(after[path] == before[path] for path in before.keys() & after.keys())
    assert len(LatentDataset(place.uri)) == len(ClipDataset(str(data))) == 11


# ---- found, or not -------------------------------------------------------------------------------------------------


def test_latents_of_another_length_or_size_or_vae_are_not_found(whole: Path, ltx: Path, tmp_path: Path) -> None:
    assert find(whole, ltx, max_frames=9) is None
    assert find(whole, ltx, size=(HEIGHT, WIDTH)) is None
    assert reason(whole, ltx, max_frames=9) == f"they have at most {MAX_FRAMES} frames, not 9"
    sizes = f"their videos are {WIDTH}×{HEIGHT}, not {HEIGHT}×{WIDTH}"
    assert reason(whole, ltx, size=(HEIGHT, WIDTH)) == sizes
    other = vae()
    with torch.no_grad():
        other.encoder.conv_out.conv.bias += 1e-3
    other.save_pretrained(tmp_path / "vae")
    assert find(whole, tmp_path) is None
    ours, theirs = (LatentEncoding.for_vae(one / "vae", MAX_FRAMES, SIZE).vae[:16] for one in (tmp_path, ltx))
    assert reason(whole, tmp_path) == f"they were made by the VAE {theirs}, not by {ours}"
    assert reason(whole, tmp_path, max_frames=9).endswith(f", they have at most {MAX_FRAMES} frames, not 9")
    assert find(whole, ltx) is not None and reason(whole, ltx) == ""


def test_a_dataset_without_latents_has_no_reason_why_they_do_not_fit(built: Path, ltx: Path) -> None:
    assert find_latents(str(built), ltx / "vae", MAX_FRAMES, SIZE) == FoundLatents(None)


def test_latents_are_found_again_when_the_dataset_has_moved(whole: Path, ltx: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(whole, tmp_path / "moved")
    assert found(moved, ltx).startswith(str(moved))


def test_the_place_of_latents_in_an_object_store_keeps_its_query() -> None:
    encoding = LatentEncoding("v", 65, (832, 480))
    assert encoding.location("s3://b/set?region=x") == f"s3://b/set/latents/{encoding.fingerprint[:16]}?region=x"


# ---- what goes wrong -----------------------------------------------------------------------------------------------


def failed(result: Result) -> tuple[int, str]:
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in result.stderr
    return result.exit_code, line


def test_a_bad_clip_ends_the_run_with_its_shard_and_key_and_mended_it_goes_on(
    data: Path, ltx: Path, undisturbed: dict[str, bytes]
) -> None:
    tar = data / ShardName("train", 1).tar
    right = tar.read_bytes()
    key = clips_of(ShardName("train", 1))[1].key
    at = right.index(f"{key}.mp4".encode()) + 1000
    tar.write_bytes(right[:at] + bytes([right[at] ^ 1]) + right[at + 1 :])
    code, line = failed(run(data, ltx))
    assert code == 1 and f"train/nsp-000001: sample '{key}'" in line and "checksum" in line
    tar.write_bytes(right)
    assert run(data, ltx).exit_code == 0
    assert all_files(found(data, ltx)) == undisturbed


def test_a_vae_whose_latents_are_not_finite_is_told_with_the_clip(data: Path, tmp_path: Path) -> None:
    broken = vae()
    with torch.no_grad():
        broken.encoder.conv_out.conv.bias[0] = 1e6  # beyond float16
    broken.save_pretrained(tmp_path / "vae")
    code, line = failed(run(data, tmp_path))
    assert code == 1 and "test/nsp-000000: sample" in line and "not finite" in line


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_frames": 16}, "max_frames 16 is not of the form 8k + 1"),
        ({"size": "66x48"}, "the VAE does not take all clips of test: 66×48 pixels are not multiples of 4"),
        ({"size": "0x0"}, "is not a width and a height"),
    ],
)
def test_what_cannot_be_is_wrong_usage_in_one_line(built: Path, ltx: Path, options: dict[str, Any], told: str) -> None:
    code, line = failed(run(built, ltx, **options))
    assert code == 2 and told in line
    assert not (built / "latents").exists()


def test_what_is_not_there_is_wrong_usage(built: Path, ltx: Path, tmp_path: Path) -> None:
    code, line = failed(run(tmp_path, ltx))
    assert code == 2 and "holds no dataset" in line and "build one first" in line
    code, line = failed(run(built, tmp_path))
    assert code == 2 and "holds no vae" in line
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_bytes((ltx / "vae" / "config.json").read_bytes())
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"no weights")
    code, line = failed(run(built, tmp_path))
    assert code == 2 and "is damaged" in line


@pytest.mark.parametrize("size", ["832", "832x", "832×480", "-1x4"])
def test_a_size_that_is_none_is_wrong_usage(built: Path, ltx: Path, size: str) -> None:
    result = run(built, ltx, size=size)
    assert result.exit_code == 2 and "write it as 832x480" in result.stderr


@pytest.mark.parametrize(("rank", "world"), [("1", "1"), ("-1", "2"), ("zero", "1"), ("0", "")])
def test_a_rank_outside_its_world_is_wrong_usage(
    built: Path, ltx: Path, monkeypatch: pytest.MonkeyPatch, rank: str, world: str
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    code, line = failed(run(built, ltx))
    assert code == 2 and line.startswith(f"error: RANK={rank} WORLD_SIZE={world} is not a process of a group; start ")


@pytest.mark.parametrize("elsewhere", ["latents of another length", "the dataset itself"])
def test_nothing_is_mixed_with_what_is_there(data: Path, ltx: Path, tmp_path: Path, elsewhere: str) -> None:
    place = data
    if elsewhere != "the dataset itself":
        place = tmp_path / "out"
        assert run(data, ltx, out=place, max_frames=9).exit_code == 0
        assert len(LatentDataset(str(place))) == 12
    before = all_files(str(place))
    code, line = failed(run(data, ltx, out=place))
    told = "lies inside --data" if place == data else "holds other data than these latents"
    assert code == 2 and told in line
    assert all_files(str(place)) == before


def test_a_shard_of_other_clips_under_the_same_name_is_told(data: Path, ltx: Path, whole: Path) -> None:
    shutil.copytree(whole / "latents", data / "latents")
    out, name = Storage.at(data), ShardName("train", 2)
    seal_samples(data, [clip(70, 9)], name)
    publish_dataset(out, [Receipt.read(out, shard) for shard in LENGTHS])
    code, line = failed(run(data, ltx))
    assert code == 1 and "train/nsp-000002" in line and "was made of other clips" in line


def test_an_interrupted_run_says_that_it_can_go_on(data: Path, ltx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nextscene.training.data.encode_latents.encode", interrupt)
    code, line = failed(run(data, ltx))
    assert code == 130 and "run the same command again to continue" in line
