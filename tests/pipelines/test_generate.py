"""generate.py: what it makes and records, what it does not make twice, and a mistake in one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from nextscene.common.run_lock import hold_lock
from nextscene.common.storage import Storage
from nextscene.pipelines.generate import main
from nextscene.shards.format.folder_mark import VIDEOS, claim
from nextscene.training.errors import TrainingStopped
from nextscene.training.generation.next_scene import NextScene
from nextscene.training.generation.open_generator import of_export
from nextscene.training.model.pretrained import PretrainedModels
from tests.training.generators import make_export, save_text_encoder
from tests.training.stages import make_originals

SIZE = ["--frames", "5", "--width", "16", "--height", "16", "--steps", "2"]
SCENES = ["A glass wobbles.", "Dark clouds gather.", "Rain – and wind."]


@dataclass(frozen=True)
class Given:
    """All that a command names, and an --out of its own."""

    originals: PretrainedModels
    run_folder: Path
    scenes: Path
    out: Path

    def run(self, *flags: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of the command, in this process; it must end by itself, not by an exception."""
        result = CliRunner().invoke(main, [*SIZE, *flags])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result.exit_code, result.stdout, result.stderr

    def make(self, *flags: str) -> str:
        """What it prints of videos of all scenes, into a folder."""
        command = ["--run", str(self.run_folder), "--scenes", str(self.scenes), "--out", str(self.out)]
        code, stdout, stderr = self.run(*command, *flags)
        assert code == 0, stderr
        return stdout

    @property
    def records(self) -> list[dict[str, Any]]:
        """Of the videos that are made."""
        records = [json.loads(line) for line in (self.out / "videos.jsonl").read_text().splitlines()]
        return [record for record in records if record.keys() != {"file"}]

    @property
    def stamps(self) -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in sorted(self.out.glob("*.mp4"))}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder = tmp_path_factory.mktemp("made")
    originals = make_originals(folder / "originals")
    save_text_encoder(originals.ltx)
    make_export(folder / "run" / "export", originals)
    (folder / "scenes.txt").write_text("\n".join(SCENES) + "\n\n")
    return Given(originals, folder / "run", folder / "scenes.txt", folder)


@pytest.fixture
def given(made: Given, tmp_path: Path) -> Given:
    return Given(made.originals, made.run_folder, made.scenes, tmp_path / "out")


def pictures(mp4: Path) -> npt.NDArray[np.uint8]:
    with av.open(str(mp4)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


# ---- what is made --------------------------------------------------------------------------------------------------


def test_each_scene_has_its_videos_and_each_video_its_record(given: Given) -> None:
    stdout = given.make("--samples", "2", "--seed", "40", "--batch", "4")
    assert "6 videos, 5 frames of 16×16 at 16 a second" in stdout and "40 to 45" in stdout
    assert list(given.stamps) == [f"{number:04}.mp4" for number in range(6)]
    model = of_export(given.run_folder / "export", frames=5, width=16, height=16, steps=2).open(torch.device("cpu"))
    for number, record in enumerate(given.records):
        assert record == {
            "file": f"{number:04}.mp4",
            "scene": SCENES[number // 2],
            "seed": 40 + number,
            "model": model.name,
            "frames": 5,
            "width": 16,
            "height": 16,
            "fps": 16.0,
            "steps": 2,
            "guidance": 3.0,
        }
        expected = model.videos([record["scene"]], [record["seed"]])[0].numpy()
        errors = [np.abs(pictures(given.out / name).astype(int) - expected).mean() for name in given.stamps]
        assert np.argmin(errors) == number


def test_a_single_scene_becomes_the_file_that_is_named(given: Given, tmp_path: Path) -> None:
    target = tmp_path / "new" / "clip.mp4"
    command = ["--run", str(given.run_folder), "--scene", SCENES[0], "--out", str(target)]
    code, stdout, stderr = given.run(*command)
    assert (code, stderr) == (0, "") and str(target) in stdout
    assert [path.name for path in target.parent.iterdir()] == ["clip.mp4"]
    given.make()
    assert target.read_bytes() == (given.out / "0000.mp4").read_bytes()
    target.write_text("mine")
    code, stdout, stderr = given.run(*command)
    assert (code, stdout) == (2, "") and "clip.mp4 is there already" in stderr and target.read_text() == "mine"


@pytest.mark.parametrize("scene", ["One.\u2028Two.", "One.\x85Two.", "One.\nTwo."])
def test_whatever_ends_a_line_may_stand_in_a_scene(given: Given, scene: str) -> None:
    command = ["--run", str(given.run_folder), "--scene", scene, "--out", str(given.out)]
    assert given.run(*command)[0] == 0
    before = given.stamps
    code, stdout, stderr = given.run(*command)
    assert (code, stderr) == (0, "") and "1 stood there already" in stdout
    assert given.stamps == before


def test_a_second_run_into_the_same_folder_is_refused(given: Given) -> None:
    given.out.mkdir()
    with hold_lock(Storage.at(given.out), "another"):
        command = ["--run", str(given.run_folder), "--scenes", str(given.scenes), "--out", str(given.out)]
        code, _, stderr = given.run(*command)
    assert code == 3 and "is at work there" in stderr
    assert given.stamps == {}


def test_the_original_is_made_of_the_text_itself_at_its_own_frame_rate(given: Given) -> None:
    flags = ["--original", "--ltx", str(given.originals.ltx), "--scene", SCENES[0], "--out", str(given.out)]
    code, stdout, stderr = given.run(*flags, "--width", "32", "--height", "32")
    assert code == 0, stderr
    assert "at 25 a second" in stdout
    (record,) = given.records
    assert record["fps"] == 25.0 and record["model"].startswith("ltx-video-")


# ---- what is not made twice ----------------------------------------------------------------------------------------


def test_existing_videos_of_the_same_settings_are_kept_and_no_model_is_opened(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    given.make()
    stamps, records = given.stamps, given.records
    with monkeypatch.context() as patch:
        patch.setattr("nextscene.evaluation.videos.open_generator", lambda _: pytest.fail("a model was opened"))
        assert "0 videos" in given.make() and "3 stood there already" in given.make("--batch", "2")
    assert (given.stamps, given.records) == (stamps, records)
    (given.out / "0001.mp4").unlink()
    assert "1 video, " in given.make()
    assert [name for name, stamp in given.stamps.items() if stamp != stamps[name]] == ["0001.mp4"]


@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted; the videos that are finished are kept"),
        (TrainingStopped("2 videos at once do not fit"), 3, "2 videos at once do not fit"),
    ],
    ids=["interrupted", "out of memory"],
)
def test_a_run_that_ends_early_keeps_what_is_finished_and_goes_on(
    given: Given, monkeypatch: pytest.MonkeyPatch, end: BaseException, code: int, words: str
) -> None:
    videos, calls = NextScene.videos, 0

    def mortal(self: NextScene, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise end
        return videos(self, texts, seeds)

    command = ["--run", str(given.run_folder), "--scenes", str(given.scenes), "--out", str(given.out)]
    with monkeypatch.context() as patch:
        patch.setattr(NextScene, "videos", mortal)
        ended, stdout, stderr = given.run(*command)
    assert (ended, stdout) == (code, "") and words in stderr and "run the same command again" in stderr.lower()
    assert [record["file"] for record in given.records] == list(given.stamps) == ["0000.mp4"]
    first = given.stamps["0000.mp4"]
    assert "2 videos" in given.make()
    assert given.stamps["0000.mp4"] == first and len(given.records) == 3


def test_what_a_killed_run_left_without_a_record_is_made_anew(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    given.make()
    whole = (given.out / "0001.mp4").read_bytes()
    records = (given.out / "videos.jsonl").read_text().splitlines(keepends=True)
    claim = json.dumps({"file": "0001.mp4"}) + "\n"
    (given.out / "videos.jsonl").write_text("".join([records[0], claim, records[2]]))
    (given.out / "0001.mp4").write_bytes(b"half of it")
    assert "1 video" in given.make()
    assert (given.out / "0001.mp4").read_bytes() == whole


@pytest.mark.parametrize("changed", [["--seed", "9"], ["--steps", "3"]])
def test_videos_that_were_made_otherwise_are_not_lost(given: Given, changed: list[str]) -> None:
    given.make()
    before = given.stamps
    command = ["--run", str(given.run_folder), "--scenes", str(given.scenes), "--out", str(given.out)]
    code, _, stderr = given.run(*command, *changed)
    assert code == 2 and "0000.mp4 is there already" in stderr
    assert given.stamps == before and "3 stood there already" in given.make()


def test_a_video_that_is_somebody_s_is_not_lost(given: Given) -> None:
    claim(Storage.at(given.out), VIDEOS)
    (given.out / "0002.mp4").write_text("precious")
    command = ["--run", str(given.run_folder), "--scenes", str(given.scenes), "--out", str(given.out)]
    code, _, stderr = given.run(*command)
    assert code == 2 and "0002.mp4 is there already" in stderr
    assert list(given.stamps) == ["0002.mp4"] and (given.out / "0002.mp4").read_text() == "precious"


# ---- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--scene", "a", "--scenes", "SCENES", "--run", "RUN"], ["--scene", "--scenes"]),
        (["--run", "RUN"], ["--scene", "--scenes"]),
        (["--scene", " ", "--run", "RUN"], ["--scene ' ' is empty"]),
        (["--scenes", "EMPTY", "--run", "RUN"], ["empty.txt", "holds no scene"]),
        (["--scenes", "LATIN", "--run", "RUN"], ["latin.txt", "UTF-8"]),
        (["--scene", "a"], ["--run, --checkpoint or --original"]),
        (["--scene", "a", "--run", "RUN", "--original"], ["--run, --checkpoint or --original"]),
        (["--scene", "a", "--run", "RUN", "--ltx", "LTX"], ["--run goes without --ltx"]),
        (["--scene", "a", "--run", "/nowhere"], ["/nowhere holds no trained model", "a checkpoint"]),
        (["--scene", "a", "--checkpoint", "c"], ["--checkpoint needs --qwen"]),
        (["--scene", "a", "--checkpoint", "c", "--qwen", "QWEN", "--ltx", "LTX"], ["c is not a complete checkpoint"]),
        (["--scene", "a", "--original", "--ltx", "/nowhere"], ["--ltx /nowhere holds no scheduler"]),
        (["--scene", "a", "--original", "--ltx", "LTX", "--form", "nsp"], ["leave --form out"]),
        (["--scene", "a\udcff", "--run", "RUN"], ["--scene is not text in UTF-8"]),
        (["--scene", "a", "--run", "RUN", "--guidance", "nan"], ["--guidance", "nan is not a finite number"]),
        (["--scene", "a", "--run", "RUN", "--fps", "inf"], ["--fps", "not in the range"]),
        (["--scene", "a", "--run", "RUN", "--out", "s3://b/x"], ["s3://b/x is not a local path"]),
        (["--scene", "a", "--run", "RUN", "--out", ""], ["--out '' is empty"]),
        (["--scene", "a", "--run", "RUN", "--out", "SCENES"], ["scenes.txt is a file"]),
        (["--scenes", "SCENES", "--run", "RUN", "--out", "x.MP4"], ["x.MP4 is one video", "3 are asked for"]),
        (["--scene", "a", "--run", "RUN", "--frames", "6"], ["6 frames are not of the form 4k + 1"]),
        (["--scene", "a", "--run", "RUN", "--width", "34"], ["34×16", "multiples of 4"]),
        (["--scene", "a", "--run", "RUN", "--out", "/dev/null/x"], ["/dev/null/x lies below a file"]),
        (["--scene", "a", "--run", "RUN", "--out", "/dev/null/x.mp4"], ["/dev/null cannot be written to"]),
        (["--scenes", "SCENES", "--run", "RUN", "--out", "x.mp4"], ["x.mp4 is one video", "3 are asked for"]),
        (["--scene", "a", "--run", "RUN", "--out", "OTHER"], ["'videos.jsonl' and no nextscene.json"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_usage_is_told_in_a_line(given: Given, tmp_path: Path, flags: list[str], words: list[str]) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes("fenêtre".encode("latin-1"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "videos.jsonl").write_text("[1]\n")
    names = {
        "RUN": given.run_folder,
        "SCENES": given.scenes,
        "QWEN": given.originals.qwen,
        "LTX": given.originals.ltx,
        "EMPTY": tmp_path / "empty.txt",
        "LATIN": tmp_path / "latin.txt",
        "OTHER": tmp_path / "other",
    }
    out = [] if "--out" in flags else ["--out", str(given.out)]
    code, stdout, stderr = given.run(*(str(names.get(flag, flag)) for flag in flags), *out)
    assert (code, stdout) == (2, ""), stderr
    (line,) = [line for line in stderr.splitlines() if line.lower().startswith("error: ")]
    assert [word for word in words if word not in line] == [], line
    assert not list(tmp_path.rglob("*.mp4"))
